"""No list and no branch of the product names what an extension point's folder holds."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from core import registry
from tests.test_style import MODULES, ROOT

FORMATS = ROOT / "llm_qfl" / "model"
"""Reads and writes files by their ending: ``.parquet`` is a format, and a data source's name."""


def texts(node: ast.AST) -> list[str]:
    """Return the texts of a constant, tuple, list, set, or a dict's keys."""
    parts = getattr(node, "elts", None) or getattr(node, "keys", None) or [node]
    return [one.value for one in parts if isinstance(one, ast.Constant) and type(one.value) is str]


def is_setting(node: ast.AST, setting: str) -> bool:
    """Whether an expression may be a setting: ``agent.kind``, ``own.kind`` or ``"agent.kind"``."""
    leaf = setting.partition(".")[2]
    written = ast.unparse(node)
    return written in (repr(setting), leaf) or written.endswith(f".{leaf}")


def named(tree: ast.AST, setting: str, names: set[str]) -> Iterator[ast.AST]:
    """Yield where a tree branches on a setting's names, or lists two or more of them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and is_setting(node.left, setting):
            if any(names & set(texts(one)) for one in node.comparators):
                yield node
        elif isinstance(node, ast.Match) and is_setting(node.subject, setting):
            yield node
        elif isinstance(node, ast.Call) and node.args and is_setting(node.args[0], setting):
            if any(names & set(texts(one)) for one in node.args[1:]):
                yield node
        elif isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict):
            found = texts(node)
            whole = len(found) == len(ast.unparse(node).split(","))
            if whole and len(found) > 1 and set(found) <= names:
                yield node


@pytest.mark.parametrize("point", registry.POINTS)
def test_no_module_lists_or_branches_on_the_names_of_a_point(point: str) -> None:
    known = registry.POINTS[point]
    home = ROOT / known.package.replace(".", "/")
    wrong = [
        f"{path.relative_to(ROOT)}, line {node.lineno}: {ast.unparse(node)}"  # type: ignore[attr-defined]
        for path in MODULES
        if not path.is_relative_to(home) and not path.is_relative_to(FORMATS)
        for node in named(ast.parse(path.read_text()), known.setting, set(registry.shipped(point)))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "text",
    [
        "if settings.agent.kind == 'rule': ...",
        "if agent.kind in ('rule', 'all'): ...",
        "if own.kind != 'rule' or kind == 'all': ...",
        "kind: Literal['rule', 'all'] = setting('rule')",
        "LANGUAGE_MODELS = ('llm', 'endpoint')",
        "HOMES = {'llm': one, 'endpoint': other}",
        "applies = when('agent.kind', 'rule')",
        "match settings.agent.kind:\n    case 'rule': ...",
    ],
)
def test_such_a_line_is_found(text: str) -> None:
    assert list(named(ast.parse(text), "agent.kind", set(registry.shipped("agent"))))
