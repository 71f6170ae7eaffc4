"""`import llm_qfl` loads nothing heavy, and what it names is there."""

from __future__ import annotations

import subprocess
import sys

import llm_qfl
from tests.command import ROOT

LATER = ("torch", "pandas", "flwr", "pennylane", "numpy", "pydantic", "core", "rich")
"""Packages that the import alone must not load."""


def test_the_import_loads_nothing_heavy() -> None:
    code = f"import sys, llm_qfl; print([name for name in {LATER} if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_every_name_is_there() -> None:
    assert [name for name in llm_qfl.__all__ if getattr(llm_qfl, name) is None] == []
    assert set(dir(llm_qfl)) == set(llm_qfl.__all__)
    assert {"run", "read", "Result", "Settings", "register"} <= set(llm_qfl.__all__)
