"""Groups of a round's participants under secure aggregation: regrouped so that credit is solvable.

The server sees each group's sum only. A client's credit is solved for over rounds by least squares
(`strategies.group_credit`), so the groups are a design: which clients' sums are measured together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from core import SettingsError, explain

Group = tuple[int, ...]
"""Clients whose sum is seen, ascending."""

SMALLEST = 3
"""Fewest clients of a group: of two, each knows the other's update from the sum."""

CANDIDATES = 128
"""Random groupings that are compared."""

PRIOR = 0.5
"""Information on each client before its first round, in rounds of a group of its own."""


def make_groups(
    participants: Sequence[int],
    size: int,
    generator: np.random.Generator,
    past: Sequence[Sequence[Group]] = (),
) -> tuple[Group, ...]:
    """Put a round's participants into random groups, so that pairs meet again rarely.

    With X the groups' incidence matrix (a row a group, 1 for its members) and S the covariance of
    the clients' credits after the past rounds, `CANDIDATES` random groupings are compared by

        log det(I + X S X')

    which is by how much the round adds to the log-determinant of the information matrix: Bayesian
    D-optimality (Chaloner and Verdinelli 1995, section 2.2). Clients that were together have
    negative covariance in S, so a group of them would say little that is new.

    Parameters
    ----------
    participants : sequence of int
        Clients of the round.
    size : int
        Fewest clients of a group, at least `SMALLEST`; 0: one group of all.
    generator : numpy.random.Generator
        Source of all random choices.
    past : sequence of sequence of tuple
        The groups of each earlier round.

    Returns
    -------
    tuple of tuple of int
        Every participant in one group; sizes differ by at most one. One group where fewer than
        twice `size` take part; then nothing is drawn.

    Raises
    ------
    SettingsError
        If `size` is neither 0 nor at least `SMALLEST`.
    """
    if size and size < SMALLEST:
        given = f"privacy.group_size = {size}"
        accepted = f"0 (one group of all participants), or at least {SMALLEST}"
        raise SettingsError(explain(given, accepted, "set privacy.group_size to 3 or more"))
    clients = np.array(sorted(set(participants)), dtype=np.int64)
    if not size or len(clients) < 2 * size:
        return (tuple(clients.tolist()),) if len(clients) else ()
    starts = _starts(len(clients), len(clients) // size)
    covariance = covariance_after(past, clients.tolist())
    orders = [generator.permutation(len(clients)) for _ in range(CANDIDATES)]
    added = [_information(covariance, order, starts) for order in orders]
    best = clients[orders[int(np.argmax(added))]]
    groups = (tuple(sorted(part.tolist())) for part in np.split(best, starts[1:]))
    return tuple(sorted(groups))


def covariance_after(
    past: Iterable[Sequence[Group]], clients: Sequence[int]
) -> npt.NDArray[np.float64]:
    """Return the covariance of clients' credits after rounds, for unit noise of a group's.

    Parameters
    ----------
    past : iterable of sequence of tuple
        The groups of each round.
    clients : sequence of int
        Whose covariance is wanted, in this order.

    Returns
    -------
    numpy.ndarray, shape (len(clients), len(clients))
        Part of the inverse of `PRIOR` I + the sum of x x' over the groups' rows x of X.
    """
    groups = [group for groups in past for group in groups]
    everybody = [*clients, *sorted({k for group in groups for k in group} - set(clients))]
    place = {client: i for i, client in enumerate(everybody)}
    information = PRIOR * np.eye(len(everybody))
    for group in groups:
        at = [place[client] for client in group]
        information[np.ix_(at, at)] += 1.0
    return np.asarray(np.linalg.inv(information)[: len(clients), : len(clients)])


def _starts(clients: int, groups: int) -> npt.NDArray[np.int64]:
    """Return where each group begins: the first ones have one client more, if any have."""
    least, more = divmod(clients, groups)
    sizes = np.full(groups, least) + (np.arange(groups) < more)
    return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)


def _information(
    covariance: npt.NDArray[np.float64],
    order: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
) -> float:
    """Return log det(I + X S X') for the groups that begin at `starts` of the order."""
    shuffled = covariance[np.ix_(order, order)]
    sums = np.add.reduceat(np.add.reduceat(shuffled, starts, axis=0), starts, axis=1)
    return float(np.linalg.slogdet(np.eye(len(starts)) + sums)[1])
