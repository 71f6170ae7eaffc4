"""How a setting is declared: its default, its bounds, and when it has an effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from core import registry
from core.formatting import toml_value

AUTO: Final = "auto"
"""The value with which a run finds a setting's value itself."""

Auto = Literal["auto"]
"""Its type, beside that of a number: ``Annotated[int, Field(ge=2)] | Auto``."""


@dataclass(frozen=True)
class Condition:
    """What another setting must be for a setting to have an effect.

    Attributes
    ----------
    key : str
        The other setting, for instance ``train.schedule``.
    holds : callable
        Whether its value gives the setting an effect.
    says : str or callable
        The values that do, in Markdown; a function where extensions would have to be imported.
    or_else : Condition or None
        What may hold instead.
    """

    key: str
    holds: Callable[[Any], bool]
    says: str | Callable[[], str]
    or_else: Condition | None = None

    @property
    def accepted(self) -> str:
        """The values that give it an effect, in Markdown."""
        return self.says if isinstance(self.says, str) else self.says()

    def met(self, flat: Mapping[str, Any]) -> bool:
        """Whether settings by dotted key fulfil it."""
        return self.holds(flat[self.key]) or (self.or_else is not None and self.or_else.met(flat))

    @property
    def markdown(self) -> str:
        """The whole condition, in Markdown."""
        other = f" or {self.or_else.markdown}" if self.or_else else ""
        return f"`{self.key}` is {self.accepted}{other}"

    def __str__(self) -> str:
        verb = "=" if self.accepted.startswith("`") else "is"
        other = f", or {self.or_else}" if self.or_else else ""
        return f"{self.key} {verb} {self.accepted.replace('`', '')}{other}"


Conditions = tuple[Condition, ...]
"""Conditions that must all hold; ``a + b`` joins them."""


def when(key: str, *values: Any) -> Conditions:
    """Require one of some values of a key."""
    accepted = " or ".join(f"`{toml_value(value)}`" for value in values)
    return (Condition(key, lambda value: value in values, accepted),)


def unless(key: str, value: Any) -> Conditions:
    """Require any other value of a key."""
    return (Condition(key, lambda other: other != value, f"not `{toml_value(value)}`"),)


def given(key: str) -> Conditions:
    """Require a text that is not empty."""
    return (Condition(key, bool, "a text"),)


def above(key: str, limit: int) -> Conditions:
    """Require a number above a limit."""
    return (Condition(key, lambda value: value > limit, f"above {limit}"),)


def below(key: str, limit: int) -> Conditions:
    """Require a number below a limit."""
    return (Condition(key, lambda value: value < limit, f"below {limit}"),)


def used_by(point: str, key: str, own: bool = False) -> Conditions:
    """Require an extension that declares that it reads a setting (``uses``).

    Parameters
    ----------
    point : str
        The extension point (`core.registry.POINTS`).
    key : str
        The setting's own dotted key.
    own : bool
        Whether the setting works for every extension of a user's own too.
    """
    known = registry.POINTS[point]

    def holds(name: Any) -> bool:
        mine = own and name not in registry.shipped(point)
        return mine or key in registry.declared(point, name, "uses", ())

    def says() -> str:
        named = [f"`{toml_value(name)}`" for name in registry.users(point, key)]
        others = [known.texts] if known.other and holds("") else []
        return " or ".join([*named, *others, *(["one of your own"] if own else [])])

    return (Condition(known.setting, holds, says),)


def declares(point: str, trait: str, says: str, *, default: bool = False) -> Conditions:
    """Require an extension that declares a trait, for instance that it may stop the run."""
    key = registry.POINTS[point].setting
    return (
        Condition(key, lambda name: bool(registry.declared(point, name, trait, default)), says),
    )


def own(point: str) -> Conditions:
    """Require an extension of the user's: what ships has settings of its own."""

    def holds(name: Any) -> bool:
        return name not in registry.shipped(point)

    return (Condition(registry.POINTS[point].setting, holds, "an extension of yours"),)


class Traits(NamedTuple):
    """What is known of a setting besides its type, default and bounds; see `setting`."""

    applies_when: Conditions = ()
    per_node: bool = False
    resumable: bool = False
    listed: bool = False
    point: str = ""
    formerly: Any = None


def setting(
    default: Any,
    *,
    applies_when: Conditions = (),
    per_node: bool = False,
    resumable: bool = False,
    listed: bool = False,
    point: str = "",
    formerly: Any = None,
    **bounds: Any,
) -> Any:
    """Declare a setting; the docstring below it describes it in the reference page.

    Parameters
    ----------
    default : Any
        Its default value.
    applies_when : tuple of Condition
        What must hold for it to have an effect. Another value than the default is refused
        while one of them does not.
    per_node : bool
        Whether a node's own config may override it.
    resumable : bool
        Whether it may change when an interrupted run goes on: it alters no finished round.
    listed : bool
        Whether the text is a comma-separated list, which TOML may write as an array of texts.
    point : str
        The extension point that the text is a name of (`core.registry.POINTS`).
    formerly : Any
        What runs and models had that were written before there was the setting; None: its default.
    **bounds : Any
        pydantic's bounds (``ge``, ``le``, ``gt``, ``lt``).

    Returns
    -------
    Any
        The pydantic field.
    """
    traits: Any = Traits(applies_when, per_node, resumable, listed, point, formerly)
    return Field(default, json_schema_extra={"traits": traits}, **bounds)


class Section(BaseModel):
    """A frozen section of the tree: extra keys refused, no silent coercion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
