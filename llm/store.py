"""A site's memory of fine-tuned models: a folder per content hash, written whole or not at all.

An entry holds the adapter (safetensors), the raw logits (npz, no pickle) and ``meta.json``,
which lists the other files' sha256. An entry that does not match its list counts as absent.
Adapters, soft labels and embeddings tell of private texts: only their owner may read them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from core import private_folder

FORMAT = 1
FILE_MODE = 0o600
META, LOGITS = "meta.json", "logits.npz"


@dataclass(frozen=True)
class Entry:
    """What a fine-tuning left behind.

    Attributes
    ----------
    train_logits, val_logits : np.ndarray
        float32, (rows, C); no validation rows: (0, C).
    facts : dict
        JSON values: epochs, tokens, sizes, settings, model.
    folder : Path or None
        Where it is kept.
    extra : dict of np.ndarray
        What only some teachers are asked for, by name, (rows, ...).
    """

    train_logits: np.ndarray
    val_logits: np.ndarray
    facts: dict[str, Any]
    folder: Path | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def private_file(path: Path) -> None:
    """Let only its owner read and write a file."""
    path.chmod(FILE_MODE)


def content_key(
    texts: Sequence[Sequence[str]],
    labels: Sequence[np.ndarray],
    facts: Mapping[str, Any],
) -> str:
    """Return a hash of everything that a fine-tuning depends on.

    Parameters
    ----------
    texts : sequence of sequences of str
        Training and validation rows.
    labels : sequence of np.ndarray
        Their labels.
    facts : mapping
        Settings, seed, model identity; JSON values.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    digest = hashlib.sha256(json.dumps([FORMAT, facts], sort_keys=True).encode())
    for part, numbers in zip(texts, labels, strict=True):
        digest.update(f"rows {len(part)}\n".encode())
        for text in part:
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(f"{len(encoded)}:".encode() + encoded)
        digest.update(np.asarray(numbers, dtype="<i8").tobytes())
    return digest.hexdigest()[:32]


def folder_of(store: Path, key: str) -> Path:
    """Return where the entry of a key lives."""
    return store / "teachers" / key


def read_entry(store: Path, key: str) -> Entry | None:
    """Return the entry of a key, or None if there is none or it is damaged."""
    folder = folder_of(store, key)
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        if meta["key"] != key or any(
            _sha256(folder / name) != wanted for name, wanted in meta["files"].items()
        ):
            return None
        with np.load(folder / LOGITS, allow_pickle=False) as arrays:
            kept = dict(arrays)
        facts = dict(meta["facts"])
        return Entry(kept.pop("train"), kept.pop("val"), facts, folder, kept)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None


def write_entry(store: Path, key: str, entry: Entry, save_model: Callable[[Path], None]) -> Path:
    """Keep an entry; a reader sees all of it or nothing.

    Parameters
    ----------
    store : Path
        Folder of the memory; made if needed.
    key : str
        Content hash.
    entry : Entry
        Logits and facts.
    save_model : callable
        Writes the model's files into the folder that it is given.

    Returns
    -------
    Path
        The entry's folder.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    target = folder_of(store, key)
    private_folder(target.parent)
    # The temporary folder lies beside the target, so that the rename is one atomic step; mkdtemp
    # gives it to its owner alone.
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        save_model(fresh)
        arrays: dict[str, Any] = {"train": entry.train_logits, "val": entry.val_logits}
        np.savez(fresh / LOGITS, **arrays, **entry.extra)
        files = {path.name: _sha256(path) for path in sorted(fresh.iterdir())}
        meta = {"key": key, "files": files, "facts": entry.facts}
        (fresh / META).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
        for path in fresh.iterdir():
            private_file(path)
        _replace(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target


def _replace(fresh: Path, target: Path) -> None:
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=".old-", dir=target.parent))
        with contextlib.suppress(OSError):
            target.rename(old / "entry")
        shutil.rmtree(old, ignore_errors=True)
    # Another process with the same key may have been faster: its entry is as good.
    with contextlib.suppress(OSError):
        fresh.rename(target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
