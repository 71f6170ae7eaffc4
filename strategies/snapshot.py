"""The strategy's state as JSON values, and back: pure functions for a checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from core import Ledger, Settings
from strategies.decisions import ClientView
from strategies.group_credit import GroupRound
from strategies.regulation import loss_ratio
from strategies.state import FederationState, Member, replace_view

Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A number; JSON has none that is not finite."""
Ids = Annotated[frozenset[int], PlainSerializer(sorted)]


class StoredState(BaseModel):
    """The fields of a `FederationState` that are written as they are."""

    model_config = ConfigDict(from_attributes=True, populate_by_name=True)

    losses: list[Number]
    accuracies: list[Number]
    alignments: list[Number]
    participants: list[int] = []  # none in older files, as in the next line
    spends: list[Number] = []
    steps_done: dict[int, int]
    owed: dict[int, int]
    measured: Annotated[set[int], PlainSerializer(sorted)]
    resting: Ids
    absent: Ids
    unknown_nodes: Ids = Field(default=frozenset(), alias="strangers")  # none in older files
    group_rounds: list[GroupRound] = []  # none in older files
    start_loss: float | None
    lost: int


def snapshot(state: FederationState) -> dict[str, Any]:
    """Return a federation's state as JSON values; `restored` reads it.

    Parameters
    ----------
    state : FederationState
        Between two rounds.
    """
    return {
        **StoredState.model_validate(state).model_dump(by_alias=True),
        "members": [asdict(member.about) for member in state.members.values()],
        "views": [view.model_dump() for view in state.views.values()],
        "ledger": state.ledger.as_json(),
        "elapsed": time.monotonic() - state.started,
    }


def restored(
    stored: Mapping[str, Any], members: Sequence[Member], settings: Settings
) -> FederationState:
    """Return the state that `snapshot` has written, with the nodes that are there now.

    Parameters
    ----------
    stored : mapping
        The snapshot, as it comes out of JSON.
    members : sequence of Member
        The same clients at today's nodes; what a round of theirs costs is today's.
    settings : Settings
        The run's settings.
    """
    begun = FederationState.begin(members, settings)
    views = [_view(view, begun.views) for view in stored["views"]]
    found = StoredState.model_validate(dict(stored))
    for history in (found.participants, found.spends):  # one of each for every loss
        history[:0] = [0] * (len(found.losses) - len(history))
    return replace(
        begun,
        **dict(found),
        views={view.client: view for view in views},
        ledger=Ledger.from_json(stored["ledger"]),
        started=time.monotonic() - stored["elapsed"],
    )


def _view(stored: Mapping[str, Any], today: Mapping[int, ClientView]) -> ClientView:
    """Read a view, with today's prices of a round."""
    view = ClientView.model_validate(stored)
    ratio = view.ratio
    if ratio is None and view.loss is not None and view.llm_loss is not None:
        # That of a perfect language model is infinite, which JSON is without.
        ratio = loss_ratio(view.loss, view.llm_loss)
    prices = ("class_rows", "weight", "circuits_per_step", "circuits_fixed", "shots_per_circuit")
    now = {name: getattr(today[view.client], name) for name in prices}
    return replace_view(view, ratio=ratio, **now)
