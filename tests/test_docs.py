"""Pages that quote the code quote what is in it."""

from __future__ import annotations

import ast
import re

import pytest

from tests.command import ROOT

FOLDERS = (
    *("client_app", "core", "data", "llm", "llm_qfl", "quantum", "reporting", "server_app"),
    "strategies",
)
QUOTES = re.findall(r"^### `(.+)`$", (ROOT / "docs/troubleshooting.md").read_text("utf-8"), re.M)


def _text(node: ast.AST) -> str:
    """Return a string of the code; what varies in it as ``…``."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return "…"


@pytest.fixture(scope="module")
def texts() -> list[str]:
    trees = (
        ast.parse(path.read_text("utf-8")) for f in FOLDERS for path in (ROOT / f).rglob("*.py")
    )
    nodes = (node for tree in trees for node in ast.walk(tree))
    return [_text(node) for node in nodes if isinstance(node, ast.JoinedStr | ast.Constant)]


@pytest.mark.parametrize("quote", QUOTES)
def test_an_error_of_the_troubleshooting_page_is_in_the_code(quote: str, texts: list[str]) -> None:
    parts = re.split("…", quote)
    pattern = re.compile(".*".join(re.escape(part) for part in parts), re.S)
    assert any(pattern.search(text) for text in texts)


def test_the_page_has_twenty_errors_or_more_and_the_glossary_fits_a_screen_or_two() -> None:
    assert len(QUOTES) == len(set(QUOTES)) >= 20
    assert len((ROOT / "docs/glossary.md").read_text("utf-8").splitlines()) <= 80
