"""What the strategy remembers as JSON values, and back: pure functions for a checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from core import Ledger, Settings
from core.messages import SiteReport
from strategies.agents import ClientView
from strategies.regulation import loss_ratio
from strategies.state import FederationState, Member, replace_view

NUMBERS = ("losses", "accuracies", "alignments")
BY_CLIENT = ("steps_done", "owed")
SETS = ("measured", "resting", "absent", "strangers")
PLAIN = ("start_loss", "lost")
OTHERWISE = ("members", "views", "weights", "ledger", "started")
"""Fields of `FederationState` by how they are written; together all of them."""


def snapshot(state: FederationState) -> dict[str, Any]:
    """Return a federation's state as JSON values; `restored` reads it.

    Parameters
    ----------
    state : FederationState
        Between two rounds.
    """
    return {
        **{name: list(getattr(state, name)) for name in NUMBERS},
        **{name: {str(k): v for k, v in getattr(state, name).items()} for name in BY_CLIENT},
        **{name: sorted(getattr(state, name)) for name in SETS},
        **{name: getattr(state, name) for name in PLAIN},
        "members": [asdict(member.about) for member in state.members.values()],
        "views": [view.model_dump() for view in state.views.values()],
        "ledger": state.ledger.as_json(),
        "elapsed": time.monotonic() - state.started,
    }


def restored(
    told: Mapping[str, Any], members: Sequence[Member], settings: Settings
) -> FederationState:
    """Return the state that `snapshot` has told, with the nodes that are there now.

    Parameters
    ----------
    told : mapping
        The snapshot, as it comes out of JSON.
    members : sequence of Member
        The same clients at today's nodes; what a round of theirs costs is today's.
    settings : Settings
        The run's settings.
    """
    state = FederationState.begin(list(members), settings)
    priced = state.views
    views = (_view(view) for view in told["views"])
    state.views = {
        view.client: replace_view(
            view,
            circuits_per_step=priced[view.client].circuits_per_step,
            circuits_fixed=priced[view.client].circuits_fixed,
            shots_per_circuit=priced[view.client].shots_per_circuit,
        )
        for view in views
    }
    for name in NUMBERS:  # a number that is none was no finite one
        setattr(state, name, [math.nan if v is None else float(v) for v in told[name]])
    for name in BY_CLIENT:
        setattr(state, name, {int(k): v for k, v in told[name].items()})
    for name in PLAIN:
        setattr(state, name, told[name])
    state.measured = set(told["measured"])
    state.resting, state.absent = frozenset(told["resting"]), frozenset(told["absent"])
    state.strangers = frozenset(told.get("strangers", ()))  # older checkpoints have none
    state.ledger = Ledger.from_json(told["ledger"])
    state.started = time.monotonic() - told["elapsed"]
    return state


def _view(told: Mapping[str, Any]) -> ClientView:
    """Read a view; the ratio of a perfect language model is infinite, which JSON is without."""
    view = ClientView.model_validate(told)
    if view.ratio is None and view.loss is not None and view.llm_loss is not None:
        return replace_view(view, ratio=loss_ratio(view.loss, view.llm_loss))
    return view


def report_of(told: Mapping[str, Any]) -> SiteReport:
    """Read what a client said of itself."""
    return SiteReport(**{item.name: told[item.name] for item in fields(SiteReport)})


COMPARED = (
    "train_rows",
    "val_rows",
    "test_rows",
    "class_rows",
    "classes",
    "kind",
    "encoder",
)
"""Fields of a `SiteReport` in which a site that goes on must be what it was."""


def changed(before: SiteReport, now: SiteReport) -> str:
    """Say in what a site is no longer the one that the run began with; empty: in nothing.

    Rows are compared by a digest that is keyed with a secret of the site's store. With another
    store, as after a move from simulation to deployment, only their numbers can be compared.
    """
    for name in COMPARED:
        one, other = getattr(before, name), getattr(now, name)
        if one != other:
            return f"{name} was {one!r} and is {other!r}"
    key, _, digest = before.rows_digest.partition("-")
    again, _, other = now.rows_digest.partition("-")
    return "its rows are other ones" if digest and key == again and digest != other else ""
