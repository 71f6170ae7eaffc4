"""TweetEval: upstream's folders, or the set of the hub.

Barbieri et al. (2020), Findings of EMNLP, arXiv 2010.12421. The official val split is the server's
validation.
"""

from __future__ import annotations

from pathlib import Path

from core import DataError, DataSettings
from data.dataset import Columns, Dataset
from data.readers.columns import Wanted
from data.readers.content import lines_of, read_text
from data.readers.hub import hub_columns, load_hub

HUB_NAME = "cardiffnlp/tweet_eval"


class _TweetEval:
    """A task of TweetEval, from `data.path` or from the hub."""

    uses = ("data.path", "data.task")
    kind = "text"
    has_sites = False

    def __call__(self, settings: DataSettings) -> Dataset:
        """Read the task's three splits."""
        if not settings.path:
            found, splits = load_hub(HUB_NAME, settings.task), ("train", "test", "validation")
            what = f"{HUB_NAME} {settings.task}"
            (train, test, validation), names = hub_columns(found, what, splits, Wanted())
            name = f"TweetEval {settings.task}"
            return Dataset(train, test, validation, classes=names, name=name)
        folder = _task_folder(Path(settings.path).expanduser(), settings.task)
        # The stance tasks share one mapping, in the folder above theirs.
        above = folder.parent / "mapping.txt"
        own = folder / "mapping.txt"
        classes = _mapping(above if above.is_file() and not own.is_file() else own)
        train, validation, test = (_split(folder, split) for split in ("train", "val", "test"))
        return Dataset(train, test, validation, classes=classes, name=f"TweetEval {folder.name}")


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


def _mapping(path: Path) -> dict[str, str]:
    """Return the class names by label, in order."""
    names: dict[int, str] = {}
    for number, line in enumerate(lines_of(read_text(path)[0]), start=1):
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
    return {str(key): names[key] for key in sorted(names)}


def _split(folder: Path, split: str) -> Columns:
    # Tweets hold other unicode line separators: only the newline ends a row.
    file, path = folder / f"{split}_text.txt", folder / f"{split}_labels.txt"
    texts = lines_of(read_text(file)[0])
    labels = [line.strip() for line in lines_of(read_text(path)[0])]
    if len(texts) != len(labels):
        raise DataError(
            f"{folder}: {len(texts)} lines in {split}_text.txt, {len(labels)} in "
            f"{split}_labels.txt",
            "as many labels as texts",
            "take both files from the same source",
        )
    lines = range(1, len(texts) + 1)
    return Columns(texts, labels, (), str(file), lines, labels_where=str(path))


DATASET = _TweetEval()
