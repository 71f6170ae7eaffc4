"""The fault suite takes a quarter of an hour: ``make test-faults`` runs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what nobody asked for, or what the system cannot do."""
    why = ""
    if "LLM_QFL_REAL" not in os.environ:
        why = "many minutes: make test-faults"
    elif not sys.platform.startswith("linux"):
        why = "needs /proc"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            if why:
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for a module's runs and deployment."""
    return tmp_path_factory.mktemp("faults")
