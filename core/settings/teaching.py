"""Whether a run fine-tunes the sites' language models, what needs it, and what contradicts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.errors import Check
from core.settings.agent import LANGUAGE_MODELS

if TYPE_CHECKING:
    from core.settings.schema import Settings

TABLES = ("csv", "jsonl")
"""Sources that are a user's own files."""


def needs_teacher(settings: Settings) -> str:
    """Return the first setting that needs a fine-tuned language model; empty if none does."""
    distill, agent = settings.distill, settings.agent
    if distill.weight > 0:
        return f"distill.weight = {distill.weight:g}"
    if distill.features > 0:
        return f"distill.features = {distill.features:g}"
    if agent.kind == "rule" and agent.rule != "fixed":
        return f"agent.rule = {agent.rule!r}"
    if settings.stop.rule in ("gap", "either"):
        return f"stop.rule = {settings.stop.rule!r}"
    if settings.llm.federated != "none":
        return f"llm.federated = {settings.llm.federated!r}"
    return ""


def fine_tunes_llm(settings: Settings) -> bool:
    """Say whether a site fine-tunes its language model.

    With ``llm.model = auto`` only where something uses the outcome: what `needs_teacher` names, or
    an agent that sees the model's loss.
    """
    if settings.llm.model != "auto":
        return settings.llm.model != "none"
    return bool(needs_teacher(settings)) or settings.agent.kind in ("regulator", *LANGUAGE_MODELS)


def teaching_checks(settings: Settings) -> tuple[Check, ...]:
    """Check the settings of language models and distillation against each other."""
    return (*_teacher_checks(settings), *_distill_checks(settings))


def _teacher_checks(settings: Settings) -> tuple[Check, ...]:
    data, features, none = settings.data, settings.features, settings.llm.model == "none"
    need = needs_teacher(settings)
    text = data.source == "tweet-eval" or (data.source in TABLES and data.kind == "text")
    embeds = features.kind == "embedding" or (text and features.kind == "auto")
    return (
        Check(
            not none or not need,
            f"llm.model = 'none' with {need}",
            "settings that use no language model (distill.weight = 0, an agent without its loss)",
            f"set llm.model = auto, or change {need.partition(' ')[0] or 'it'}",
        ),
        Check(
            not none or not embeds,
            "llm.model = 'none' with features that are a language model's embeddings",
            "k-mers of DNA, or a model",
            "set llm.model = auto",
        ),
    )


def _distill_checks(settings: Settings) -> tuple[Check, ...]:
    folds, features = settings.distill.folds, settings.distill.features
    return (
        Check(
            not (folds and features),
            f"distill.folds = {folds} with distill.features = {features:g}",
            "one of them: the hidden states of several models are not one space",
            "set distill.folds = 0 or distill.features = 0",
        ),
        Check(
            folds != 1,
            "distill.folds = 1",
            "0, or 2 to 10",
            "set distill.folds = 2 or more, or 0 to label rows by the model that saw them",
        ),
        Check(
            not folds or settings.llm.federated == "none",
            f"distill.folds = {folds} with llm.federated = {settings.llm.federated!r}",
            "folds of each site's own teacher; the shared adapter is one model",
            "set distill.folds = 0, or llm.federated = none",
        ),
        Check(
            settings.llm.peft != "none" or settings.llm.federated == "none",
            f"llm.federated = {settings.llm.federated!r} with llm.peft = none",
            "adapters: auto, lora or qlora",
            "set llm.peft = auto, or llm.federated = none",
        ),
        Check(
            not settings.distill.features or settings.train.batch_rows != 1,
            f"distill.features = {settings.distill.features:g} with train.batch_rows = 1",
            "steps of two rows or more: it compares pairs of rows",
            "raise train.batch_rows, or set distill.features = 0",
        ),
    )
