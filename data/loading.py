"""What each part of a federation holds: pure functions of the settings.

Every call draws the same rows from the same settings and seed, so the clients and the server
agree on who holds what without a word between them:

1. central evaluation: the server's validation rows are set aside, from the official
   validation split where there is one, else from the training rows;
2. `data.train_rows` are drawn from the training rows, stratified;
3. these are shared out over the clients;
4. each client splits its rows into training and validation rows, stratified;
5. test rows stay with the server, or are shared out evenly under federated evaluation.

Label noise (dna-demo) changes the clients' training labels only, never those of validation
or test rows. Heterogeneity (dna-demo) changes all rows that a client holds; the rows of the
server come from the chains as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from data import chains
from data.checks import check_learnable
from data.partition import (
    Parts,
    column_parts,
    dirichlet_parts,
    iid_parts,
    quantity_parts,
    stratified_draw,
    stratified_split,
)
from data.public import genomic, tweet_eval
from data.rows import (
    NO_ROWS,
    Corpus,
    DataInfo,
    ServerData,
    Site,
    Split,
    generator,
    joined,
)
from data.tables import class_names, read_split
from federation import DataError, DataSettings, Settings, SettingsError, explain

LEAST = 2  # rows of a client: one to train on, one to validate on


def load_corpus(settings: DataSettings, seed: int) -> Corpus:
    """Load a whole data set.

    Parameters
    ----------
    settings : DataSettings
        Where it comes from. `train_rows` and `test_rows` set only the size of dna-demo here.
    seed : int
        Draws the rows of dna-demo, and the test rows of a user's file without `test_path`.

    Returns
    -------
    Corpus
        Its official splits, or those made here.

    Raises
    ------
    DataError
        If the data is missing, malformed or cannot be learned from.
    """
    if settings.source == "dna-demo":
        return chains.demo_corpus(settings, seed)
    if settings.source == "tweet-eval":
        corpus = tweet_eval(settings)
    elif settings.source == "genomic":
        corpus = genomic(settings)
    else:
        corpus = _own_corpus(settings, seed)
    check_learnable(corpus.train, corpus.classes, corpus.name)
    return corpus


def _own_corpus(settings: DataSettings, seed: int) -> Corpus:
    train, classes = read_split(settings, settings.path)
    name = Path(settings.path).name
    if settings.test_path:
        test, _ = read_split(settings, settings.test_path, classes)
        return Corpus(name, settings.kind, classes, train, None, test)
    # A site of its own may lack a class; a whole data set must not be of one class.
    if not settings.per_site:
        check_learnable(train, classes, name)
    _need_rows(len(train), LEAST + 1, settings.path)
    kept, held = stratified_split(
        train.labels, settings.test_fraction, generator(seed, "test rows of a file")
    )
    return Corpus(name, settings.kind, classes, train.take(kept), None, train.take(held))


def _need_rows(rows: int, least: int, where: str) -> None:
    if rows < least:
        raise DataError(
            explain(f"{where} has {rows} rows", f"{least} rows or more", "add rows to the file")
        )


@dataclass(frozen=True)
class _Shares:
    """Who holds which rows of a corpus; `parts` and `test_parts` number rows of its splits."""

    corpus: Corpus
    parts: Parts
    test_parts: Parts
    validation: Split
    test: Split


def _share_out(settings: Settings, clients: int) -> _Shares:
    data, seed = settings.data, settings.run.seed
    corpus = load_corpus(data, seed)
    central = settings.evaluation.mode == "central"
    # "All" training rows of the generated set were sized by train_rows already.
    pool = generator(seed, "order").permutation(len(corpus.train))
    validation = NO_ROWS
    if central and corpus.validation is not None:
        rows = min(data.server_rows, len(corpus.validation))
        drawn, _ = stratified_draw(corpus.validation.labels, rows, generator(seed, "server rows"))
        validation = corpus.validation.take(drawn)
    elif central:
        _enough_for_server(data, len(pool), clients)
        drawn, pool = stratified_draw(
            corpus.train.labels, data.server_rows, generator(seed, "server rows"), spare=1
        )
        validation = corpus.train.take(drawn)
    if data.train_rows:
        _enough_rows("data.train_rows", data.train_rows, len(pool), "training")
        drawn, _ = stratified_draw(
            corpus.train.labels[pool], data.train_rows, generator(seed, "training rows")
        )
        pool = pool[drawn]
    held = corpus.train.take(pool)
    check_learnable(held, corpus.classes, corpus.name)
    parts = tuple(pool[part] for part in share(data, held, clients, seed))
    _enough_rows("data.test_rows", data.test_rows, len(corpus.test), "test")
    tests, _ = stratified_draw(
        corpus.test.labels, data.test_rows or len(corpus.test), generator(seed, "test rows")
    )
    if central:
        return _Shares(corpus, parts, (), validation, corpus.test.take(tests))
    test_parts = iid_parts(corpus.test.labels[tests], clients, generator(seed, "shared test rows"))
    return _Shares(corpus, parts, tuple(tests[part] for part in test_parts), NO_ROWS, NO_ROWS)


def _enough_for_server(data: DataSettings, rows: int, clients: int) -> None:
    most = rows - LEAST * clients
    if data.server_rows > most:
        raise DataError(
            explain(
                f"data.server_rows = {data.server_rows} of {rows} training rows",
                f"at most {max(most, 0)}, so that each of {clients} clients keeps {LEAST}",
                "lower data.server_rows or run.clients, or set evaluation.mode = federated",
            )
        )


def _enough_rows(key: str, wanted: int, rows: int, what: str) -> None:
    if wanted > rows:
        raise DataError(
            explain(
                f"{key} = {wanted}", f"at most the {rows} {what} rows there are", f"lower {key}"
            )
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
            explain(
                f"{len(split)} training rows for {clients} clients leave one of them empty or "
                "with a single row",
                f"{LEAST} rows or more a client",
                "lower run.clients, or raise data.train_rows",
            )
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
            explain(
                f"data.partition = column with data.source = {settings.source} and "
                f"data.partition_column = {settings.partition_column!r}",
                "a csv or jsonl file and the name of one of its columns",
                "set data.partition_column, or another data.partition",
            )
        )
    return column_parts(split.groups, clients, rng, LEAST)


def _held(settings: Settings, shares: _Shares, split: str, client: int) -> Split:
    """Rows of one client, from its own pulled chains where dna-demo is heterogeneous."""
    data, seed = settings.data, settings.run.seed
    train = split == "train"
    rows = (shares.parts if train else shares.test_parts)[client]
    if data.source == "dna-demo" and data.heterogeneity > 0:
        pull = chains.client_pull(data, seed, client)
        return chains.pulled_split(data, seed, split, rows, pull)
    return (shares.corpus.train if train else shares.corpus.test).take(rows)


def _site(settings: Settings, shares: _Shares, client: int) -> Site:
    data, seed = settings.data, settings.run.seed
    rows = _held(settings, shares, "train", client)
    train, validation = _for_validation(data, seed, rows, client)
    if data.source == "dna-demo" and data.label_noise > 0:
        rng = generator(seed, "label noise", client)
        count = len(shares.corpus.classes)
        labels = chains.noisy_labels(train.labels, data.label_noise, count, rng)
        train = replace(train, labels=labels)
    test = _held(settings, shares, "test", client) if shares.test_parts else NO_ROWS
    return Site(train, validation, test)


def _for_validation(data: DataSettings, seed: int, rows: Split, client: int) -> tuple[Split, Split]:
    rng = generator(seed, "client validation", client)
    kept, out = stratified_split(rows.labels, data.val_fraction, rng)
    return rows.take(kept), rows.take(out)


def load_site(settings: Settings, client: int, clients: int) -> tuple[DataInfo, Site]:
    """Load what one client holds.

    Parameters
    ----------
    settings : Settings
        The run's settings, with the node's own where it has any.
    client : int
        Number of the client, from 0.
    clients : int
        Number of clients.

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
            explain(
                f"client {client} of {clients}",
                f"0 to {clients - 1}",
                "give each node its own partition-id below run.clients",
            )
        )
    if settings.data.per_site:
        return _own_site(settings, client)
    shares = _share_out(settings, clients)
    return shares.corpus.info, _site(settings, shares, client)


def _own_classes(data: DataSettings) -> tuple[str, ...]:
    if not data.labels:
        raise SettingsError(
            explain(
                "data.per_site without data.labels",
                "the class names, the same at every site, comma-separated",
                "set data.labels",
            )
        )
    if data.train_rows:
        raise SettingsError(
            explain(
                f"data.train_rows = {data.train_rows} with data.per_site",
                "0: a site uses all rows of its file",
                "remove data.train_rows",
            )
        )
    return class_names(data.labels)


def own_files(data: DataSettings, client: int) -> DataSettings:
    """Return the settings with `{client}` in the paths replaced by the client's index."""
    paths = {name: getattr(data, name) for name in ("path", "test_path")}
    own = {name: path.replace("{client}", str(client)) for name, path in paths.items()}
    if not own["path"]:
        raise SettingsError(
            explain(
                f"client {client} has no data.path",
                "this site's own file",
                "set data.path in the node's --node-config, or with {client} for all of them",
            )
        )
    return data.model_copy(update=own)


def _own_site(settings: Settings, client: int) -> tuple[DataInfo, Site]:
    data, seed = own_files(settings.data, client), settings.run.seed
    classes = _own_classes(data)
    if settings.evaluation.mode == "central":
        rows, _ = read_split(data, data.path, classes)
        test = NO_ROWS
    else:
        corpus = _own_corpus(data, seed)
        _enough_rows("data.test_rows", data.test_rows, len(corpus.test), "test")
        drawn, _ = stratified_draw(
            corpus.test.labels, data.test_rows or len(corpus.test), generator(seed, "test rows")
        )
        rows, test = corpus.train, corpus.test.take(drawn)
    _need_rows(len(rows), LEAST, data.path)
    train, validation = _for_validation(data, seed, rows, client)
    return DataInfo(Path(data.path).name, data.kind, classes), Site(train, validation, test)


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
        return _own_server(settings)
    clients = settings.run.clients
    shares = _share_out(settings, clients)
    train = joined([_site(settings, shares, client).train for client in range(clients)])
    return ServerData(shares.corpus.info, train, shares.validation, shares.test)


def _own_server(settings: Settings) -> ServerData:
    """With a file per site the server has the rows of `data.test_path` or none."""
    data, seed = settings.data, settings.run.seed
    classes = _own_classes(data)
    info = DataInfo(f"a {data.source} file per site", data.kind, classes)
    if settings.evaluation.mode == "federated":
        return ServerData(info, NO_ROWS, NO_ROWS, NO_ROWS)
    if not data.test_path:
        raise DataError(
            explain(
                "evaluation.mode = central with data.per_site: the server has no rows",
                "federated evaluation, or held-out rows of the server in data.test_path",
                "set evaluation.mode = federated",
            )
        )
    rows, _ = read_split(data, data.test_path, classes)
    wanted = data.server_rows + (data.test_rows or 1)
    if len(rows) < wanted:
        raise DataError(
            explain(
                f"{data.test_path} has {len(rows)} rows",
                f"{wanted} or more: data.server_rows for validation, the others for the test",
                "lower data.server_rows or data.test_rows, or add rows",
            )
        )
    drawn, others = stratified_draw(rows.labels, data.server_rows, generator(seed, "server rows"))
    left = rows.take(others)
    tests, _ = stratified_draw(
        left.labels, data.test_rows or len(left), generator(seed, "test rows")
    )
    return ServerData(info, NO_ROWS, rows.take(drawn), left.take(tests))
