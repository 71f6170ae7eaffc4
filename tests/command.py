"""The `llm-qfl` command as a process of its own, as users start it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def llm_qfl(
    folder: Path, *words: str, timeout: float = 300, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, with more environment."""
    return subprocess.run(
        [sys.executable, "-m", "llm_qfl.cli", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def sets(*assignments: str) -> list[str]:
    """Return the words that make settings of the command line."""
    return [part for assignment in assignments for part in ("--set", assignment)]
