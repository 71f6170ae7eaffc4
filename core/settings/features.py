"""Settings of the features, and the kinds that there are of them.

A kind is a module of `data.feature_kinds`, which declares what it needs.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field

from core.errors import SettingsError
from core.formatting import split_list
from core.own_modules import HOME
from core.settings.declare import AUTO, Auto, Condition, Conditions, Section, setting, when


@functools.cache
def kind_names() -> tuple[str, ...]:
    """Return the kinds of features, sorted; nothing is imported."""
    found = (path.stem for path in (HOME / "data" / "feature_kinds").glob("*.py"))
    return tuple(sorted(name.replace("_", "-") for name in found if not name.startswith("_")))


def kind_of(name: str) -> Any:
    """Return a kind of features (`data.feature_kinds.FeatureKind`); its module is imported.

    A name may end in the `features.k` that it was made with: ``kmer:5``.
    """
    module = name.partition(":")[0].replace("-", "_")
    return importlib.import_module(f"data.feature_kinds.{module}").KIND


def any_kind(text: str, holds: Callable[[Any], bool]) -> bool:
    """Whether something holds for one of the kinds that a text names."""
    return any(holds(kind_of(name)) for name in split_list(text) if name != AUTO)


def _read_by_kind(key: str) -> Conditions:
    """Require a kind of features that reads a setting, or `auto` with such a candidate."""

    def reads(text: str) -> bool:
        return any_kind(text, lambda kind: key in kind.uses)

    def says() -> str:
        names = [name for name in kind_names() if key in kind_of(name).uses]
        return f"`auto` or with {' or '.join(f'`{name}`' for name in names)}"

    return (Condition("features.kind", lambda text: text == AUTO or reads(text), says),)


class FeatureSettings(Section):
    """What the quantum model sees of a row."""

    kind: str = setting(AUTO, listed=True)
    """Raw features: `embedding`, the mean-pooled last hidden state of the frozen base LLM; `kmer`,
    strand-symmetric k-mer frequencies of DNA; `one-hot`, the letter at each position of aligned
    DNA; several, comma-separated, side by side; `auto`: for text embedding, for DNA the best of
    `features.candidates`."""
    candidates: str = setting("kmer,one-hot", listed=True, applies_when=when("features.kind", AUTO))
    """Kinds that `auto` chooses from by the validation loss of a linear probe, as far as the rows
    have them; the first one where nothing may be sent to choose by (`privacy.dp`,
    `privacy.moment_noise`)."""
    encoder: Literal["base", "shared"] = setting(
        "base",
        applies_when=_read_by_kind("features.encoder") + when("llm.federated", "ffa", "fedavg"),
    )
    """The LLM that embeds: the frozen base, or the base with the shared adapter of `llm.federated`,
    which makes embeddings the features of DNA too."""
    k: Annotated[int, Field(ge=1, le=6)] | Auto = setting(
        AUTO, applies_when=_read_by_kind("features.k")
    )
    """Length of the k-mers; `auto`: 3, 4 or 5, chosen with `features.kind` by the validation loss
    of a linear probe."""
    projection: Literal["lda", "pca", "random"] = setting("lda")
    """Federated projection to the qubits: regularised LDA directions, then principal directions of
    the residual; principal directions; or a random orthonormal map."""
    shrinkage: Annotated[float, Field(ge=0, le=1)] | Auto = setting(
        AUTO, applies_when=when("features.projection", "lda")
    )
    """Shrinkage of the within-class covariance towards its mean variance; `auto`: the best of 0.01,
    0.1, 0.3, 0.6 and 0.9 by the validation loss of a linear probe (0.1 where nothing may be sent to
    choose by)."""
    clip: float = setting(3.0, gt=0)
    """Projected features are clipped at this many sigma."""


def check_feature_kinds(settings: FeatureSettings) -> None:
    """Refuse kinds that there are not, one that is named twice, and `auto` beside others.

    Raises
    ------
    SettingsError
        With the setting.
    """
    texts = {"features.kind": settings.kind, "features.candidates": settings.candidates}
    for key, text in texts.items():
        named, known = split_list(text), kind_names()
        alone = key == "features.kind" and text == AUTO
        if not alone and (not set(named) <= set(known) or len(set(named)) != max(len(named), 1)):
            accepted = f"one or several of {', '.join(known)}"
            accepted += f", or {AUTO} alone" if key == "features.kind" else ""
            raise SettingsError(f"{key} = {text!r}", accepted, f"change {key}")
