"""A terminal that cannot show a character ends nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.command import llm_qfl

POOR: tuple[dict[str, Any], ...] = (
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
)


@pytest.mark.parametrize("environment", POOR, ids=["latin-1", "ascii", "C"])
@pytest.mark.parametrize(
    ("words", "code", "printed"),
    [
        (("settings", "quantum.noise"), 0, r"pennylane:\u2026"),
        (("run", "--set", "run.name=\U0001f389"), 2, "run.name = '\\"),
    ],
)
def test_what_cannot_be_shown_is_escaped(
    tmp_path: Path, environment: dict[str, Any], words: tuple[str, ...], code: int, printed: str
) -> None:
    done = llm_qfl(tmp_path, *words, **environment)
    shown = done.stdout + done.stderr
    assert "Traceback" not in shown
    assert done.returncode == code
    assert printed in shown
