"""What LinUCB sees of a client: numbers of order 1, a missing one as the mean of the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from strategies.agents import ClientView, Observation
from strategies.agents.client_records import Records
from strategies.agents.rewards import step_seconds

FEATURES = (
    "constant",
    "rows",
    "loss",
    "llm_loss",
    "ratio",
    "trend",
    "credit",
    "gain",
    "spend",
    "pace",
    "away",
    "failures",
    "steps",
)
"""Names of the entries of a row.

1; log2 of its rows, over the clients' mean; 2 (L_Q less the global loss); 2 (L_LLM less the
clients' mean); ln(L_Q / L_LLM); 5 trend; last credit and last gain over the scale of each; log2 of
what a plain round of its spends and of its seconds a step, over the clients' mean; rounds since it
trained over 5, at most 1; share of its rounds that failed; log2 of its steps over the plain steps.
Each is held to -3 ... 3; what is not known is 0.
"""

LARGEST = 3.0
LARGEST_RECORD = 8.0


@dataclass(frozen=True)
class Features:
    """What is known of a client when a round is decided.

    Attributes
    ----------
    known : numpy.ndarray, shape (len(FEATURES) - 1,)
        All entries but the steps.
    record : float
        Mean of its benefits so far, or of the other clients' where it has none, in units of the
        benefits' scale.
    plain_steps : int
        Steps of a plain round.
    """

    known: npt.NDArray[np.float64]
    record: float
    plain_steps: int

    def row(self, steps: int) -> npt.NDArray[np.float64]:
        """Return the row of features of the client with so many steps."""
        return np.append(self.known, math.log2(max(1, steps) / self.plain_steps))


def client_features(seen: Observation, records: Records) -> dict[int, Features]:
    """Return every client's features, by index.

    Parameters
    ----------
    seen : Observation
        What is known now.
    records : Records
        The clients' benefits so far.
    """
    pace = step_seconds(seen)
    columns = (
        [1.0] * len(seen.clients),
        _relative(seen, lambda view: view.rows),
        [
            2 * (v.loss - seen.losses[-1]) if v.loss is not None and seen.losses else 0.0
            for v in seen.clients
        ],
        _centred(seen, lambda view: view.llm_loss, 2.0),
        [_log(view.ratio) for view in seen.clients],
        [5 * (view.trend or 0.0) for view in seen.clients],
        _scaled(seen, lambda view: view.credit),
        _scaled(seen, lambda view: view.gain),
        _relative(seen, lambda view: view.spend(seen.plain_steps)),
        _relative(seen, lambda view: pace[view.client]),
        [min(view.rounds_since, 5) / 5 for view in seen.clients],
        [view.failures / max(1, view.failures + view.chosen) for view in seen.clients],
    )
    rows = np.clip(np.array(columns, dtype=np.float64).T, -LARGEST, LARGEST)
    own = _records(seen, records)
    return {
        view.client: Features(rows[place], own[place], max(1, seen.plain_steps))
        for place, view in enumerate(seen.clients)
    }


def _records(seen: Observation, records: Records) -> list[float]:
    means = [records.mean(view.client) for view in seen.clients]
    known = [mean for mean in means if mean is not None]
    middle = sum(known) / len(known) if known else 0.0
    scale = records.scale or 1.0
    scaled = [(middle if mean is None else mean) / scale for mean in means]
    return [max(-LARGEST_RECORD, min(LARGEST_RECORD, value)) for value in scaled]


def _log(value: float | None) -> float:
    return math.log(value) if value is not None and 0 < value < math.inf else 0.0


def _relative(seen: Observation, get: Callable[[ClientView], float]) -> list[float]:
    """Return log2 of each client's number over their mean; 0 where one of them is 0."""
    values = [float(get(view)) for view in seen.clients]
    mean = sum(values) / len(values)
    return [math.log2(value) - math.log2(mean) if min(value, mean) > 0 else 0.0 for value in values]


def _centred(
    seen: Observation, get: Callable[[ClientView], float | None], times: float
) -> list[float]:
    """Return each client's number less their mean; 0 where it is unknown."""
    values = [get(view) for view in seen.clients]
    known = [value for value in values if value is not None]
    mean = sum(known) / len(known) if known else 0.0
    return [0.0 if value is None else times * (value - mean) for value in values]


def _scaled(seen: Observation, get: Callable[[ClientView], float | None]) -> list[float]:
    """Return each client's number over their mean size; 0 where it is unknown."""
    values = [get(view) for view in seen.clients]
    known = [abs(value) for value in values if value is not None]
    size = sum(known) / len(known) if known else 0.0
    return [value / size if value is not None and size > 0 else 0.0 for value in values]
