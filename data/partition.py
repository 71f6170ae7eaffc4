"""Drawing, splitting and sharing out rows: pure functions of labels and a generator.

Everything here returns row numbers. The results are shuffled, so that no part is ordered
by class (a defect of the published code, whose subsets held a single class).

The partitioners are our own small numpy functions: those of `flwr-datasets` need
`datasets` (seconds of import in every client process) and keep the order of the rows within
a class. The tests hold `dirichlet_parts` against its ``DirichletPartitioner``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from core import DataError
from data.rows import Indices, Labels

TRIES = 500
Parts = tuple[Indices, ...]


def allocate(counts: npt.NDArray[np.int64], total: int, spare: int = 0) -> npt.NDArray[np.int64]:
    """Share `total` rows over classes in proportion to their counts (largest remainders).

    Parameters
    ----------
    counts : ndarray of int64, shape (classes,)
        Rows available per class.
    total : int
        Rows wanted, at most the rows available.
    spare : int
        Rows that each class keeps back, as far as `total` can be met without them.

    Returns
    -------
    ndarray of int64, shape (classes,)
        Rows per class: they add up to `total`, none above its count, and every class that
        may give a row gives one where `total` suffices for all of them.
    """
    limits = np.maximum(counts - spare, 0)
    if int(limits.sum()) < total:
        limits = counts
    exact = counts * (total / max(int(counts.sum()), 1))
    taken = np.minimum(np.floor(exact).astype(np.int64), limits)
    if total >= int((limits > 0).sum()):
        taken = np.maximum(taken, np.minimum(limits, 1))
    while int(taken.sum()) < total:
        need = np.where(taken < limits, exact - taken, -np.inf)
        taken[int(np.argmax(need))] += 1
    while int(taken.sum()) > total:
        excess = np.where(taken > 1, taken - exact, -np.inf)
        taken[int(np.argmax(excess))] -= 1
    return np.asarray(taken, dtype=np.int64)


def stratified_draw(
    labels: Labels, rows: int, rng: np.random.Generator, spare: int = 0
) -> tuple[Indices, Indices]:
    """Draw rows in the classes' proportions, without replacement.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        Class of each row.
    rows : int
        Rows to draw, at most n.
    rng : numpy.random.Generator
        The only source of chance.
    spare : int
        Rows of each class that stay behind where possible.

    Returns
    -------
    (ndarray, ndarray)
        Indices of the drawn rows and of the others, both shuffled.
    """
    classes, inverse = np.unique(labels, return_inverse=True)
    counts = np.bincount(inverse, minlength=len(classes)).astype(np.int64)
    taken = allocate(counts, rows, spare)
    order = rng.permutation(len(labels))
    drawn = np.zeros(len(labels), dtype=bool)
    for number, take in enumerate(taken):
        of_class = order[inverse[order] == number]
        drawn[of_class[: int(take)]] = True
    return order[drawn[order]], order[~drawn[order]]


def draw_within(
    labels: Labels,
    groups: Sequence[str],
    rows: int,
    rng: np.random.Generator,
    least: int = 0,
    spare: int = 0,
) -> tuple[Indices, Indices]:
    """Draw rows of each group in proportion to its size, within it in the classes' proportions.

    Parameters
    ----------
    labels, groups : arrays, shape (n,)
        Class and group of each row; no groups: all rows are one.
    rows : int
        Rows to draw, at most n.
    rng : numpy.random.Generator
        The only source of chance.
    least : int
        Rows of each group that are drawn, as far as it has them.
    spare : int
        Rows of each group, or without groups of each class, that stay behind where possible.

    Returns
    -------
    (ndarray, ndarray)
        Indices of the drawn rows and of the others, both shuffled.

    Raises
    ------
    DataError
        If `rows` does not give `least` to each group.
    """
    if not groups:
        return stratified_draw(labels, rows, rng, spare)
    values, inverse = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    counts = np.bincount(inverse).astype(np.int64)
    first = np.minimum(counts, least)
    if rows < int(first.sum()):
        raise DataError(
            f"data.train_rows = {rows} for {len(values)} values in the partition column",
            f"{int(first.sum())} or more: {least} for each",
            "raise data.train_rows",
        )
    taken = first + allocate(counts - first, rows - int(first.sum()), spare)
    drawn = np.zeros(len(labels), dtype=bool)
    for number, take in enumerate(taken):
        members = np.flatnonzero(inverse == number)
        drawn[members[stratified_draw(labels[members], int(take), rng, min(spare, 1))[0]]] = True
    order = rng.permutation(len(labels))
    return order[drawn[order]], order[~drawn[order]]


def stratified_split(
    labels: Labels, fraction: float, rng: np.random.Generator
) -> tuple[Indices, Indices]:
    """Hold out a share of the rows, each class on both sides where it has two rows.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        Class of each row, n at least 2.
    fraction : float
        Share to hold out, in (0, 1).
    rng : numpy.random.Generator
        The only source of chance.

    Returns
    -------
    (ndarray, ndarray)
        Indices of the rows kept and held out, both shuffled, neither empty.
    """
    counts = np.unique(labels, return_counts=True)[1]
    both = int((counts > 1).sum())
    most = len(labels) - len(counts) if both else len(labels) - 1
    wanted = round(len(labels) * fraction)
    held, kept = stratified_draw(labels, min(max(wanted, both, 1), most), rng, spare=1)
    return kept, held


def iid_parts(labels: Labels, clients: int, rng: np.random.Generator) -> Parts:
    """Deal the rows of each class round-robin: equal sizes and class mixes, within one row.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        Class of each row.
    clients : int
        Number of parts.
    rng : numpy.random.Generator
        The only source of chance.

    Returns
    -------
    tuple of ndarray
        Row numbers of each client, shuffled; every row exactly once.
    """
    order = rng.permutation(len(labels))
    # One deal goes on through the classes, so that the sizes differ by one row at most.
    dealt = order[np.argsort(labels[order], kind="stable")]
    return tuple(rng.permutation(dealt[client::clients]) for client in range(clients))


def dirichlet_parts(
    labels: Labels, clients: int, alpha: float, rng: np.random.Generator, minimum: int = 2
) -> Parts:
    """Share out with label skew: the clients' shares of each class are Dirichlet(alpha).

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        Class of each row.
    clients : int
        Number of parts.
    alpha : float
        Concentration; smaller is more skewed.
    rng : numpy.random.Generator
        The only source of chance.
    minimum : int
        Fewest rows of a client; drawn again until met.

    Returns
    -------
    tuple of ndarray
        Row numbers of each client, shuffled; every row exactly once.

    Raises
    ------
    DataError
        If some client stays below `minimum` in all tries.

    References
    ----------
    Hsu, Qi, Brown (2019), arXiv 1909.06335.
    """
    counts = np.unique(labels, return_counts=True)[1]

    def cut() -> npt.NDArray[np.int64]:
        shares = rng.dirichlet(np.full(clients, alpha), size=len(counts))
        ends = (np.cumsum(shares, axis=1) * counts[:, None]).astype(np.int64)
        ends[:, -1] = counts
        return np.diff(ends, axis=1, prepend=0)

    sizes = _drawn(cut, minimum, f"data.partition = dirichlet with data.alpha = {alpha}", clients)
    order = rng.permutation(len(labels))
    dealt = order[np.argsort(labels[order], kind="stable")]
    # Row-major over (class, client): the pieces lie one behind the other in `dealt`.
    pieces = np.split(dealt, np.cumsum(sizes.ravel())[:-1])
    return tuple(
        rng.permutation(np.concatenate(pieces[client::clients])) for client in range(clients)
    )


def quantity_parts(
    labels: Labels, clients: int, alpha: float, rng: np.random.Generator, minimum: int = 2
) -> Parts:
    """Share out with quantity skew: the clients' sizes are Dirichlet(alpha), rows at random.

    Parameters, returns and errors as in `dirichlet_parts`.
    """
    rows = len(labels)

    def cut() -> npt.NDArray[np.int64]:
        ends = (np.cumsum(rng.dirichlet(np.full(clients, alpha))) * rows).astype(np.int64)
        ends[-1] = rows
        return np.diff(ends, prepend=0)[None, :]

    sizes = _drawn(cut, minimum, f"data.partition = quantity with data.alpha = {alpha}", clients)
    return tuple(np.split(rng.permutation(rows), np.cumsum(sizes[0])[:-1]))


def _drawn(
    cut: Callable[[], npt.NDArray[np.int64]], minimum: int, given: str, clients: int
) -> npt.NDArray[np.int64]:
    for _ in range(TRIES):
        sizes = cut()
        if int(sizes.sum(axis=0).min()) >= minimum:
            return sizes
    raise DataError(
        f"{given} left one of {clients} clients with fewer than {minimum} rows "
        f"in each of {TRIES} draws",
        f"a partition with {minimum} rows or more for every client",
        "raise data.alpha or data.train_rows, or lower run.clients",
    )


def column_parts(
    groups: Sequence[str], clients: int, rng: np.random.Generator, minimum: int = 2
) -> Parts:
    """Give each client the rows of one value of a column, values in sorted order.

    Parameters
    ----------
    groups : sequence of str
        Value of each row.
    clients : int
        Number of parts; must be the number of values.
    rng : numpy.random.Generator
        Shuffles the rows of a client.
    minimum : int
        Fewest rows of a client.

    Returns
    -------
    tuple of ndarray
        Row numbers of each client, shuffled; every row exactly once.

    Raises
    ------
    DataError
        If the number of values is not the number of clients, or a value has too few rows.
    """
    values, inverse = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(values) != clients:
        raise DataError(
            f"{len(values)} different values in the partition column for {clients} clients",
            "one client a value",
            f"set run.clients = {len(values)}, or another data.partition_column",
        )
    parts = tuple(rng.permutation(np.flatnonzero(inverse == number)) for number in range(clients))
    for number, part in enumerate(parts):
        if len(part) < minimum:
            raise DataError(
                f"value {number + 1} of the partition column (sorted) has {len(part)} rows",
                f"{minimum} rows or more for every client",
                "add rows or merge sites",
            )
    return parts


def noisy_labels(labels: Labels, noise: float, classes: int, rng: np.random.Generator) -> Labels:
    """Give a share of the rows another class, each other class as likely.

    Parameters
    ----------
    labels : ndarray of int64, shape (rows,)
        True classes.
    noise : float
        Share of rows to flip, in [0, 1); rounded to whole rows.
    classes : int
        Number of classes.
    rng : numpy.random.Generator
        The only source of chance.

    Returns
    -------
    ndarray of int64, shape (rows,)
        Labels that differ in exactly round(noise * rows) places.
    """
    flipped = labels.copy()
    places = rng.permutation(len(labels))[: round(noise * len(labels))]
    flipped[places] = (labels[places] + rng.integers(1, classes, len(places))) % classes
    return flipped
