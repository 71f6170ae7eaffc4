"""How a setting is declared: default, meaning, and when it has an effect."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

Clause = tuple[str, tuple[Any, ...] | str]


def setting(
    default: Any,
    doc: str,
    *,
    used_when: tuple[Clause, ...] = (),
    per_node: bool = False,
    listed: bool = False,
    **bounds: Any,
) -> Any:
    """Declare one key.

    Parameters
    ----------
    default : Any
        Its default value.
    doc : str
        One sentence for the reference page.
    used_when : tuple of (key, test)
        Clauses that must all hold for the key to have an effect. A test is a tuple of
        accepted values, ``">0"``, ``"<1"``, ``"!a"`` (anything but a), or ``"^a|b:"``: one of
        the comma-separated names in the value starts with a or b:. A non-default value while a
        clause fails is refused.
    per_node : bool
        Whether a node's own config may override it.
    listed : bool
        Whether the text is a comma-separated list, which TOML may write as an array of texts.
    **bounds : Any
        pydantic's bounds (``ge``, ``le``, ``gt``, ``lt``).

    Returns
    -------
    Any
        The pydantic field.
    """
    extra: dict[str, Any] = {
        "used_when": [[k, t if isinstance(t, str) else list(t)] for k, t in used_when],
        "per_node": per_node,
        "listed": listed,
    }
    return Field(default, description=doc, json_schema_extra=extra, **bounds)


class Section(BaseModel):
    """A frozen section of the tree: extra keys refused, no silent coercion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
