"""Control questions: the same facts under other labels, to see whether a model goes by them; pure.

A model that reads the table moves with it: dealt other clients' numbers, it names other clients;
given options in another order, it takes the same one by another letter. Whoever goes by the facts
alone is never counted as uninformed, since the control question always moves what was decided.
"""

from __future__ import annotations

from collections.abc import Mapping

from strategies.decisions.contract import ClientView, Decision, Observation
from strategies.decisions.prompt import REASON
from strategies.decisions.shown import shown_clients

COPIED = "its reason is the form's own words"
SAME_CLIENTS = "with the clients' numbers dealt out in reverse, the steps stay with the labels"
SAME_LETTER = "the same letter again, with the options in reverse"
OTHER_OPTION = "another option, with the options in reverse"

Options = Mapping[str, Decision]


def copies_form(decision: Decision) -> bool:
    """Say whether a decision's reason is the placeholder of the answer's form, or what it means."""
    words = " ".join(decision.reason.lower().split()).strip("<>\"'. ")
    return words in ("text", REASON)


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
    dealt = _dealt(seen, decision)
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


def _dealt(seen: Observation, decision: Decision) -> dict[int, ClientView]:
    """Return whose numbers each of the clients in a prompt gets."""
    ranked = sorted(shown_clients(seen), key=lambda v: (decision.steps.get(v.client, 0), v.client))
    return dict(zip((v.client for v in ranked), reversed(ranked), strict=True))


def _of(seen: Observation, client: int) -> ClientView:
    return next(view for view in seen.clients if view.client == client)


def turned_round(options: Options) -> dict[str, Decision]:
    """Return the same options in reverse, under the labels in their order."""
    return dict(zip(options, reversed(list(options.values())), strict=True))


def ignored_table(first: Decision, control: Decision, seen: Observation) -> str:
    """Say how two written decisions show that the clients' numbers were not read, or nothing.

    Whoever goes by the numbers gives a client the steps of that whose numbers it got. The control
    decision must be nearer to that than to the first one: otherwise labels, or chance, decided.

    Parameters
    ----------
    first, control : Decision
        On an observation, and on the one that `mirrored` makes of it.
    seen : Observation
        The first one.
    """
    dealt = _dealt(seen, first)

    def apart(clients: Mapping[int, int]) -> int:
        steps = ((first.steps.get(clients[k], 0), control.steps.get(k, 0)) for k in clients)
        return sum(abs(one - other) for one, other in steps)

    stays, moves = apart({k: k for k in dealt}), apart({k: v.client for k, v in dealt.items()})
    return SAME_CLIENTS if stays <= moves else ""


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
