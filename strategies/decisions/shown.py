"""Which clients of many a language model is shown, and how they rank; pure.

A prompt, its schema and its answer stay bounded: beyond `MOST_SHOWN` clients it describes so many
of them, and all others are one entry, `OTHERS`, with one number of steps for each of them.
"""

from __future__ import annotations

from strategies.decisions.contract import ClientView, Observation

MOST_SHOWN = 40
"""Clients that a prompt describes."""

OTHERS = "others"
"""Key of an answer's steps for each client that the prompt does not describe."""


def credit_per_cost(view: ClientView, seen: Observation) -> tuple[float, float]:
    """Return a client's rank: credit (or gain) per cost, then rows per cost.

    Harm counts the more the dearer it is: below 0 the credit is multiplied.
    """
    cost = max(1.0, view.cost(seen.plain_steps))
    known = (view.gain if view.credit is None else view.credit) or 0.0
    return known / cost if known > 0 else known * cost, view.rows / cost


def shown_clients(seen: Observation) -> tuple[ClientView, ...]:
    """Return the clients that a prompt describes, by index.

    Of more than `MOST_SHOWN`, half are those of most credit per cost. The other half waited
    longest, so that each client comes up in its turn.
    """
    views = seen.clients
    if len(views) <= MOST_SHOWN:
        return views
    ranked = sorted(views, key=lambda view: credit_per_cost(view, seen), reverse=True)
    chosen = {view.client for view in ranked[: MOST_SHOWN // 2]}
    waited = sorted(
        (view for view in views if view.client not in chosen),
        key=lambda view: (-view.rounds_since, view.chosen, view.client),
    )
    chosen |= {view.client for view in waited[: MOST_SHOWN - len(chosen)]}
    return tuple(view for view in views if view.client in chosen)


def hidden_clients(seen: Observation) -> frozenset[int]:
    """Return the clients that a prompt does not describe, which `OTHERS` stands for."""
    if len(seen.clients) <= MOST_SHOWN:
        return frozenset()
    shown = {view.client for view in shown_clients(seen)}
    return frozenset(view.client for view in seen.clients) - shown
