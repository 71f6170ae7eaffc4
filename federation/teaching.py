"""Whether a run fine-tunes the sites' language models at all, and what needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from federation.agent_settings import ASKED

if TYPE_CHECKING:
    from federation.settings import Settings


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


def teaches(settings: Settings) -> bool:
    """Say whether a site fine-tunes its language model.

    With ``llm.model = auto`` only where something uses the outcome: what `needs_teacher` names, or
    an agent that sees the model's loss.
    """
    if settings.llm.model != "auto":
        return settings.llm.model != "none"
    return bool(needs_teacher(settings)) or settings.agent.kind in ("regulator", *ASKED)
