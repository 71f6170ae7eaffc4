"""The settings of a run: one frozen, typed tree, and what is known of each key.

Defaults, bounds and descriptions are declared in the sections' own modules, and nowhere else.
The ``[tool.flwr.app.config]`` table of ``pyproject.toml`` and ``docs/settings.md`` are generated
from them (`core.settings.reference`). Flower's run config holds only whole numbers, numbers,
booleans and strings, so "not set" is the empty string or zero.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from core import registry
from core.settings.agent import AgentSettings
from core.settings.aggregation import AggregationSettings, EvaluationSettings
from core.settings.data import DataSettings
from core.settings.declare import Section, Traits
from core.settings.features import FeatureSettings
from core.settings.hardware import HardwareSettings
from core.settings.llm import DistillSettings, LlmSettings
from core.settings.privacy import PrivacySettings
from core.settings.quantum import QuantumSettings
from core.settings.run import RunSettings, StopSettings
from core.settings.train import TrainSettings

Scalar = bool | int | float | str
"""What Flower's run config and node config can hold."""


class Settings(Section):
    """Everything a run is made of."""

    run: RunSettings = RunSettings()
    data: DataSettings = DataSettings()
    features: FeatureSettings = FeatureSettings()
    quantum: QuantumSettings = QuantumSettings()
    hardware: HardwareSettings = HardwareSettings()
    train: TrainSettings = TrainSettings()
    distill: DistillSettings = DistillSettings()
    llm: LlmSettings = LlmSettings()
    agent: AgentSettings = AgentSettings()
    stop: StopSettings = StopSettings()
    aggregation: AggregationSettings = AggregationSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    privacy: PrivacySettings = PrivacySettings()


SECTIONS: dict[str, type[Section]] = {
    name: type(field.default) for name, field in Settings.model_fields.items()
}
FIELDS: dict[str, FieldInfo] = {
    f"{name}.{leaf}": field
    for name, section in SECTIONS.items()
    for leaf, field in section.model_fields.items()
}
"""Every dotted key with its pydantic field, in documented order."""


def flatten(settings: Settings) -> dict[str, Scalar]:
    """Return the tree as flat dotted keys, as Flower's run config holds it."""
    tree = settings.model_dump()
    return {f"{name}.{leaf}": tree[name][leaf] for name in tree for leaf in tree[name]}


def traits(key: str) -> Traits:
    """Return what `core.settings.declare.setting` noted of a key; of an unknown one nothing."""
    extra: Any = FIELDS[key].json_schema_extra if key in FIELDS else None
    return extra["traits"] if extra else Traits()


def with_former(tree: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return written settings with those that there were not yet as they then worked.

    One that has no effect beside the others keeps its default, which is the only value it takes.
    """
    whole = {name: dict(part) for name, part in tree.items()}
    flat = flatten(Settings()) | {
        f"{n}.{k}": v for n, part in whole.items() for k, v in part.items()
    }
    for key in FIELDS:
        name, leaf = key.split(".")
        former, conditions = traits(key).formerly, traits(key).applies_when
        if former is not None and all(one.met(flat) for one in conditions):
            whole.setdefault(name, {}).setdefault(leaf, former)
    return whole


def accepted(key: str) -> str:
    """Describe the values that a key takes."""
    field = FIELDS[key]
    if point := traits(key).point:
        texts = registry.POINTS[point].texts
        found = [*registry.shipped(point), *([texts] if texts else [])]
        return f"{', '.join(found)}, or module:attribute of a file of yours"
    if get_origin(field.annotation) is Literal:
        return ", ".join(map(str, get_args(field.annotation)))
    number, *others = get_args(field.annotation) or (field.annotation,)
    kind, *limits = get_args(number) or (number, field)
    types: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number"}
    bounds = [
        f"{word} {limit}"
        for item in limits[0].metadata
        for name, word in (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))
        if (limit := getattr(item, name, None)) is not None
    ]
    text = f"{types.get(kind, 'text')} {' and '.join(bounds)}".rstrip()
    return ", or ".join([text, *(value for other in others for value in get_args(other))])


def condition_text(key: str) -> str:
    """Describe in Markdown when a key has an effect; empty: always."""
    return " and ".join(one.markdown for one in traits(key).applies_when)


def descriptions() -> dict[str, str]:
    """Return the docstring below each setting, by dotted key."""
    found = {}
    for name, section in SECTIONS.items():
        tree: Any = ast.parse(inspect.getsource(section)).body[0]
        for field, below in pairwise(tree.body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                text = ast.literal_eval(below.value)
                found[f"{name}.{ast.unparse(field.target)}"] = " ".join(text.split())
    return found
