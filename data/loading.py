"""What each part of a federation holds: pure functions of the settings.

Every call draws the same rows from the same settings and seed, so the clients and the server
agree on who holds what without a word between them:

1. central evaluation: the server's validation rows are set aside, from the official
   validation split where there is one, else from the training rows (by itself 300 rows, of
   the training rows at most a fifth);
2. `data.train_rows` are drawn from the training rows, stratified; then likewise
   `data.unlabelled_rows` of those that are left, whose labels no part sees;
3. these are shared out over the clients; where a column says whose they are, all rows before
   (test, server, training) are drawn within each of its values, so that no site vanishes;
4. each client splits its rows into training and validation rows, stratified;
5. test rows stay with the server, or are shared out evenly under federated evaluation.

Label noise (dna-demo) changes the clients' training labels only, never those of validation
or test rows. Heterogeneity (dna-demo) changes all rows that a client holds; the rows of the
server come from the chains as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from core import DataError, DataSettings, Settings, registry
from data.checks import LEAST, RowIssues, check_learnable, enough_rows, find_row_issues
from data.corpus import read_corpus
from data.partition import (
    Parts,
    column_parts,
    dirichlet_parts,
    draw_within,
    iid_parts,
    noisy_labels,
    quantity_parts,
    stratified_draw,
)
from data.rows import (
    NO_ROWS,
    SERVER_ROWS,
    Corpus,
    DataInfo,
    Indices,
    ServerData,
    Site,
    Split,
    generator,
    without_labels,
)
from data.sites import hold_out, own_server, own_site, own_unlabelled, server_rows


def load_corpus(
    settings: DataSettings, seed: int, clients: int = 1, central: bool = False
) -> Corpus:
    """Load a whole data set.

    Parameters
    ----------
    settings : DataSettings
        Where it comes from. `train_rows` and `test_rows` set only the size of dna-demo here.
    seed : int
        Draws the rows of dna-demo, and the test rows of a user's file without `test_path`.
    clients : int
        Among how many clients the training rows are to be shared out: a user's file must suffice.
    central : bool
        Whether the server is to validate on some of the training rows.

    Returns
    -------
    Corpus
        Its official splits, or those made here.

    Raises
    ------
    DataError
        If the data is missing, malformed or cannot be learned from.
    """
    corpus = read_corpus(settings, seed, clients, central)
    check_learnable(corpus.train, corpus.classes, corpus.name)
    return corpus


@dataclass(frozen=True)
class _Shares:
    """Who holds which rows of a corpus; `parts` and the like number rows of its splits."""

    corpus: Corpus
    parts: Parts
    more_parts: Parts
    test_parts: Parts
    validation: Split
    test: Split
    issues: RowIssues

    @cached_property
    def info(self) -> DataInfo:
        """The data set, with what was odd about its rows."""
        info = self.corpus.info
        return replace(info, notes=(*info.notes, *self.issues.notes(info.classes)))


def _share_out(settings: Settings, clients: int) -> _Shares:
    data, seed = settings.data, settings.run.seed
    central = settings.evaluation.mode == "central"
    corpus = load_corpus(data, seed, clients, central)
    validation, pool = NO_ROWS, generator(seed, "order").permutation(len(corpus.train))
    if central:
        validation, pool = _server_validation(settings, corpus, pool, clients)
    left = pool[:0]
    # "All" training rows of the generated set were sized by train_rows already.
    if data.train_rows:
        enough_rows("data.train_rows", data.train_rows, len(pool), "training")
        pool, left = _drawn(corpus, pool, data.train_rows, generator(seed, "training rows"))
    check_learnable(corpus.train.take(pool), corpus.classes, corpus.name)
    parts = _dealt(data, corpus, pool, clients, seed)
    more_parts: Parts = ()
    if data.unlabelled_rows:
        enough_rows("data.unlabelled_rows", data.unlabelled_rows, len(left), "other training")
        rng = generator(seed, "unlabelled rows")
        more, _ = _drawn(corpus, left, data.unlabelled_rows, rng)
        more_parts = _dealt(data, corpus, more, clients, seed)
    held = corpus.train.take(pool)
    enough_rows("data.test_rows", data.test_rows, len(corpus.test), "test")
    tests, _ = stratified_draw(
        corpus.test.labels, data.test_rows or len(corpus.test), generator(seed, "test rows")
    )
    # In the file's order: embeddings that are kept of them then serve other seeds too.
    test = corpus.test.take(np.sort(tests))
    issues = find_row_issues(held, test, len(corpus.classes))
    if central:
        return _Shares(corpus, parts, more_parts, (), validation, test, issues)
    dealt = iid_parts(corpus.test.labels[tests], clients, generator(seed, "shared test rows"))
    test_parts = tuple(tests[part] for part in dealt)
    return _Shares(corpus, parts, more_parts, test_parts, NO_ROWS, NO_ROWS, issues)


def _drawn(
    corpus: Corpus, pool: Indices, rows: int, rng: np.random.Generator
) -> tuple[Indices, Indices]:
    """Draw so many of a pool of training rows; return them and the others."""
    there = corpus.train.take(pool)
    drawn, others = draw_within(there.labels, there.groups, rows, rng, LEAST)
    return pool[drawn], pool[others]


def _dealt(data: DataSettings, corpus: Corpus, pool: Indices, clients: int, seed: int) -> Parts:
    """Share a pool of training rows out over the clients."""
    return tuple(pool[part] for part in share(data, corpus.train.take(pool), clients, seed))


def _server_validation(
    settings: Settings, corpus: Corpus, pool: Indices, clients: int
) -> tuple[Split, Indices]:
    """Draw the server's validation rows; return them, and the training rows that are left."""
    data, rng = settings.data, generator(settings.run.seed, "server rows")
    if (official := corpus.validation) is not None:
        there = len(official)
        enough_rows("data.server_rows", data.server_rows, there, "official validation")
        rows = data.server_rows or min(SERVER_ROWS, there)
        return official.take(stratified_draw(official.labels, rows, rng)[0]), pool
    train = corpus.train
    rows = _spared(data, len(pool), clients, len(corpus.classes))
    spare = LEAST if train.groups else 1
    drawn, left = draw_within(train.labels, train.groups, rows, rng, spare=spare)
    return train.take(drawn), left


def _spared(data: DataSettings, rows: int, clients: int, classes: int) -> int:
    """Rows that the server takes of the training rows, at least two left for each client."""
    most = rows - LEAST * clients
    wanted = server_rows(data, rows, most, classes)
    if wanted <= most:
        return wanted
    if data.server_rows:
        given = f"data.server_rows = {wanted} of {rows} training rows"
        fix = "lower data.server_rows (0: at most a fifth of the rows) or run.clients"
    else:
        given = f"{rows} training rows, of which the server needs {wanted} (one a class)"
        fix = "add rows, lower run.clients"
    raise DataError(
        given,
        f"at most {max(most, 0)}, so that each of {clients} clients keeps {LEAST}",
        f"{fix}, or set evaluation.mode = federated",
    )


def share(settings: DataSettings, split: Split, clients: int, seed: int) -> Parts:
    """Share rows out over clients as `data.partition` says.

    Parameters
    ----------
    settings : DataSettings
        The partition, `alpha` and the partition column.
    split : Split
        The rows.
    clients : int
        Number of clients.
    seed : int
        The run's seed.

    Returns
    -------
    tuple of ndarray
        Row numbers of each client, shuffled, at least two; every row exactly once.

    Raises
    ------
    DataError
        If a client would be left with fewer than two rows, or the column does not fit.
    """
    if len(split) < LEAST * clients:
        raise DataError(
            f"{len(split)} training rows for {clients} clients leave one of them empty or "
            "with a single row",
            f"{LEAST} rows or more a client",
            "lower run.clients, or raise data.train_rows",
        )
    rng = generator(seed, "partition")
    if settings.partition == "dirichlet":
        return dirichlet_parts(split.labels, clients, settings.alpha, rng, LEAST)
    if settings.partition == "quantity":
        return quantity_parts(split.labels, clients, settings.alpha, rng, LEAST)
    if settings.partition == "iid":
        return iid_parts(split.labels, clients, rng)
    if not split.groups:
        raise DataError(
            f"data.partition = column with data.source = {settings.source} and "
            f"data.partition_column = {settings.partition_column!r}",
            "a table and the name of one of its columns, or a data set that names its sites",
            "set data.partition_column, or another data.partition",
        )
    return column_parts(split.groups, clients, rng, LEAST)


def _held(settings: Settings, shares: _Shares, split: str, client: int) -> Split:
    """Rows of one client, generated for it where the sites are made to differ."""
    data, seed = settings.data, settings.run.seed
    train = split == "train"
    rows = (shares.parts if train else shares.test_parts)[client]
    if data.heterogeneity > 0:
        made: Split = registry.find("dataset", data.source).site_rows(
            data, seed, split, rows, client
        )
        return made
    return (shares.corpus.train if train else shares.corpus.test).take(rows)


def _site(settings: Settings, shares: _Shares, client: int) -> Site:
    data, seed = settings.data, settings.run.seed
    rows = _held(settings, shares, "train", client)
    train, validation = hold_out(data, seed, rows, client)
    if data.label_noise > 0 and (not data.noisy_clients or client < data.noisy_clients):
        # A site whose labels are wrong validates on wrong labels too; test rows stay as they are.
        count = len(shares.corpus.classes)
        train = _noisy(train, data.label_noise, count, generator(seed, "label noise", client))
        rng = generator(seed, "validation label noise", client)
        validation = _noisy(validation, data.label_noise, count, rng)
    test = _held(settings, shares, "test", client) if shares.test_parts else NO_ROWS
    more = shares.corpus.train.take(shares.more_parts[client]) if shares.more_parts else NO_ROWS
    own = own_unlabelled(data, client, shares.corpus.kind)
    return Site(train, validation, test, without_labels((*more.texts, *own)))


def _noisy(rows: Split, noise: float, classes: int, rng: np.random.Generator) -> Split:
    return replace(rows, labels=noisy_labels(rows.labels, noise, classes, rng))


class SharedRows:
    """Data sets that were read and shared out: the sites of one process read each but once."""

    def __init__(self) -> None:
        self._found: dict[object, _Shares] = {}

    def of(self, settings: Settings, clients: int) -> _Shares:
        """Return who holds what, shared out at the first call with such settings."""
        central = settings.evaluation.mode == "central"
        key = settings.data, settings.run.seed, central, clients
        if key not in self._found:
            self._found.clear()  # a node's own path is rare: one data set at a time
            self._found[key] = _share_out(settings, clients)
        return self._found[key]


def load_site(
    settings: Settings, client: int, clients: int, shared: SharedRows | None = None
) -> tuple[DataInfo, Site]:
    """Load what one client holds.

    Parameters
    ----------
    settings : Settings
        The run's settings, with the node's own where it has any.
    client : int
        Number of the client, from 0.
    clients : int
        Number of clients.
    shared : SharedRows, optional
        Data sets that this process has read for other clients; None: it is read now.

    Returns
    -------
    (DataInfo, Site)
        What the data is, and the client's training, validation and test rows; the test rows
        are empty under central evaluation.

    Raises
    ------
    DataError
        If the data is missing, malformed, cannot be learned from, or does not suffice.
    SettingsError
        If settings contradict each other.
    """
    if not 0 <= client < clients:
        raise DataError(
            f"client {client} of {clients}",
            f"0 to {clients - 1}",
            "give each node its own partition-id below run.clients",
        )
    if settings.data.per_site:
        return own_site(settings, client)
    shares = (shared or SharedRows()).of(settings, clients)
    return shares.info, _site(settings, shares, client)


def load_server(settings: Settings) -> ServerData:
    """Load what the server holds.

    Parameters
    ----------
    settings : Settings
        The run's settings; the number of clients is `run.clients`.

    Returns
    -------
    ServerData
        Validation and test rows under central evaluation, none under federated evaluation; and
        the clients' training rows for the linear baselines, where they are known.

    Raises
    ------
    DataError, SettingsError
        As `load_site`; and if the server should evaluate but has no rows of its own.
    """
    if settings.data.per_site:
        return own_server(settings)
    return load_federation(settings)[0]


def load_federation(settings: Settings) -> tuple[ServerData, tuple[Site, ...]]:
    """Load what the server and every client hold, reading a shared data set once.

    Returns
    -------
    (ServerData, tuple of Site)
        As `load_server` and `load_site` return them, the sites by client; the server's notes
        are those of all.

    Raises
    ------
    DataError, SettingsError
        As `load_server` and `load_site`.
    """
    clients = settings.run.clients
    if settings.data.per_site:
        infos, held = zip(*(own_site(settings, client) for client in range(clients)), strict=True)
        server = own_server(settings)
        notes = dict.fromkeys(note for info in (server.info, *infos) for note in info.notes)
        return replace(server, info=replace(server.info, notes=tuple(notes))), held
    shares = _share_out(settings, clients)
    sites = tuple(_site(settings, shares, client) for client in range(clients))
    train, seen = tuple(site.train for site in sites), shares.issues.seen
    return ServerData(shares.info, train, shares.validation, shares.test, seen), sites
