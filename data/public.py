"""Readers of the public data sets, TweetEval and Genomic Benchmarks: local folder or hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import DataError, DataSettings, hub_reachable
from data.checks import checked_dna, number_labels, sorted_labels
from data.rows import Corpus, Split
from data.tables import Columns, read_table
from data.text import Place, clean_texts, lines_of, numbered, read_text


def read_hub(
    name: str, config: str | None, text: str, splits: tuple[str, ...]
) -> tuple[dict[str, Columns], tuple[str, ...]]:
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
    (dict, tuple of str)
        The splits by name, rows as text, and the class names where the set has them.

    Raises
    ------
    DataError
        If `datasets` is not installed, the hub cannot be reached, the set is unknown, or it
        lacks a split or a column.
    """
    what = f"hub data set {name}" + (f" ({config})" if config else "")
    found = _load(name, config, what)
    tables: dict[str, Columns] = {}
    names: tuple[str, ...] = ()
    for split in splits:
        if split not in found:
            raise _unsuitable(what, f"no split {split!r}", "splits", list(found))
        table = found[split]
        for column in (text, "label"):
            if column not in table.column_names:
                raise _unsuitable(what, f"no column {column!r}", "columns", table.column_names)
        names = tuple(getattr(table.features["label"], "names", None) or ())
        labels = tuple(str(names[value]) if names else str(value) for value in table["label"])
        tables[split] = Columns(tuple(table[text]), labels)
    return tables, names


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


TWEET_EVAL = "cardiffnlp/tweet_eval"
_SPLITS = ("train", "test")


def tweet_eval(settings: DataSettings) -> Corpus:
    """Read a TweetEval task; its official val split becomes `Corpus.validation`.

    Parameters
    ----------
    settings : DataSettings
        `path` is the task's folder in upstream's layout or the folder above it; empty: the hub
        set ``cardiffnlp/tweet_eval`` with the task as configuration.

    Returns
    -------
    Corpus
        Texts as published, but for `data.text.clean_texts`.

    Raises
    ------
    DataError
        For a missing or malformed file, or if the hub cannot be reached.

    References
    ----------
    Barbieri et al. (2020), Findings of EMNLP, arXiv 2010.12421.
    """
    if not settings.path:
        return _tweets_from_hub(settings.task)
    folder = _task_folder(Path(settings.path).expanduser(), settings.task)
    # The stance tasks share one mapping, in the folder above theirs.
    above = folder.parent / "mapping.txt"
    own = folder / "mapping.txt"
    classes = _mapping(above if above.is_file() and not own.is_file() else own)
    parts = [_tweet_split(folder, split, classes) for split in ("train", "val", "test")]
    (train, validation, test), notes = zip(*parts, strict=True)
    all_notes = tuple(note for part in notes for note in part)
    name = f"TweetEval {folder.name}"
    return Corpus(name, "text", classes, train, validation, test, notes=all_notes)


def _tweets_from_hub(task: str) -> Corpus:
    tables, classes = read_hub(TWEET_EVAL, task, "text", ("train", "validation", "test"))
    classes = classes or sorted_labels(tables["train"].labels)
    splits, notes = [], list[str]()
    for name, part in tables.items():
        place = numbered(f"{TWEET_EVAL} {task} {name}")
        texts, found_notes = clean_texts(part.texts, place)
        splits.append(Split(texts, number_labels(part.labels, classes, place, True)))
        notes += found_notes
    train, validation, test = splits
    name = f"TweetEval {task}"
    return Corpus(name, "text", classes, train, validation, test, notes=tuple(notes))


def _task_folder(path: Path, task: str) -> Path:
    # Upstream keeps the stance tasks in folders of their own: stance_abortion, stance/abortion.
    inner = [task, task.replace("stance_", "stance/")]
    places = [path, *(path / name for name in inner), *(path / "datasets" / name for name in inner)]
    for place in places:
        if (place / "train_text.txt").is_file():
            return place
    if not path.exists():
        raise DataError(f"{path} does not exist", "a folder", "check data.path")
    raise DataError(
        f"no train_text.txt in {path} nor in {path / task}",
        "a folder in TweetEval's layout: {train,val,test}_text.txt, "
        "{train,val,test}_labels.txt, mapping.txt",
        "set data.path to the task's folder or the one above, and data.task to the task",
    )


def _mapping(path: Path) -> tuple[str, ...]:
    names: dict[int, str] = {}
    for number, line in enumerate(lines_of(read_text(path)), start=1):
        if not line.strip():
            continue
        key, _, name = line.strip().partition("\t" if "\t" in line else " ")
        if not key.isdecimal() or not name.strip():
            raise DataError(
                f"{path}, line {number}: not a label and a name",
                "label, tab, class name",
                "correct the line",
            )
        names[int(key)] = name.split("\t")[0].strip()
    if sorted(names) != list(range(len(names))) or len(set(names.values())) < max(2, len(names)):
        raise DataError(
            f"{path} numbers or names its {len(names)} labels otherwise",
            "0, 1, 2 ... each once, two or more, with different names",
            "correct the file",
        )
    return tuple(names[key] for key in sorted(names))


def _tweet_split(
    folder: Path, split: str, classes: tuple[str, ...]
) -> tuple[Split, tuple[str, ...]]:
    # Tweets hold other unicode line separators: only the newline ends a row.
    file = folder / f"{split}_text.txt"
    texts = lines_of(read_text(file))
    path = folder / f"{split}_labels.txt"
    labels = [line.strip() for line in lines_of(read_text(path))]
    if len(texts) != len(labels):
        raise DataError(
            f"{folder}: {len(texts)} lines in {split}_text.txt, {len(labels)} in "
            f"{split}_labels.txt",
            "as many labels as texts",
            "take both files from the same source",
        )
    numbers = tuple(str(number) for number in range(len(classes)))
    cleaned, notes = clean_texts(texts, numbered(str(file), "line"))
    place = numbered(str(path), "line")
    return Split(cleaned, number_labels(labels, numbers, place, True)), notes


def genomic(settings: DataSettings) -> Corpus:
    """Read a set of the Genomic Benchmarks.

    Parameters
    ----------
    settings : DataSettings
        `path` is a folder as the package downloads it, a folder a class and a file a sequence
        (``train/positive/0.txt``), or one with ``train.csv`` and ``test.csv`` (columns
        ``seq,label``); empty: the hub set `hub_name`.

    Returns
    -------
    Corpus
        Upper-case sequences; no official validation split.

    Raises
    ------
    DataError
        For a missing or malformed file, or if the hub cannot be reached.

    References
    ----------
    Gresova et al. (2023), BMC Genomic Data 24:25.
    """
    if settings.path:
        folder = Path(settings.path).expanduser()
        name = folder.resolve().name
        known: tuple[str, ...] = ()
        splits = _genomic_folder(folder)
    else:
        name = settings.hub_name
        tables, known = read_hub(name, None, "seq", _SPLITS)
        splits = [(numbered(f"{name} {split}"), table) for split, table in tables.items()]
    values = known or sorted_labels(splits[0][1].labels)
    parts, notes = [], list[str]()
    for place, rows in splits:
        sequences, found_notes = checked_dna(rows.texts, place)
        labels = number_labels(rows.labels, values, place, not settings.path)
        parts.append(Split(sequences, labels))
        notes += [*rows.notes, *found_notes]
    names = _dna_names(name, values)
    return Corpus(name, "dna", names, parts[0], None, parts[1], notes=tuple(notes))


def _genomic_folder(folder: Path) -> list[tuple[Place, Columns]]:
    """Read both splits in whichever of the two layouts the folder is."""
    layout = "a folder with train.csv and test.csv (columns seq,label), or with a folder a class "
    layout += "in train and in test and a file a sequence in it"
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", layout, "check data.path")
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        return [_class_folders(folder / split, layout) for split in _SPLITS]
    found = []
    for split in _SPLITS:
        file = folder / f"{split}.csv"
        if not file.is_file():
            raise DataError(f"{file} does not exist", layout, "check data.path")
        table = read_table(file, "seq", "label")
        found.append((numbered(str(file), "line", table.lines), table))
    return found


def _class_folders(folder: Path, layout: str) -> tuple[Place, Columns]:
    """Read a folder a class and a file a sequence, by name and by number."""
    files = sorted(folder.glob("*/*.txt"), key=lambda f: (f.parent.name, len(f.stem), f.stem))
    if not files:
        fix = "download the set with the genomic_benchmarks package, or check data.path"
        raise DataError(f"{folder} has no files */*.txt", layout, fix)
    texts = tuple(read_text(file).strip() for file in files)
    return lambda row: str(files[row]), Columns(texts, tuple(f.parent.name for f in files))


def _dna_names(name: str, values: tuple[str, ...]) -> tuple[str, ...]:
    """Name the two species where the set's name tells them and its labels do not."""
    if values == ("0", "1") and "human" in name.lower() and "worm" in name.lower():
        return ("human", "worm")
    return values
