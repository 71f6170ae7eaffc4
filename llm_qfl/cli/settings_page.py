"""`llm-qfl settings`: every key with what it does, its default and what it takes."""

from __future__ import annotations

import difflib
import textwrap

from pydantic.fields import FieldInfo

from core import SettingsError, accepted, conditions, explain, fields, meta, toml_value

WIDTH = 100


def explain_settings(key: str) -> int:
    """Print one key, one section, or all.

    Parameters
    ----------
    key : str
        ``section.key``, ``section``, or empty for everything.

    Returns
    -------
    int
        0.

    Raises
    ------
    SettingsError
        For an unknown key, with the nearest one.
    """
    print("\n".join(settings_lines(key)))
    return 0


def settings_lines(key: str) -> list[str]:
    """Return the lines that explain `key`."""
    known = dict(fields())
    chosen = [k for k in known if key in ("", k, k.partition(".")[0])]
    if not chosen:
        sections = sorted({k.partition(".")[0] for k in known})
        near = difflib.get_close_matches(key, [*known, *sections], n=1, cutoff=0.0)[0]
        raise SettingsError(
            explain(
                f"unknown setting {key!r}",
                f"a key or a section ({', '.join(sections)})",
                f"did you mean {near!r}?",
            ).replace("?.", "?")
        )
    return [line for k in chosen for line in _entry(k, known[k])]


def _entry(key: str, field: FieldInfo) -> list[str]:
    lines = [f"{key} = {toml_value(field.default)}"]
    clauses = meta(field).get("used_when")
    texts = [field.description or "", f"Takes: {accepted(field)}."]
    texts += [f"Used when {conditions(clauses)}."] if clauses else []
    texts += ["A node may set its own."] * bool(meta(field).get("per_node"))
    for text in texts:
        lines += textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="    ")
    return lines
