"""docs/architecture.md is true: each name in it is there, and import layers and circles hold."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMES = sorted(set(re.findall(r"`([a-z_]+(?:\.\w+)+)`", PAGE)))


def found(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:cut]))
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


def set_from_outside(path: Path) -> Iterator[str]:
    """Yield where a module sets an attribute of anything but ``self``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        for target in targets:
            for one in getattr(target, "elts", [target]):
                outside = isinstance(one, ast.Attribute) and ast.unparse(one.value) != "self"
                if outside and isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
                    yield f"{path.relative_to(ROOT)}, line {node.lineno}: {ast.unparse(one)}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "setattr":
            yield f"{path.relative_to(ROOT)}, line {node.lineno}: setattr"


@pytest.mark.parametrize("folder", ["strategies", "server_app", "client_app"])
def test_objects_are_whole_when_they_are_built(folder: str) -> None:
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert [line for path in paths for line in set_from_outside(path)] == []
