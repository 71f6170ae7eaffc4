"""What a site stores of a run for its later messages: labels, features and soft labels, no rows.

A deployed client may be a new process for each message. With this entry training and validation
neither read rows nor make features nor look for the fine-tuned model again. Its digest is in the
state that Flower stores of the run, so that no other run's entry is taken for it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from core import ContentStore

if TYPE_CHECKING:
    from data import Site
    from llm import Teacher

MOST_RUNS = 4
"""Runs of which a client stores its arrays: as many may use a store at once without loss."""

ARRAYS = "site.npz"
TEACHER_ARRAYS = (
    "soft_logits",
    "val_logits",
    "soft_labels",
    "val_probabilities",
    "hidden",
    "extra_soft_labels",
)


@dataclass(frozen=True)
class StoredSite:
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


def site_digest(site: Site) -> str:
    """Return the digest of all rows and labels of a site; it is for the site's own files."""
    from llm import content_key

    texts, labels = [part.texts for part in site.parts], [part.labels for part in site.parts]
    return content_key(texts, labels, {})


def write_site(store: Path, client: int, site: StoredSite) -> str:
    """Store a site's arrays for its owner alone; only the entries of the latest runs stay.

    Parameters
    ----------
    store, client : Path and int
        The site's store, and its client's index.

    Returns
    -------
    str
        The digest with which `read_site` recognises the entry.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    teacher = site.teacher
    about = {
        "run": site.run,
        "adapter": site.adapter,
        "classes": site.classes,
        "temperature": teacher.temperature,
        "metrics": teacher.metrics,
        "folder": None if teacher.folder is None else str(teacher.folder),
    }
    arrays: dict[str, Any] = {
        **{f"labels-{split}": labels for split, labels in site.labels.items()},
        **{f"features-{split}": features for split, features in site.features.items()},
        **{f"teacher-{name}": getattr(teacher, name) for name in TEACHER_ARRAYS},
    }
    content = io.BytesIO()
    np.savez(content, about=np.array(json.dumps(about)), **arrays)
    data = content.getvalue()

    entries = _entries(store)
    entries.write(_key(client, site.run), lambda folder: (folder / ARRAYS).write_bytes(data))
    entries.keep_newest(f"client-{client}-", MOST_RUNS)
    return hashlib.sha256(data).hexdigest()


def read_site(store: Path, client: int, run: str, adapter: str, digest: str) -> StoredSite | None:
    """Return a site's arrays; None if they are gone, damaged, or of another run or adapter.

    Parameters
    ----------
    store, client
        As in `write_site`.
    run, adapter : str
        As in `StoredSite`.
    digest : str
        What `write_site` returned.
    """
    from llm import Teacher

    def load(folder: Path) -> StoredSite | None:
        data = (folder / ARRAYS).read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            return None
        with np.load(io.BytesIO(data)) as file:
            arrays = dict(file)
        about = json.loads(str(arrays.pop("about")))
        if (about["run"], about["adapter"]) != (run, adapter):
            return None
        teacher = Teacher(
            **_named(arrays, "teacher-"),
            temperature=about["temperature"],
            metrics=about["metrics"],
            folder=None if about["folder"] is None else Path(about["folder"]),
        )
        labels, features = _named(arrays, "labels-"), _named(arrays, "features-")
        return StoredSite(run, adapter, about["classes"], labels, features, teacher)

    return _entries(store).read(_key(client, run), load)


def _entries(store: Path) -> ContentStore:
    return ContentStore(store / "rounds")


def _key(client: int, run: str) -> str:
    return f"client-{client}-{hashlib.sha256(run.encode()).hexdigest()[:16]}"


def _named(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
