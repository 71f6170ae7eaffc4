"""Which model a setting names, where its files are, and what identifies its weights.

Nothing here loads a model: a missing, gated or unreachable one is reported in one
line, before any weight is read.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core import ModelError, explain, hub_reachable, registry
from llm.gguf_files import is_gguf, unpack
from llm.protocol import Kind, Progress, silent

TRANSFORMERS = (
    "a folder of a transformers model, a hub id such as gpt2, a GGUF file, or one on the hub as "
    "org/repo:file.gguf"
)
ACCEPTED = f"{', '.join(registry.shipped('model'))}, {TRANSFORMERS}"
WHOLE = (
    "a whole, undamaged transformers model that can classify sequences, without code of its own, "
    "and its tokenizer"
)
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_HUB_FILE = re.compile(r"(\w[\w.-]*/[\w.-]+):(.+)")
_SMALL_FILE = 1_000_000
_BLOCKS, _BLOCK = 256, 4096  # of a large file, spread evenly over it


@dataclass(frozen=True)
class Source:
    """A model that was found.

    Attributes
    ----------
    name : str
        What the user calls it.
    folder : Path or None
        Its files; None for dna-tiny, whose weights are in the package.
    hub_id : str
        Its hub id, or empty.
    local_only : bool
        Whether the hub cannot be reached, so that only its cache is read.
    identity : str
        Changes when the weights do.
    layers : int
        First layers that embeddings and classifiers use; 0: all.
    """

    name: str
    folder: Path | None
    hub_id: str
    local_only: bool
    identity: str
    layers: int = 0

    @property
    def packaged(self) -> bool:
        """Whether its weights are in the package (dna-tiny)."""
        return self.folder is None

    def first(self, layers: int) -> Source:
        """Return the same model of its first layers only; 0: of all.

        Raises
        ------
        core.ModelError
            For dna-tiny, which has two.
        """
        if not layers:
            return self
        if self.packaged:
            raise ModelError(f"llm.layers with llm.model {self.name}", "0", "leave it out")
        # A hub id's revision stays readable before the comma (llm_qfl/model/encoders.py).
        return replace(self, layers=layers, identity=f"{self.identity}, first {layers} layers")

    @property
    def short(self) -> str:
        """Its name for a line of progress: of a folder or hub id the last part."""
        return Path(self.name).name or self.name

    @property
    def place(self) -> str:
        """What transformers should load: the hub id or the folder."""
        return self.hub_id or str(self.folder)

    @property
    def loading(self) -> dict[str, Any]:
        """Arguments of every ``from_pretrained``: its place, and none of the code beside it."""
        return {
            "pretrained_model_name_or_path": self.place,
            "local_files_only": self.local_only,
            "trust_remote_code": False,
        }

    @property
    def loading_weights(self) -> dict[str, Any]:
        """Arguments that load this very model: transformers attaches an adapter that lies beside.

        The folder in which it is then made to look for one does not exist.
        """
        return {**self.loading, "adapter_kwargs": {"subfolder": "no-adapter"}}


def locate(
    name: str,
    setting: str = "llm.model",
    accepted: str = ACCEPTED,
    progress: Progress = silent,
) -> Source:
    """Find a transformers model by folder, GGUF file or hub id.

    Parameters
    ----------
    name : str
        A folder, a hub id, a GGUF file, or one of the hub as ``org/repo:file.gguf``.
    setting, accepted : str
        The setting that names it, and what that takes, for messages.
    progress : callable
        Gets lines while a GGUF file is unpacked.

    Raises
    ------
    core.ModelError
        If it is missing, not a model, gated or not reachable.
    """
    given = _Setting(setting, name, accepted)
    if not name:
        raise ModelError(f"{setting} is empty", accepted, "name a model")
    if is_gguf(name):
        unpacked, digest = unpack(_gguf_file(given), str(given), progress)
        return Source(name, unpacked, "", True, f"gguf:{digest}")
    folder = Path(name).expanduser()
    if folder.exists() or _looks_like_path(name):
        return _folder(given, folder)
    return _hub(given)


@dataclass(frozen=True)
class _Setting:
    """For messages: a setting, its value, and what it accepts."""

    key: str
    name: str
    accepted: str

    def __str__(self) -> str:
        return f"{self.key} {self.name}"


def auto_name(kind: Kind) -> str:
    """Return what ``auto`` means for such rows: dna-tiny for DNA, minilm for text."""
    names = registry.shipped("model")
    return next(name for name in names if registry.declared("model", name, "auto_for") == kind)


def find_generator(name: str, setting: str, accepted: str) -> Source:
    """Find a model that writes text: a shipped one that declares ``generates``, or as `locate`.

    Raises
    ------
    core.ModelError
        As `locate`; and of a shipped model that is not installed.
    """
    if name in registry.shipped("model") and registry.declared("model", name, "generates"):
        return resolve(name, "text")
    return locate(name, setting, accepted)


def resolve(model: str, kind: Kind, progress: Progress = silent, *, layers: int = 0) -> Source:
    """Find the transformers model that `llm.model` names.

    Parameters
    ----------
    model : str
        ``auto``, ``dna-tiny``, ``minilm``, ``smollm2``, or as `locate` takes it.
    kind : {"text", "dna"}
        What the rows are; ``auto`` is dna-tiny for DNA and minilm for text.
    progress : callable
        Gets lines while a GGUF file is unpacked.
    layers : int
        `llm.layers`.

    Raises
    ------
    core.ModelError
        If it is not installed, missing, not a model, gated or not reachable, or cannot read
        such rows; or if it is a local model of another kind.
    """
    name = auto_name(kind) if model == "auto" else model
    find_source = registry.declared("model", name, "find_source")
    if find_source is None:
        raise ModelError(f"llm.model {name} is no transformers model", ACCEPTED, "name one")
    source: Source = find_source(name, kind, progress)
    return source.first(layers)


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "~", "/")) or os.sep * 2 in name or name.count("/") > 1


def _gguf_file(given: _Setting) -> Path:
    """Return a GGUF file, of the hub if it is named as a file of a repository."""
    of_hub = _HUB_FILE.fullmatch(given.name)
    if of_hub is None or Path(given.name).exists():
        return Path(given.name).expanduser()
    return _from_hub(given, *of_hub.groups())[0]


def _folder(given: _Setting, folder: Path) -> Source:
    name = given.name
    if not folder.exists():
        raise ModelError(f"{given}: there is no such folder", given.accepted, "correct the path")
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise ModelError(
                f"{given} is an adapter without its base model",
                "a whole model, with config.json and its own weights",
                "merge the adapter into its base (merge_and_unload, save_pretrained) and name "
                "that folder, or name the base model",
            )
        raise ModelError(
            f"{given} is not a transformers model: it has no config.json",
            "a folder written by save_pretrained, with model and tokenizer",
            "name the folder that holds config.json",
        )
    check_tokenizer(name, folder, given.key)
    return Source(name, folder, "", True, "folder:" + _fingerprint(folder))


def check_tokenizer(name: str, folder: Path, setting: str = "llm.model") -> None:
    """Refuse a model folder without any tokenizer file.

    transformers would make up an empty tokenizer, for which every word is unknown.

    Raises
    ------
    core.ModelError
        If none is there.
    """
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise ModelError(
            f"{setting} {name} has no tokenizer in {folder}",
            "one of " + ", ".join(TOKENIZER_FILES) + " beside config.json",
            "save the model's tokenizer there too (tokenizer.save_pretrained)",
        )


def sha256(path: Path) -> str:
    """Return a file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fingerprint(folder: Path) -> str:
    # Copies on other machines are the same model, so no times. Of large weights blocks here and
    # there, since reading gigabytes at every start would take minutes.
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        small = path.stat().st_size <= _SMALL_FILE
        part = sha256(path) if small else _sampled(path)
        digest.update(f"{path.name}={part}\n".encode())
    return digest.hexdigest()


def _sampled(path: Path) -> str:
    """Return a hash of a large file's size, its first megabyte, and blocks all through it."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_SMALL_FILE))
        for number in range(1, _BLOCKS + 1):
            file.seek((size - _BLOCK) * number // _BLOCKS)
            digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def _hub(given: _Setting) -> Source:
    name = given.name
    config, local_only = _from_hub(given, name, "config.json")
    folder = config.parent
    return Source(name, folder, name, local_only, f"hub:{name}@{folder.name}")


def _from_hub(given: _Setting, repository: str, file: str) -> tuple[Path, bool]:
    """Fetch a file of a repository; return it, and whether the hub cannot be reached."""
    from huggingface_hub import errors, hf_hub_download

    local_only = not hub_reachable()
    try:
        return Path(hf_hub_download(repository, file, local_files_only=local_only)), local_only
    except (OSError, ValueError, errors.EntryNotFoundError) as error:
        raise ModelError(_hub_problem(given, error, file)) from error


def _hub_problem(given: _Setting, error: Exception, file: str) -> str:
    """Return the message for an error of the hub client."""
    from huggingface_hub import errors

    page = f"https://huggingface.co/{given.name.partition(':')[0]}"
    if isinstance(error, errors.GatedRepoError):
        return explain(
            f"{given} is gated on the hub",
            "a model whose terms your account has accepted",
            f"accept them at {page}, then run `hf auth login` or set HF_TOKEN",
        )
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        what = f"{given} is neither a folder nor a public model on the hub"
        fix = "check the spelling; for a private one run `hf auth login` or set HF_TOKEN"
        return explain(what, given.accepted, fix)
    if isinstance(error, errors.LocalEntryNotFoundError):
        return offline(given.name, given.key, given.accepted)
    if isinstance(error, errors.EntryNotFoundError):
        what = f"{given} on the hub has no {file}"
        return explain(what, "a transformers model, or a GGUF file", "choose another")
    what = f"{given} could not be fetched from the hub ({first_line(error)})"
    return explain(what, given.accepted, f"try again later, or set {given.key} to a folder")


def offline(name: str, setting: str = "llm.model", accepted: str = ACCEPTED) -> str:
    """Return the message for a hub model that is neither reachable nor wholly in the cache."""
    command = f"hf download {name.replace(':', ' ')}"
    return explain(
        f"{setting} {name} is no folder here, the hub cannot be reached, and its cache "
        "does not hold the model",
        accepted,
        f"run `{command}` where there is a network, or set {setting} to a folder",
    )


@contextmanager
def loading(
    source: Source, setting: str = "llm.model", accepted: str = ACCEPTED, whole: str = WHOLE
) -> Iterator[None]:
    """Turn what a loader raises on a damaged or foreign model into an error of one line.

    Parameters
    ----------
    source : Source
        The model that is being loaded.
    setting, accepted : str
        As in `locate`.
    whole : str
        What the model has to be, for the message.

    Raises
    ------
    core.ModelError
        Instead of any other exception: loaders raise nearly everything.
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        if source.hub_id and source.local_only and isinstance(error, OSError):
            raise ModelError(offline(source.name, setting, accepted)) from error
        raise ModelError(
            f"{setting} {source.name} cannot be loaded ({type(error).__name__}: "
            f"{first_line(error)})",
            whole,
            "save or download it again, or choose another model",
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, without a final dot or colon."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip().rstrip(".:")[:200]
