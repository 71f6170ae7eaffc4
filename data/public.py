"""Readers of the public data sets, TweetEval and Genomic Benchmarks: local folder or hub."""

from __future__ import annotations

from pathlib import Path

from data.checks import checked_dna, lines_of, number_labels, read_text, sorted_labels
from data.hub import read_hub
from data.rows import Corpus, Split
from data.tables import read_table
from federation import DataError, DataSettings, explain

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
        Texts as published.

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
    classes = _mapping(folder / "mapping.txt")
    splits = [_tweet_split(folder, split, classes) for split in ("train", "val", "test")]
    return Corpus(f"TweetEval {folder.name}", "text", classes, splits[0], splits[1], splits[2])


def _tweets_from_hub(task: str) -> Corpus:
    found = read_hub(TWEET_EVAL, task, "text", ("train", "validation", "test"))
    classes = found.classes or sorted_labels(found.splits["train"].labels)
    splits = [
        Split(part.texts, number_labels(part.labels, classes, f"{TWEET_EVAL} {task} {name}", True))
        for name, part in found.splits.items()
    ]
    return Corpus(f"TweetEval {task}", "text", classes, splits[0], splits[1], splits[2])


def _task_folder(path: Path, task: str) -> Path:
    # Upstream keeps the stance tasks in folders of their own: stance_abortion, stance/abortion.
    inner = [task, task.replace("stance_", "stance/")]
    places = [path, *(path / name for name in inner), *(path / "datasets" / name for name in inner)]
    for place in places:
        if (place / "train_text.txt").is_file():
            return place
    if not path.exists():
        raise DataError(explain(f"{path} does not exist", "a folder", "check data.path"))
    raise DataError(
        explain(
            f"no train_text.txt in {path} nor in {path / task}",
            "a folder in TweetEval's layout: {train,val,test}_text.txt, "
            "{train,val,test}_labels.txt, mapping.txt",
            "set data.path to the task's folder or the one above, and data.task to the task",
        )
    )


def _mapping(path: Path) -> tuple[str, ...]:
    names: dict[int, str] = {}
    for number, line in enumerate(lines_of(read_text(path)), start=1):
        if not line.strip():
            continue
        key, _, name = line.strip().partition("\t" if "\t" in line else " ")
        if not key.isdecimal() or not name.strip():
            raise DataError(
                explain(
                    f"{path}, line {number}: not a label and a name",
                    "label, tab, class name",
                    "correct the line",
                )
            )
        names[int(key)] = name.split("\t")[0].strip()
    if sorted(names) != list(range(len(names))) or len(set(names.values())) < max(2, len(names)):
        raise DataError(
            explain(
                f"{path} numbers or names its {len(names)} labels otherwise",
                "0, 1, 2 ... each once, two or more, with different names",
                "correct the file",
            )
        )
    return tuple(names[key] for key in sorted(names))


def _tweet_split(folder: Path, split: str, classes: tuple[str, ...]) -> Split:
    # Tweets hold other unicode line separators: only the newline ends a row.
    texts = lines_of(read_text(folder / f"{split}_text.txt"))
    path = folder / f"{split}_labels.txt"
    labels = [line.strip() for line in lines_of(read_text(path))]
    if len(texts) != len(labels):
        raise DataError(
            explain(
                f"{folder}: {len(texts)} lines in {split}_text.txt, {len(labels)} in "
                f"{split}_labels.txt",
                "as many labels as texts",
                "take both files from the same source",
            )
        )
    numbers = tuple(str(number) for number in range(len(classes)))
    return Split(tuple(texts), number_labels(labels, numbers, str(path), True))


def genomic(settings: DataSettings) -> Corpus:
    """Read a set of the Genomic Benchmarks.

    Parameters
    ----------
    settings : DataSettings
        `path` is a folder with ``train.csv`` and ``test.csv`` (columns ``seq,label``); empty:
        the hub set `hub_name`.

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
        if not folder.is_dir():
            raise DataError(
                explain(
                    f"{folder} is not a folder",
                    "a folder with train.csv and test.csv (columns seq,label)",
                    "check data.path",
                )
            )
        tables = [read_table(folder / f"{split}.csv", "seq", "label") for split in _SPLITS]
        texts, labels = [t.texts for t in tables], [t.labels for t in tables]
        name, where = folder.resolve().name, [str(folder / f"{split}.csv") for split in _SPLITS]
        known: tuple[str, ...] = ()
    else:
        found = read_hub(settings.hub_name, None, "seq", _SPLITS)
        parts = [found.splits[split] for split in _SPLITS]
        texts, labels = [p.texts for p in parts], [p.labels for p in parts]
        name, where = settings.hub_name, [f"{settings.hub_name} {split}" for split in _SPLITS]
        known = found.classes
    values = known or sorted_labels(labels[0])
    train, test = (
        Split(checked_dna(rows, place), number_labels(named, values, place, not settings.path))
        for rows, named, place in zip(texts, labels, where, strict=True)
    )
    return Corpus(name, "dna", _dna_names(name, values), train, None, test)


def _dna_names(name: str, values: tuple[str, ...]) -> tuple[str, ...]:
    """Name the two species where the set's name tells them and its labels do not."""
    if values == ("0", "1") and "human" in name.lower() and "worm" in name.lower():
        return ("human", "worm")
    return values
