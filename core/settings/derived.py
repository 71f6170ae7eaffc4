"""What follows from the settings: steps, clients, prices, names, and who fine-tunes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from core import registry
from core.settings.backends import family
from core.settings.llm import TAUGHT
from core.settings.schema import Settings

PAID_GROWTH = 2
"""Multiple of `train.steps` that an agent may give on a paid device without a budget."""


def selection_size(clients: int, fraction: float) -> int:
    """Return how many of `clients` a `fraction` selects: rounded up, at least one, at most all."""
    # Rounding first keeps 0.7 * 10 = 7.000000000000001 from becoming eight clients.
    return min(clients, max(1, math.ceil(round(fraction * clients, 9))))


def circuit_prices(text: str, clients: int) -> tuple[float, ...] | None:
    """Read `agent.circuit_prices`.

    Parameters
    ----------
    text : str
        One number, or one for each client, comma-separated.
    clients : int
        Number of clients.

    Returns
    -------
    tuple of float or None
        One positive price a client, by index; None if the text is not such a list.
    """
    try:
        prices = tuple(float(part) for part in text.split(","))
    except ValueError:
        return None
    if not all(0 < price < math.inf for price in prices) or len(prices) not in (1, clients):
        return None
    return prices * clients if len(prices) == 1 else prices


def most_steps(settings: Settings, backends: Iterable[str]) -> int:
    """Return the most steps that an agent may give a client in a round.

    It is `train.max_steps`. Where a client computes on IBM hardware, which costs money, and no
    budget limits the run, it is at most twice `train.steps`.

    Parameters
    ----------
    settings : Settings
        The run's settings.
    backends : iterable of str
        Names of the clients' backends.
    """
    stop, most = settings.stop, settings.train.max_steps
    limited = stop.circuits or stop.shots or stop.qpu_seconds or settings.hardware.budgeted
    if limited or not any(family(name) == "ibm" for name in backends):
        return most
    return min(most, PAID_GROWTH * settings.train.steps)


def agent_declares(settings: Settings, trait: str, default: Any = False) -> Any:
    """Return what the run's agent declares of itself; a function of it is given the settings."""
    value = registry.declared("agent", settings.agent.kind, trait, default)
    return value(settings) if callable(value) else value


def worst_steps(settings: Settings, backends: Iterable[str]) -> int:
    """Return the steps of a client's most expensive round: its first ones if no agent adds any."""
    if agent_declares(settings, "fixed_steps"):
        return settings.train.steps
    return most_steps(settings, backends)


def averages_rounds(settings: Settings) -> bool:
    """Whether the mean of the last rounds' models is evaluated too: of two or more of them."""
    return settings.evaluation.keep == "average" and settings.run.rounds > 2


def fine_tunes_llm(settings: Settings) -> bool:
    """Whether a site fine-tunes its language model.

    Only where something uses the outcome, with ``llm.model = auto`` and where the kind of
    distillation needs no model; one that is named is fine-tuned at lambda 0 too, for its figures.
    A site may lack the code of an agent that is not ours: that counts as one that sees the model's
    loss.
    """
    model, distill = settings.llm.model, settings.distill
    if model == "none" or (model != "auto" and distill.kind in TAUGHT):
        return model != "none"
    used = distill.taught
    used |= settings.stop.rule in ("gap", "either") or settings.llm.federated != "none"
    if used or settings.agent.kind not in registry.shipped("agent"):
        return True
    return any(agent_declares(settings, trait) for trait in ("needs_llm", "sees_llm_loss"))


def with_run_name(settings: Settings, file: Path | None = None) -> Settings:
    """Return the settings with a run's name: their own, the config file's, or the data's."""
    if settings.run.name:
        return settings
    data, read = settings.data, registry.declared("dataset", settings.data.source, "uses", ())
    named = [data.hub_name] * ("data.hub_name" in read) + [data.task] * ("data.task" in read)
    place = data.path.replace("{client}", "") or (named or [data.source])[0]
    stem = (file or Path(place)).stem.replace("{client}", "")
    name = re.sub(r"[^\w.-]+", "-", stem, flags=re.ASCII).strip("-.")[:60] or data.source
    run = settings.run.model_copy(update={"name": name})
    return settings.model_copy(update={"run": run})
