"""Control questions: the same facts under other labels, to see whether a model goes by them; pure.

A model that reads the table moves with it: dealt other clients' numbers, it names other clients;
given options in another order, it takes the same one by another letter. One that gives the same
labels again, whatever stands behind them, decides nothing. Whoever goes by the facts alone is
never counted so, since the control question always moves what was decided.
"""

from __future__ import annotations

from collections.abc import Mapping

from strategies.decisions.contract import ClientView, Decision, Observation
from strategies.decisions.prompt import REASON
from strategies.decisions.shown import shown_clients

COPIED = "its reason is the form's own words"
SAME_CLIENTS = "the same clients and steps again, with their numbers dealt out in reverse"
SAME_LETTER = "the same letter again, with the options in reverse"
OTHER_OPTION = "another option, with the options in reverse"

Options = Mapping[str, Decision]


def copies_form(decision: Decision) -> bool:
    """Say whether a decision's reason is the placeholder of the answer's form, or what it means."""
    said = " ".join(decision.reason.lower().split()).strip("<>\"'. ")
    return said in ("text", REASON)


def singles_out(decision: Decision, seen: Observation) -> bool:
    """Say whether a decision treats clients differently once something is known of them."""
    every = {decision.steps.get(view.client, 0) for view in seen.clients}
    return len(every) > 1 and any(view.chosen > 0 for view in seen.clients)


def mirrored(seen: Observation, decision: Decision) -> Observation | None:
    """Deal out the numbers of the clients in a prompt the other way round.

    The client of most steps gets the numbers of that of fewest, and so on.

    Returns
    -------
    Observation or None
        None if that changes nothing, since they are alike where their steps differ.
    """
    ranked = sorted(shown_clients(seen), key=lambda v: (decision.steps.get(v.client, 0), v.client))
    dealt = dict(zip((v.client for v in ranked), reversed(ranked), strict=True))
    moved = any(
        decision.steps.get(to, 0) != decision.steps.get(view.client, 0)
        and view.model_copy(update={"client": to}) != _of(seen, to)
        for to, view in dealt.items()
    )
    if not moved:
        return None
    clients = tuple(
        dealt.get(view.client, view).model_copy(update={"client": view.client})
        for view in seen.clients
    )
    return seen.model_copy(update={"clients": clients})


def _of(seen: Observation, client: int) -> ClientView:
    return next(view for view in seen.clients if view.client == client)


def turned_round(options: Options) -> dict[str, Decision]:
    """Return the same options in reverse, under the labels in their order."""
    return dict(zip(options, reversed(list(options.values())), strict=True))


def ignored_table(first: Decision, control: Decision) -> str:
    """Say how two written decisions show that the clients' numbers were not read, or nothing.

    Parameters
    ----------
    first, control : Decision
        On an observation, and on the one that `mirrored` makes of it.
    """
    return SAME_CLIENTS if control.steps == first.steps and not control.stop else ""


def ignored_options(first: str, control: str, options: Options) -> str:
    """Say how two choices show that the options were not read, or nothing.

    Parameters
    ----------
    first, control : str
        The label chosen, and that chosen of `turned_round` options.
    options : mapping
        Decisions by label, in the order of the first question.
    """
    if turned_round(options)[control] == options[first]:
        return ""
    return SAME_LETTER if control == first else OTHER_OPTION
