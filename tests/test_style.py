"""How the code and its pages are written: words of the field, sizes, line lengths."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = [
    "client_app",
    "core",
    "data",
    "llm",
    "llm_qfl",
    "quantum",
    "reporting",
    "server_app",
    "strategies",
]
MODULES = [path for folder in PRODUCT for path in sorted((ROOT / folder).rglob("*.py"))]
PAGES = [
    path
    for path in sorted(ROOT.rglob("*.md"))
    if not set(path.parts) & {".venv", ".ci-venv", "runs"}
]

REPLACED = re.compile(
    "(adopted|anew|asked|asking|booked|dialect|judge|judged|judging|muster|rollcall|said|speaker|"
    "strangers|told|turns|verdict|versus)",
    re.IGNORECASE,
)
"""Words that an earlier version used in names where the field has terms of its own."""
FILE_KEYS = "core/storage/records.py"
"""Its fields are named as the keys of run folders, old ones too."""


def names(tree: ast.AST) -> Iterator[str]:
    """Names that a module defines: functions, classes, arguments, variables, attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def test_names_use_the_words_of_the_field() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in MODULES
        if path != ROOT / FILE_KEYS
        for name in names(ast.parse(path.read_text()))
        if any(REPLACED.fullmatch(word) for word in re.findall(r"[A-Z]?[a-z]+", name))
    ]
    assert not wrong


def test_no_module_is_longer_than_400_lines() -> None:
    assert not [str(p) for p in MODULES if len(p.read_text().splitlines()) > 400]


def test_readme_is_at_most_120_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_of_pages_have_at_most_100_characters(page: Path) -> None:
    lines = page.read_text().splitlines()
    tables = page.name == "RESULTS.md"  # figures side by side
    assert not [line for line in lines if len(line) > 100 and not (tables and line[0] == "|")]
