"""What a site keeps of a run for its later messages: labels, features and soft labels, no rows.

A deployed client may be a new process for each message. With this file training and validation
neither read rows nor make features nor look for the fine-tuned model again. Its digest is in the
state that Flower keeps of the run, so that no other run's file is taken for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from core import private_folder, write_bytes

if TYPE_CHECKING:
    from data import Site
    from llm import Teacher

MOST_RUNS = 4
"""Runs of which a client keeps its files: as many may share a store at once without loss."""

TEACHER_ARRAYS = ("soft_logits", "val_logits", "soft_labels", "val_probabilities", "hidden")


@dataclass(frozen=True)
class Kept:
    """A site within one run, as later processes need it.

    Attributes
    ----------
    run : str
        The run's id and the client's index.
    adapter : str
        Digest of the shared adapter that the teacher and the features come from; empty for none.
    classes : int
        Of the whole federation.
    labels : mapping
        By split (``train``, ``validation``, ``test``), integers, (rows,).
    features : mapping
        Raw features by split, float32, (rows, d), as far as they were made.
    teacher : Teacher
        The site's.
    """

    run: str
    adapter: str
    classes: int
    labels: Mapping[str, npt.NDArray[np.int64]]
    features: Mapping[str, npt.NDArray[np.float32]]
    teacher: Teacher


def path_of(store: Path, client: int, run: str) -> Path:
    """Return where the file of a client and a run lies in its site's store."""
    name = hashlib.sha256(run.encode()).hexdigest()[:16]
    return store / "rounds" / f"client-{client}-{name}.npz"


def digest_of(site: Site) -> str:
    """Return the digest of all rows and labels of a site; it is for the site's own files."""
    from llm import content_key

    parts = (site.train, site.validation, site.test)
    return content_key([part.texts for part in parts], [part.labels for part in parts], {})


def write_kept(path: Path, kept: Kept) -> str:
    """Write the file, whole or not at all, for its owner alone; of older runs' some stay.

    Returns
    -------
    str
        The digest by which `read_kept` knows it again.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    from llm import FILE_MODE

    teacher = kept.teacher
    about = {
        "run": kept.run,
        "adapter": kept.adapter,
        "classes": kept.classes,
        "temperature": teacher.temperature,
        "metrics": teacher.metrics,
        "folder": None if teacher.folder is None else str(teacher.folder),
    }
    arrays: dict[str, Any] = {
        **{f"labels-{split}": labels for split, labels in kept.labels.items()},
        **{f"features-{split}": features for split, features in kept.features.items()},
        **{f"teacher-{name}": getattr(teacher, name) for name in TEACHER_ARRAYS},
    }
    content = io.BytesIO()
    np.savez(content, about=np.array(json.dumps(about)), **arrays)
    data = content.getvalue()

    private_folder(path.parent)
    write_bytes(path, data, mode=FILE_MODE)
    _forget_older(path)
    return hashlib.sha256(data).hexdigest()


def read_kept(path: Path, digest: str, run: str, adapter: str) -> Kept | None:
    """Return what was kept; None if it is gone, damaged, or of another run or adapter.

    Parameters
    ----------
    path : Path
        The file.
    digest : str
        What `write_kept` returned.
    run, adapter : str
        As in `Kept`.
    """
    from llm import Teacher

    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            return None
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = dict(file)
        about = json.loads(str(arrays.pop("about")))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if (about["run"], about["adapter"]) != (run, adapter):
        return None
    teacher = Teacher(
        **_named(arrays, "teacher-"),
        temperature=about["temperature"],
        metrics=about["metrics"],
        folder=None if about["folder"] is None else Path(about["folder"]),
    )
    labels, features = _named(arrays, "labels-"), _named(arrays, "features-")
    return Kept(run, adapter, about["classes"], labels, features, teacher)


def _forget_older(path: Path) -> None:
    """Remove what this client kept of runs before the latest few: any may still go on."""
    with contextlib.suppress(OSError):  # another process is at it too
        client = path.name.rpartition("-")[0]
        kept = sorted(path.parent.glob(f"{client}-*.npz"), key=lambda file: file.stat().st_mtime)
        for old in kept[:-MOST_RUNS]:
            old.unlink(missing_ok=True)


def _named(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
