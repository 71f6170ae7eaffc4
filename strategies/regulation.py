"""The paper's rules as pure functions: steps of the next round, and which clients count."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from core import selection_size

if TYPE_CHECKING:
    from core.messages import TrainReport

PaperRule = Literal["fixed", "adaptive", "incremental", "dynamic", "logarithmic", "hybrid"]
StepRule = PaperRule | Literal["when-it-pays"]

_RULES: dict[str, Callable[[int, float, int], int]] = {
    "fixed": lambda m, r, cap: m,
    "adaptive": lambda m, r, cap: int(m * r),
    "incremental": lambda m, r, cap: m + int(m * (r - 1)),
    "dynamic": lambda m, r, cap: int(0.5 * m + 0.5 * m * r),
    "logarithmic": lambda m, r, cap: m + int(math.log(1 + r) * m),
    "hybrid": lambda m, r, cap: m + min(int(m * r), cap),
}


def llm_loss_of(report: TrainReport) -> float | None:
    """Return a client's L_LLM; None where it fine-tuned no language model, at temperature 0."""
    return report.llm_loss if report.llm_temperature > 0 else None


def loss_ratio(loss: float, llm_loss: float) -> float:
    """Return r = L_Q / L_LLM, both validation losses on the same rows.

    A perfect language model (loss 0) makes every positive quantum loss infinitely worse.
    """
    if llm_loss <= 0:
        return math.inf if loss > 0 else 1.0
    return loss / llm_loss


def next_steps(
    rule: PaperRule, steps: int, ratio: float, *, max_steps: int, max_increment: int = 10
) -> int:
    """Return a client's steps for the next round (arXiv 2505.18656, regulation).

    Parameters
    ----------
    rule : str
        ``adaptive`` int(m r); ``incremental`` m + int(m (r - 1)); ``dynamic``
        int(m / 2 + m r / 2); ``logarithmic`` m + int(m ln(1 + r)); ``hybrid``
        m + min(int(m r), max_increment); ``fixed`` m.
    steps : int
        m, the steps of the last round, at least 1.
    ratio : float
        r = L_Q / L_LLM. A rule acts only while r > 1: the quantum model is still behind.
    max_steps : int
        m_max, never exceeded.
    max_increment : int
        Most that ``hybrid`` adds.

    Returns
    -------
    int
        The next m, at most `max_steps`.
    """
    if not ratio > 1:
        return min(steps, max_steps)
    # Beyond this ratio every growing rule is at its cap; it keeps int() of an infinity away.
    bounded = min(ratio, 10.0 * max_steps)
    return min(_RULES[rule](steps, bounded, max_increment), max_steps)


def steps_that_pay(base: int, losses: Sequence[float], *, max_steps: int) -> int:
    """Return everybody's steps for the next round: more of them only while they pay.

    A round pays if its steps lowered the validation loss by more each than those of the round
    before. The next round then has half as many again, else `base`. Learning curves flatten, so
    rounds grow only where training gathers speed, for instance out of a plateau. The steps follow
    from the losses alone: a run that is resumed finds the same ones.

    Parameters
    ----------
    base : int
        Steps of the first rounds.
    losses : sequence of float
        Validation loss of the global model by round, nats.
    max_steps : int
        Never exceeded.
    """
    steps = most = min(base, max_steps)
    before: float | None = None
    for earlier, later in pairwise(losses):
        gain = (earlier - later) / steps
        pays = before is not None and gain > max(before, 0.0)
        steps = min(steps + math.ceil(steps / 2), max_steps) if pays else most
        before = gain
    return steps


def rounds_without_gain(losses: Sequence[float], min_gain: float) -> list[int]:
    """Return after each round how many there were since one that lowered the loss enough.

    Parameters
    ----------
    losses : sequence of float
        Validation loss of the global model by round, nats.
    min_gain : float
        A loss is better if it is by more than this below the last better one, nats: many small
        gains in a row add up to one.
    """
    idle, lowest, found = 0, math.inf, list[int]()
    for loss in losses:
        better = loss < lowest - min_gain
        idle, lowest = (0, loss) if better else (idle + 1, lowest)
        found.append(idle)
    return found


def rate_left(losses: Sequence[float], wait: int, min_gain: float = 0.0) -> float:
    """Return the share of the learning rate that `wait` rounds without a gain each halve.

    Parameters
    ----------
    losses, min_gain
        As `rounds_without_gain` takes them.
    wait : int
        Rounds without a gain before the rate is halved, and halved again.
    """
    idle = rounds_without_gain(losses, min_gain)
    return float(0.5 ** sum(count > 0 and count % wait == 0 for count in idle))


def distances(losses: Mapping[int, float], server_loss: float) -> dict[int, float]:
    """Return d_k = |L_k - L_server| of every client, nats."""
    return {client: abs(loss - server_loss) for client, loss in losses.items()}


def closest(gaps: Mapping[int, float], fraction: float) -> tuple[int, ...]:
    """Keep the share of clients with the smallest distance (arXiv 2505.18656, selection).

    Parameters
    ----------
    gaps : mapping
        d_k by client; an unknown one may be NaN and comes last.
    fraction : float
        Share kept, in (0, 1]; rounded up, at least one client.

    Returns
    -------
    tuple of int
        The kept clients in ascending order; ties go to the lower index.

    Raises
    ------
    ValueError
        If there is no client.
    """
    if not gaps:
        raise ValueError("no client to select from")
    order = sorted(gaps, key=lambda k: (math.isnan(gaps[k]), gaps[k], k))
    return tuple(sorted(order[: selection_size(len(gaps), fraction)]))
