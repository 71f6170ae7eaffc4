"""A data set of its own at every site (`data.per_site`), and the rows that the server holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from core import DataError, DataSettings, Settings, SettingsError, registry
from core.storage.files import read_file
from data.checks import LEAST, checked_dna, class_names, enough_rows, find_row_issues, need_rows
from data.corpus import read_corpus, read_training
from data.partition import stratified_draw, stratified_split
from data.rows import (
    NO_ROWS,
    SERVER_ROWS,
    DataInfo,
    Kind,
    ServerData,
    Site,
    Split,
    generator,
    without_labels,
)
from data.text import clean_texts

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
    """Return the settings with `{client}` in paths and options replaced by the client's index."""
    texts = {name: getattr(data, name) for name in ("path", "test_path", "options")}
    own = {name: text.replace("{client}", str(client)) for name, text in texts.items()}
    if not own["path"] and registry.declared("dataset", data.source, "needs_path"):
        raise SettingsError(
            f"client {client} has no data.path",
            "this site's own file",
            "set data.path in the node's --node-config, or with {client} for all of them",
        )
    return data.model_copy(update=own)


def own_unlabelled(data: DataSettings, client: int, kind: Kind) -> tuple[str, ...]:
    """Return the rows of a client's `data.unlabelled`, none where there is no such file."""
    if not data.unlabelled:
        return ()
    path = Path(data.unlabelled.replace("{client}", str(client)))
    expected = "a text file in UTF-8, a row a line"
    try:
        lines = read_file(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise DataError(f"data.unlabelled = {str(path)!r} ({why})", expected, "check it") from None
    rows = [line.strip() for line in lines if line.strip()]
    if not rows:
        raise DataError(f"data.unlabelled = {str(path)!r} has no row", expected, "add rows")

    def place(row: int) -> str:
        return f"{path}, row {row + 1}"

    texts, _ = (checked_dna if kind == "dna" else clean_texts)(rows, place)
    return texts


def own_site(settings: Settings, client: int) -> tuple[DataInfo, Site]:
    """Load what a client with a file of its own holds; as `data.load_site`."""
    data, seed = own_files(settings.data, client), settings.run.seed
    classes = own_classes(data)
    if settings.evaluation.mode == "central":
        rows, notes, kind = read_training(data, seed)
        test = NO_ROWS
    else:
        corpus = read_corpus(data, seed)
        notes, kind = corpus.notes, corpus.kind
        enough_rows("data.test_rows", data.test_rows, len(corpus.test), "test")
        drawn, _ = stratified_draw(
            corpus.test.labels, data.test_rows or len(corpus.test), generator(seed, "test rows")
        )
        rows, test = corpus.train, corpus.test.take(drawn)
    name = Path(data.path).name or data.source
    need_rows(len(rows), LEAST, data.path or name)
    train, validation = hold_out(data, seed, rows, client)
    # Which classes no site can test is seen when the sites' results are added up.
    odd = replace(find_row_issues(rows, test, len(classes)), untested=())
    found = (*notes, *odd.notes(classes))
    info = DataInfo(name, kind, classes, notes=found)
    more = without_labels(own_unlabelled(settings.data, client, kind))
    return info, Site(train, validation, test, more)


def own_server(settings: Settings) -> ServerData:
    """With a file per site the server has the rows of `data.test_path` or none."""
    data, seed = settings.data, settings.run.seed
    classes = own_classes(data)
    kind = registry.declared("dataset", data.source, "kind") or data.kind
    info = DataInfo(f"a {data.source} file per site", kind, classes)
    if settings.evaluation.mode == "federated":
        return ServerData(info, (), NO_ROWS, NO_ROWS)
    if not data.test_path:
        raise DataError(
            "evaluation.mode = central with data.per_site: the server has no rows",
            "federated evaluation, or held-out rows of the server in data.test_path",
            "set evaluation.mode = federated",
        )
    rows, notes, _ = read_training(data.model_copy(update={"path": data.test_path}), seed)
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
