"""Pages without charts, where a test reads their text alone."""

from __future__ import annotations

import pytest


@pytest.fixture
def no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the drawing out, which takes most of a page's time."""
    for module in ("charts", "comparison_page"):
        monkeypatch.setattr(f"reporting.{module}.chart", lambda size, draw, label: "<svg></svg>")
