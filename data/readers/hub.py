"""Data sets of the Hugging Face hub: from there, from the cache, or from a local folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core import DataError, hub_reachable, short_message
from data.dataset import Columns
from data.readers.arrow import table_columns
from data.readers.columns import Wanted, find_columns


def load_hub(name: str, config: str = "", revision: str = "") -> Mapping[str, Any]:
    """Load a data set with the library `datasets`.

    Parameters
    ----------
    name : str
        Its id on the hub, or a local folder in the hub's layout (data files, perhaps a README with
        configurations) or as `datasets` saves it.
    config, revision : str
        Its configuration; branch, tag or commit. Empty: the default, the newest.

    Returns
    -------
    mapping
        Its splits by name.

    Raises
    ------
    DataError
        If `datasets` is not installed, or the set is unknown, damaged or out of reach.
    """
    what = f"data set {name}" + (f" ({config})" if config else "")
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{what} needs the package datasets, which is not installed",
            "an installed datasets package, or a local copy of the data",
            "pip install datasets, or set data.path",
        ) from error
    local = Path(name).is_dir()
    offline = datasets.config.HF_HUB_OFFLINE
    try:
        # It would try for 25 s to reach a hub that is not there before it looks into its cache.
        datasets.config.HF_HUB_OFFLINE = local or not hub_reachable()
        if (Path(name) / "dataset_dict.json").is_file():
            return dict(datasets.load_from_disk(name))
        more = {"revision": revision} if revision else {}
        found: Mapping[str, Any] = datasets.load_dataset(name, config or None, **more)
    except Exception as error:  # whatever the network, the cache or the hub's files raise
        raise DataError(
            f"hub {what} could not be loaded ({short_message(error)[:80]})",
            "one that the hub or its cache has, or local files",
            "check the network and the name, or set data.path to a local copy",
        ) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = offline  # a notebook may load more by itself
    return found


def hub_columns(
    found: Mapping[str, Any], name: str, splits: Sequence[str], wanted: Wanted
) -> tuple[list[Columns], tuple[str, ...] | None]:
    """Read the wanted columns of splits.

    Parameters
    ----------
    found : mapping
        What `load_hub` has returned.
    name : str
        The set's name, for messages.
    splits : sequence of str
        The splits, the training rows first; only they may name sites.
    wanted : Wanted
        The columns.

    Returns
    -------
    (list of Columns, tuple of str or None)
        The splits, and the class names, where the set has them in an order of its own.

    Raises
    ------
    DataError
        If the set lacks a split or a column, or a row lacks a label.
    """
    read: list[Columns] = []
    names: Sequence[str] = ()
    for split in splits:
        if split not in found:
            raise DataError(
                f"{name} has no split {split!r}",
                f"splits: {', '.join(found)}",
                "set data.hub_splits to those to train, test and validate on, or take another set",
            )
        table, where = found[split], f"{name} {split}"
        classes = {c: getattr(table.features.get(c), "names", None) for c in table.column_names}
        coded = {column: kind for column, kind in classes.items() if kind}
        columns = find_columns(where, table.column_names, wanted, coded)
        names = names or coded.get(columns.names[1], ())
        values = {column: table[column] for column in columns.names}
        read.append(table_columns(where, columns, values, coded))
        wanted = Wanted(wanted.text, wanted.label)
    return read, tuple(names) or None


def choose_splits(
    found: Mapping[str, Any], name: str, given: Sequence[str]
) -> tuple[list[str], str]:
    """Choose the splits of training, test and validation, and say so where nobody named them.

    Returns
    -------
    (list of str, str)
        One to three splits in this order, an empty name where one is missing; and a line, or none.

    Raises
    ------
    DataError
        If none of several is called ``train``.
    """
    if given:
        if not given[0] or len(given) > 3:
            accepted = "the training split, and behind commas those of test and validation"
            given_text = f"data.hub_splits = {', '.join(given)!r}"
            raise DataError(given_text, accepted, f"name splits of {', '.join(found)}")
        return list(given), ""
    train = next(iter(found)) if len(found) == 1 else "train"
    if train not in found:
        raise DataError(
            f"{name}: the training rows may be any of the splits {', '.join(found)}",
            "one called train, or those that data.hub_splits names",
            "set data.hub_splits to the training split, and behind commas the test and validation",
        )
    test = "test" if "test" in found else ""
    usual = [split for split in ("validation", "valid", "val", "dev") if split in found]
    chosen = [train, test, *usual[:1]]
    named = ", ".join(split for split in chosen if split)
    return chosen, f"{name}: read are the splits {named} (data.hub_splits)"
