"""The door of the package: light to open."""

from __future__ import annotations

import subprocess
import sys


def test_import_loads_nothing_heavy() -> None:
    heavy = ["torch", "sklearn", "scipy", "datasets", "pandas", "transformers", "flwr"]
    code = f"import sys, data; print(*[m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
