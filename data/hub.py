"""Public data sets from the hub, through the `datasets` package (imported only here)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core import DataError, hub_reachable


@dataclass(frozen=True)
class HubSplit:
    """One split of a hub data set.

    Attributes
    ----------
    texts : tuple of str
        The text column.
    labels : tuple of str
        The label column as text; class names where the set has them.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class HubData:
    """A hub data set: its splits by name, and its class names where it has any."""

    splits: Mapping[str, HubSplit]
    classes: tuple[str, ...]


def read_hub(name: str, config: str | None, text: str, splits: tuple[str, ...]) -> HubData:
    """Fetch a data set from the hub, or take it from the cache of `datasets`.

    Parameters
    ----------
    name : str
        Hub id.
    config : str or None
        Its configuration, for instance a TweetEval task.
    text : str
        Name of the text column; the label column is ``label``.
    splits : tuple of str
        The splits that are needed.

    Returns
    -------
    HubData
        Rows as text.

    Raises
    ------
    DataError
        If `datasets` is not installed, the hub cannot be reached, the set is unknown, or it
        lacks a split or a column.
    """
    what = f"hub data set {name}" + (f" ({config})" if config else "")
    found = _load(name, config, what)
    columns: dict[str, HubSplit] = {}
    names: tuple[str, ...] = ()
    for split in splits:
        if split not in found:
            raise _unsuitable(what, f"no split {split!r}", "splits", list(found))
        table = found[split]
        for column in (text, "label"):
            if column not in table.column_names:
                raise _unsuitable(what, f"no column {column!r}", "columns", table.column_names)
        names = tuple(getattr(table.features["label"], "names", None) or ())
        labels = [str(names[value]) if names else str(value) for value in table["label"]]
        columns[split] = HubSplit(tuple(table[text]), tuple(labels))
    return HubData(columns, names)


def _load(name: str, subset: str | None, what: str) -> Mapping[str, Any]:
    try:
        from datasets import config, load_dataset
    except ImportError as error:
        raise DataError(
            f"{what} needs the package datasets, which is not installed",
            "an installed datasets package, or a local copy of the data",
            "pip install datasets, or set data.path",
        ) from error
    # It would try for 25 s to reach a hub that is not there before it looks into its cache.
    config.HF_HUB_OFFLINE = not hub_reachable()
    try:
        found: Mapping[str, Any] = load_dataset(name, subset)
    except Exception as error:  # whatever the network, the cache or the hub's files raise
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        raise DataError(
            f"{what} could not be loaded ({reason})",
            "one that the hub or its cache has, or local files",
            "check the network and the name, or set data.path to a local copy",
        ) from error
    return found


def _unsuitable(what: str, lacks: str, kind: str, present: list[str]) -> DataError:
    return DataError(
        f"{what} has {lacks}", f"{kind}: " + ", ".join(present), "choose another data set"
    )
