"""The local model of a run: found by its name, built, and checked in all that it returns."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from core import (
    LlmSettings,
    ModelError,
    Settings,
    SettingsError,
    UserError,
    fine_tunes_llm,
    flatten,
    registry,
)
from core.own_code import source_digest
from core.settings.options import parse_options
from llm.calibration import LEAST_PROBABILITY
from llm.protocol import Kind, ModelContext
from llm.sources import auto_name

POINT = "model"
TOLERANCE = 1e-3
"""How far a row of soft labels may be from adding up to 1: files hold few digits."""

FIGURES = ("epochs", "best_epoch", "tokens", "trainable", "adapter_bytes")
"""What `fit` may return; 0 where it does not."""


@dataclass(frozen=True)
class CheckedModel:
    """A local model whose every answer is checked before anybody uses it.

    Attributes
    ----------
    name : str
        What it is called; `llm.model` or `llm.encoder`, with what ``auto`` means.
    model : LocalModel
        What an extension of the user's, or one that ships, has built.
    identity : str
        The same on nodes whose model knows the same before it is fitted.
    """

    name: str
    model: Any
    identity: str

    @property
    def short(self) -> str:
        """Its name for a line of progress: of a folder or hub id the last part."""
        return Path(self.name).name or self.name

    @property
    def session(self) -> dict[str, str]:
        """What stores know of a model that only this process has; empty for any other."""
        session = registry.session(POINT, self.name)
        return {"session": session} if session else {}

    def facts(self, settings: LlmSettings) -> dict[str, Any]:
        """Return what its fitting depends on besides rows and seed; JSON values."""
        if hasattr(self.model, "facts"):
            return dict(self.model.facts())
        own = {"rows": settings.rows, "peft": "none"}
        facts = {"model": self.name, "identity": self.identity, "settings": own}
        return facts | self.session

    def fit(
        self,
        rows: Sequence[str],
        labels: np.ndarray,
        validation_rows: Sequence[str],
        validation_labels: np.ndarray,
        classes: int,
        seed: int,
    ) -> dict[str, int]:
        """Fit it, as `llm.protocol.LocalModel.fit`; return its figures."""
        given = (list(rows), labels, list(validation_rows), validation_labels, classes, seed)
        found = self._call("fit", *given)
        figures = found if isinstance(found, dict) else {}
        numbers = {name: figures.get(name, 0) for name in FIGURES}
        bad = [name for name, number in numbers.items() if not isinstance(number, int)]
        if bad:
            raise self._wrong("fit", f"{bad[0]} = {numbers[bad[0]]!r}", "whole numbers, or nothing")
        return numbers

    def logits(self, rows: Sequence[str], classes: int) -> np.ndarray:
        """Return raw logits, or the logarithms of its soft labels, float32, (rows, C)."""
        if not rows:
            return np.zeros((0, classes), dtype=np.float32)
        expected = f"({len(rows)}, {classes})"
        if hasattr(self.model, "logits"):
            return self._numbers("logits", rows, f"{expected} finite numbers", classes)
        found = self._numbers("soft_labels", rows, f"{expected} probabilities", classes, np.float64)
        off = np.abs(found.sum(axis=1) - 1)
        if found.min() < 0 or off.max() > TOLERANCE:
            row = int(np.argmax((found.min(axis=1) < 0) | (off > TOLERANCE)))
            values = ", ".join(f"{value:g}" for value in found[row][:6])
            what = f"row {row} as {values}{', ...' if classes > 6 else ''}"
            raise self._wrong("soft_labels", what, "probabilities of at least 0 that add up to 1")
        return np.asarray(np.log(np.maximum(found, LEAST_PROBABILITY)), dtype=np.float32)

    def embed(self, rows: Sequence[str]) -> np.ndarray:
        """Return embeddings, float32, (rows, d)."""
        if not rows:  # only the model knows d
            return self.embed(["A"])[:0]
        return self._numbers("embed", rows, f"({len(rows)}, d) finite numbers")

    def cut(self, rows: Sequence[str]) -> int:
        """Return how many rows are longer than it reads."""
        return int(self._call("cut", list(rows))) if hasattr(self.model, "cut") else 0

    def save(self, folder: Path) -> None:
        """Write what it has learned, where it can."""
        if hasattr(self.model, "save"):
            self._call("save", folder)

    def _numbers(
        self, method: str, rows: Sequence[str], expected: str, classes: int = 0, dtype: Any = None
    ) -> np.ndarray:
        returned = self._call(method, list(rows))
        try:
            found = np.asarray(returned, dtype=dtype or np.float32)
        except (TypeError, ValueError):
            raise self._wrong(method, f"a {type(returned).__name__}", expected) from None
        whole = found.ndim == 2 and len(found) == len(rows) and found.shape[1] >= 1
        if not whole or (classes and found.shape[1] != classes):
            raise self._wrong(method, f"an array of shape {found.shape}", expected)
        if not np.isfinite(found).all():
            row = int(np.argmin(np.isfinite(found).all(axis=1)))
            raise self._wrong(method, f"row {row} with a number that is not finite", expected)
        return found

    def _call(self, method: str, *given: Any) -> Any:
        try:
            return getattr(self.model, method)(*given)
        except UserError:  # one that ships: it is such a line already
            raise
        except Exception as error:
            where = f"{_file(self.name)}: {method}"
            raise registry.bad_extension(POINT, self.name, error, where) from error

    def _wrong(self, method: str, what: str, expected: str) -> ModelError:
        given = f"llm.model = {self.name!r}: {_file(self.name)}: {method} returns {what}"
        return ModelError(given, expected, f"correct {method}")


def build_model(context: ModelContext, run: Settings | None = None) -> CheckedModel:
    """Build the local model that a context names.

    Parameters
    ----------
    context : ModelContext
        Its name, what the rows are, and the ``llm`` settings.
    run : Settings or None
        All settings, for a model with ``from_settings``.

    Returns
    -------
    CheckedModel
        Nothing is fitted or loaded.

    Raises
    ------
    core.UserError
        If it is not there, cannot be built, or has not the methods of a local model.
    """
    name = auto_name(context.kind) if context.name == "auto" else context.name
    context = replace(context, name=name)
    extension = registry.find(POINT, name)
    options: dict[str, Any] = {}
    if name == context.settings.model and getattr(extension, "takes_options", True):
        options |= parse_options("llm.options", context.settings.options)
    settings = run or Settings(llm=context.settings)
    arguments = _arguments(name, extension, options, context)
    built = registry.build(POINT, name, settings, arguments)
    for method in ("fit", "soft_labels"):
        if not callable(getattr(built, method, None)):
            what = f"llm.model = {name!r}: {_file(name)}: there is no {method}"
            raise ModelError(what, registry.POINTS[POINT].expected, f"write {method}")
    if hasattr(built, "facts"):
        return CheckedModel(built.name, built, built.identity)
    return CheckedModel(name, built, _identity(name, built, options, settings))


def encoder_choice(settings: LlmSettings) -> tuple[str, int]:
    """Return the name of the model that embeds, and how many first layers of it do; 0: all."""
    name = settings.model if settings.encoder == "auto" else settings.encoder
    return name, settings.encoder_layers


def build_encoder(context: ModelContext) -> CheckedModel:
    """Build the model whose embeddings are the features: `llm.encoder`, or else `llm.model`.

    Raises
    ------
    core.UserError
        As `build_model`, or if it makes no embeddings.
    """
    name, layers = encoder_choice(context.settings)
    setting = "llm.model" if context.settings.encoder == "auto" else "llm.encoder"
    settings = context.settings.model_copy(update={"layers": layers})
    try:
        encoder = build_model(replace(context, name=name, settings=settings))
    except ModelError as error:
        raise ModelError(str(error).replace("llm.model", setting)) from error
    if not hasattr(encoder.model, "embed"):
        raise ModelError(
            f"{setting} = {name!r} makes no embeddings, which are the features here",
            "a model with embed(rows)",
            f"set llm.encoder={auto_name(context.kind)}, or other features.kind",
        )
    return encoder


def local_model(settings: Settings, kind: Kind, *, embeds: bool) -> str:
    """Find the local models that a site of a run uses; return their names in words.

    Parameters
    ----------
    settings : Settings
        The run's settings, with the node's own where it has any.
    kind, embeds : {"text", "dna"} and bool
        What the rows are, and whether embeddings are the features.

    Returns
    -------
    str
        ``"none"`` where nothing uses one.

    Raises
    ------
    core.UserError
        As `build_model` and `build_encoder`.
    """
    encoder = build_encoder(ModelContext(kind=kind, settings=settings.llm)).name if embeds else ""
    if not fine_tunes_llm(settings):
        return f"{encoder}, for embeddings only" if encoder else "none"
    teacher = build_model(ModelContext(settings.llm.model, kind, settings=settings.llm), settings)
    other = encoder not in ("", teacher.name)
    return f"{teacher.name}, embeddings by {encoder}" if other else teacher.name


def common_identity(settings: Settings, kind: Kind, *, embeds: bool) -> str:
    """Return the identity of the model that all nodes need alike, empty if there is none.

    It is the encoder, or the model whose adapter is trained together. Parameters and errors as of
    `local_model`.
    """
    if not embeds and settings.llm.federated == "none":
        return ""
    return build_encoder(ModelContext(kind=kind, settings=settings.llm)).identity


def _arguments(
    name: str, extension: Any, options: dict[str, Any], context: ModelContext
) -> dict[str, Any]:
    """Return the arguments of a class: options that it takes, and the context if it wants it."""
    if not isinstance(extension, type) or hasattr(extension, "from_settings"):
        return options
    try:
        known = inspect.signature(extension).parameters
    except (TypeError, ValueError):  # of a class written in C
        return options
    unknown = [key for key in options if key not in known]
    if unknown and not any(one.kind is one.VAR_KEYWORD for one in known.values()):
        given = f"llm.options with {unknown[0]!r} for llm.model = {name!r}"
        accepted = ", ".join(key for key in known if key != "context") or "none"
        raise SettingsError(given, accepted, "correct llm.options")
    return options | ({"context": context} if "context" in known else {})


def _identity(name: str, built: Any, options: dict[str, Any], settings: Settings) -> str:
    """Return the name and a digest of code, options, settings read, and the model's own word."""
    flat = flatten(settings)
    read = {key: flat[key] for key in getattr(built, "uses", ()) if key in flat}
    own = str(getattr(built, "identity", ""))
    parts = [source_digest(POINT, name), options, read, own]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
    return f"{name}:{digest[:16]}"


def _file(name: str) -> str:
    file = registry.source_file(POINT, name)
    return file.name if file else name
