"""From a data set's function to checked rows: classes, labels as numbers, texts, held-out rows."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np

from core import DataError, DataSettings, SettingsError, UserError, parse_options, registry
from data.checks import (
    LEAST,
    check_learnable,
    checked_dna,
    need_rows,
    number_labels,
    refuse_dna,
    refuse_many_classes,
    sorted_labels,
)
from data.dataset import Columns, Dataset
from data.partition import draw_within, stratified_split
from data.rows import Corpus, Indices, Kind, Split, generator
from data.text import check_names, clean_texts, type_name


def call_dataset(settings: DataSettings, seed: int) -> Dataset:
    """Call the function that `data.source` names.

    Its arguments are those of `data.options`; besides, as far as it has parameters of these names,
    `settings` (`DataSettings`) and `seed` (the run's).

    Raises
    ------
    SettingsError
        If it cannot be found or called, raises, or returns something else: one line that names the
        user's file.
    DataError
        For what is wrong with the rows.
    """
    name = settings.source
    extension = registry.find("dataset", name)
    found = _called(name, extension, settings, seed)
    own = name not in registry.shipped("dataset")
    # Every site calls it for itself, and they share out its rows by their numbers.
    if own and not _same_rows(found, _called(name, extension, settings, seed)):
        given = f"data.source = {name!r} returns other rows, or another order, at each call"
        fix = "sort the rows, or draw from a generator of the parameter seed"
        raise DataError(given, "the same rows at each call, since each site makes its own", fix)
    return found


def _same_rows(one: Dataset, other: Dataset) -> bool:
    """Whether two calls gave the same rows in the same order."""

    def rows(made: Dataset) -> dict[str, list[list[str]]]:
        parts = made.parts.items()
        return {name: [list(c.texts), list(c.labels), list(c.sites)] for name, c in parts}

    return rows(one) == rows(other)


def _called(name: str, extension: Any, settings: DataSettings, seed: int) -> Dataset:
    expected = registry.POINTS["dataset"].expected
    if not callable(extension):
        given = f"data.source = {name!r} is {type_name(extension)}"
        raise SettingsError(given, expected, "check the name behind the colon")
    arguments = _arguments(extension, settings, seed)
    try:
        found = extension(**arguments)
    except UserError as error:
        if name in registry.shipped("dataset"):
            raise
        raise DataError(f"data.source = {name!r}: {error}") from error
    except Exception as error:
        raise registry.bad_extension("dataset", name, error) from error
    if not isinstance(found, Dataset):
        given = f"data.source = {name!r} returns {type_name(found)}"
        raise SettingsError(given, "a function that returns a llm_qfl.Dataset", "correct the file")
    return found


def _arguments(extension: Any, settings: DataSettings, seed: int) -> dict[str, Any]:
    options = parse_options("data.options", settings.options)
    try:
        signature = inspect.signature(extension)
    except (TypeError, ValueError):  # of some built-in functions
        return dict(options)
    own = {"settings": settings, "seed": seed}
    arguments = {key: value for key, value in own.items() if key in signature.parameters}
    arguments |= options
    try:
        signature.bind(**arguments)
    except TypeError as error:
        known = ", ".join(key for key in signature.parameters if key not in own) or "no options"
        given = f"data.options = {settings.options!r} with data.source = {settings.source!r}"
        raise SettingsError(f"{given} ({error})", known, "correct data.options") from None
    return arguments


def read_corpus(
    settings: DataSettings, seed: int, clients: int = 1, central: bool = False
) -> Corpus:
    """Read a data set, check its rows, and hold out test rows where it has none.

    Parameters
    ----------
    settings : DataSettings
        Which data set.
    seed : int
        Draws the rows that are held out, and those of a data set that is generated.
    clients : int
        Among how many clients the training rows are to be shared out.
    central : bool
        Whether the server is to validate on some of the training rows.

    Raises
    ------
    DataError
        If the data is missing, malformed, too short or cannot be learned from.
    SettingsError
        As `call_dataset`.
    """
    found = call_dataset(settings, seed)
    name = found.name or Path(settings.path).name or settings.source
    values = _labels(found)
    classes = tuple((found.names or {value: value for value in values}).values())
    rows, notes = _checked(settings, found, found.parts["train"], values)
    official: dict[str, Split] = {}
    for split in ("test", "validation"):
        if (columns := found.parts.get(split)) is not None:
            official[split], more = _checked(settings, found, columns, values)
            notes += more
    test, validation = official.get("test"), official.get("validation")
    needed = 0 if validation else LEAST * clients + len(classes) * central
    where = settings.path or name
    if test is not None:
        _refuse_fraction(settings, name)
        need_rows(len(rows), needed, where)
    else:
        # A site of its own may lack a class; a whole data set must not be of one class.
        if not settings.per_site:
            check_learnable(rows, classes, name)
        kept, held = _held_out(rows, settings.test_fraction, seed)
        if len(kept) < needed:
            least = len(rows) + 1
            while least - max(round(least * settings.test_fraction), len(classes)) < needed:
                least += 1
            need_rows(len(rows), least, where)
        rows, test = rows.take(kept), rows.take(held)
    made = bool(registry.declared("dataset", settings.source, "synthetic"))
    notes = (*found.notes, *notes)
    return Corpus(name, found.kind, classes, rows, validation, test, made, notes)


def read_training(settings: DataSettings, seed: int) -> tuple[Split, tuple[str, ...], Kind]:
    """Read all training rows alone, of which nothing is held out.

    Returns
    -------
    (Split, tuple of str, str)
        The rows, what the user should know of them, and their kind.
    """
    found = call_dataset(settings.model_copy(update={"test_path": ""}), seed)
    rows, notes = _checked(settings, found, found.parts["train"], _labels(found))
    return rows, notes, found.kind


def _refuse_fraction(settings: DataSettings, name: str) -> None:
    if settings.test_fraction != DataSettings.model_fields["test_fraction"].default:
        raise SettingsError(
            f"data.test_fraction = {settings.test_fraction} would be ignored because {name} has "
            "test rows of its own",
            "a data set without test rows",
            "remove data.test_fraction",
        )


def _labels(found: Dataset) -> tuple[str, ...]:
    """Return the labels of the classes, in order."""
    if found.names is not None:
        return tuple(found.names)
    train = found.parts["train"]
    values = sorted_labels(train.labels)
    refuse_many_classes(values, len(train.labels), train.where or train.place(0))
    return values


def _checked(
    settings: DataSettings, found: Dataset, columns: Columns, values: tuple[str, ...]
) -> tuple[Split, tuple[str, ...]]:
    """Check a split's columns; return its rows, and what the user should know."""
    known = values if found.names else ()
    check_names(columns.labels, columns.label_place, "label", known)
    labels = number_labels(columns.labels, values, columns.label_place, found.names is not None)
    sites: tuple[str, ...] = ()
    if settings.partition == "column" and columns is found.parts["train"]:
        sites = tuple(columns.sites)
        check_names(sites, columns.place, "site")
    if found.kind == "dna":
        texts, notes = checked_dna(columns.texts, columns.place)
    else:
        refuse_dna(columns.texts, columns.where)
        texts, notes = clean_texts(columns.texts, columns.place)
    return Split(texts, labels, sites), (*columns.notes, *notes)


def _held_out(rows: Split, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Split off the test rows, within each site where a column names it."""
    rng: np.random.Generator = generator(seed, "test rows of a file")
    if not rows.groups:
        return stratified_split(rows.labels, fraction, rng)
    most = max(len(rows) - LEAST * len(set(rows.groups)), 1)
    wanted = min(max(round(len(rows) * fraction), 1), most)
    held, kept = draw_within(rows.labels, rows.groups, wanted, rng, spare=LEAST)
    return kept, held
