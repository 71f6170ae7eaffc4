"""Files of the user's own: one for the whole federation, or one per site."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from core import DataError, DataSettings, Settings, SettingsError
from data.checks import LEAST, check_learnable, enough_rows, find_row_issues, need_rows
from data.partition import draw_within, stratified_draw, stratified_split
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
)
from data.tables import class_names, read_split

SERVER_SHARE = 5  # at most one in so many rows, unless `data.server_rows` says more


def server_rows(settings: DataSettings, rows: int, most: int, classes: int) -> int:
    """Rows that the server sets aside for its validation.

    Parameters
    ----------
    settings : DataSettings
        `server_rows`; 0: 300 rows, or a fifth of `rows` if that is less.
    rows : int
        Rows that they are drawn from.
    most : int
        How many of them can be spared; the automatic number stays within it unless there are more
        classes.
    classes : int
        Number of classes; the automatic number is at least this.

    Returns
    -------
    int
        May be above `most`, which the caller then refuses.
    """
    if settings.server_rows:
        return settings.server_rows
    return max(classes, min(SERVER_ROWS, rows // SERVER_SHARE, most))


def own_corpus(
    settings: DataSettings, seed: int, clients: int = 1, central: bool = False
) -> Corpus:
    """Read `data.path`, and `data.test_path` or held-out rows of the first for the test.

    Parameters
    ----------
    settings : DataSettings
        Where the rows are.
    seed : int
        Draws the rows that are held out.
    clients : int
        Among how many clients the training rows are to be shared out.
    central : bool
        Whether the server is to validate on some of the training rows.

    Raises
    ------
    DataError
        If a file is missing, malformed, too short or cannot be learned from.
    """
    train, classes, notes = read_split(settings, settings.path)
    name = Path(settings.path).name
    needed = LEAST * clients + len(classes) * central
    if settings.test_path:
        need_rows(len(train), needed, settings.path)
        test, _, more = read_split(settings, settings.test_path, classes)
        notes = (*notes, *more)
        return Corpus(name, settings.kind, classes, train, None, test, notes=notes)
    # A site of its own may lack a class; a whole data set must not be of one class.
    if not settings.per_site:
        check_learnable(train, classes, name)
    kept, held = _held_out(train, settings.test_fraction, generator(seed, "test rows of a file"))
    if len(kept) < needed:
        least = len(train) + 1
        while least - max(round(least * settings.test_fraction), len(classes)) < needed:
            least += 1
        need_rows(len(train), least, settings.path)
    rows = train.take(kept), None, train.take(held)
    return Corpus(name, settings.kind, classes, *rows, notes=notes)


def _held_out(rows: Split, fraction: float, rng: np.random.Generator) -> tuple[Indices, Indices]:
    """Split off the test rows, within each site where a column names it."""
    if not rows.groups:
        return stratified_split(rows.labels, fraction, rng)
    most = max(len(rows) - LEAST * len(set(rows.groups)), 1)
    wanted = min(max(round(len(rows) * fraction), 1), most)
    held, kept = draw_within(rows.labels, rows.groups, wanted, rng, spare=LEAST)
    return kept, held


def hold_out(data: DataSettings, seed: int, rows: Split, client: int) -> tuple[Split, Split]:
    """Split a client's rows into training and validation rows, stratified."""
    rng = generator(seed, "client validation", client)
    kept, out = stratified_split(rows.labels, data.val_fraction, rng)
    return rows.take(kept), rows.take(out)


def own_classes(data: DataSettings) -> tuple[str, ...]:
    """Return the class names that all sites share.

    Raises
    ------
    SettingsError
        If `data.labels` is missing, or `data.train_rows` is set.
    """
    if not data.labels:
        raise SettingsError(
            "data.per_site without data.labels",
            "the class names, the same at every site, comma-separated",
            "set data.labels",
        )
    if data.train_rows:
        raise SettingsError(
            f"data.train_rows = {data.train_rows} with data.per_site",
            "0: a site uses all rows of its file",
            "remove data.train_rows",
        )
    return class_names(data.labels)


def own_files(data: DataSettings, client: int) -> DataSettings:
    """Return the settings with `{client}` in the paths replaced by the client's index."""
    paths = {name: getattr(data, name) for name in ("path", "test_path")}
    own = {name: path.replace("{client}", str(client)) for name, path in paths.items()}
    if not own["path"]:
        raise SettingsError(
            f"client {client} has no data.path",
            "this site's own file",
            "set data.path in the node's --node-config, or with {client} for all of them",
        )
    return data.model_copy(update=own)


def own_site(settings: Settings, client: int) -> tuple[DataInfo, Site]:
    """Load what a client with a file of its own holds; as `data.load_site`."""
    data, seed = own_files(settings.data, client), settings.run.seed
    classes = own_classes(data)
    if settings.evaluation.mode == "central":
        rows, _, notes = read_split(data, data.path, classes)
        test = NO_ROWS
    else:
        corpus = own_corpus(data, seed)
        notes = corpus.notes
        enough_rows("data.test_rows", data.test_rows, len(corpus.test), "test")
        drawn, _ = stratified_draw(
            corpus.test.labels, data.test_rows or len(corpus.test), generator(seed, "test rows")
        )
        rows, test = corpus.train, corpus.test.take(drawn)
    need_rows(len(rows), LEAST, data.path)
    train, validation = hold_out(data, seed, rows, client)
    # Which classes no site can test is seen when the sites' results are added up.
    odd = replace(find_row_issues(rows, test, len(classes)), untested=())
    found = (*notes, *odd.notes(classes))
    info = DataInfo(Path(data.path).name, data.kind, classes, notes=found)
    return info, Site(train, validation, test)


def own_server(settings: Settings) -> ServerData:
    """With a file per site the server has the rows of `data.test_path` or none."""
    data, seed = settings.data, settings.run.seed
    classes = own_classes(data)
    info = DataInfo(f"a {data.source} file per site", data.kind, classes)
    if settings.evaluation.mode == "federated":
        return ServerData(info, (), NO_ROWS, NO_ROWS)
    if not data.test_path:
        raise DataError(
            "evaluation.mode = central with data.per_site: the server has no rows",
            "federated evaluation, or held-out rows of the server in data.test_path",
            "set evaluation.mode = federated",
        )
    rows, _, notes = read_split(data, data.test_path, classes)
    tests = data.test_rows or 1
    share = server_rows(data, len(rows), len(rows) - tests, len(classes))
    wanted = share + tests
    if len(rows) < wanted:
        raise DataError(
            f"{data.test_path} has {len(rows)} rows",
            f"{wanted} or more: data.server_rows for validation, the others for the test",
            "lower data.server_rows (0: at most a fifth) or data.test_rows, or add rows",
        )
    drawn, others = stratified_draw(rows.labels, share, generator(seed, "server rows"))
    left = rows.take(others)
    drawn_tests, _ = stratified_draw(
        left.labels, data.test_rows or len(left), generator(seed, "test rows")
    )
    test = left.take(drawn_tests)
    all_notes = (*notes, *find_row_issues(NO_ROWS, test, len(classes)).notes(classes))
    return ServerData(replace(info, notes=all_notes), (), rows.take(drawn), test)
