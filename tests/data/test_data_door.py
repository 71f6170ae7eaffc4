"""The door of the package: light to open."""

from __future__ import annotations

import subprocess
import sys

import data


def test_import_loads_nothing_heavy() -> None:
    heavy = ["torch", "sklearn", "scipy", "datasets", "pandas", "transformers", "flwr"]
    code = f"import sys, data; print(*[m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_public_name_is_there() -> None:
    assert all(hasattr(data, name) for name in data.__all__)
