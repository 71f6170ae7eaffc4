"""``model.json``: what a trained model needs to predict, beside its arrays.

A run folder and a saved model hold the same files: ``model.json`` says how rows become features
and which circuit takes them, and ``model.safetensors`` holds the parameters and the projection.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from core.errors import DataError
from core.formatting import split_list
from core.settings.schema import FIELDS, Settings, with_former
from core.storage.files import json_object, read_file, write_json
from core.storage.record_types import Names, Scalars
from core.storage.records import Part

FORMAT = 1
MODEL_FILE = "model.json"

NEEDED = ("features", "quantum", "hardware", "llm")
"""Sections of the settings that predictions depend on."""

PLACES = ("hardware.account", "llm.store")
"""Settings in them that are a machine's own."""


class ModelFile(Part):
    """``model.json``.

    Attributes
    ----------
    format : int
        Version of this file.
    classes : list of str
        Class names, in order of the probabilities.
    kind : str
        What a row is: ``text`` or ``dna``.
    data : str
        Name of the data that it was trained on.
    encoder : str
        Identity of the language model whose embeddings are the features; empty: none, or unknown.
    code : dict
        sha256 of the user's own files by extension point.
    settings : dict
        The sections `NEEDED`, ``run.seed`` and ``data.text_column``; ``features.kind`` as it came
        out.
    files : dict
        sha256 of the files beside this one.
    """

    format: Literal[1]
    classes: Annotated[Names, Field(min_length=2)]
    kind: Literal["text", "dna"]
    data: str = ""
    encoder: str = ""
    code: Annotated[dict[str, str], Field(default_factory=dict)]
    settings: Scalars
    files: dict[str, str]

    def whole_settings(self) -> Settings:
        """Return the settings as a tree; what predictions do not depend on has its default.

        Raises
        ------
        DataError
            If this version does not know one of them, or it is out of bounds.
        """
        for section, part in self.settings.items():
            for key in part:
                if f"{section}.{key}" not in FIELDS:
                    raise DataError(
                        f"a model with the setting {section}.{key}",
                        "a model of this version of LLM-QFL",
                        "update LLM-QFL, or train it again",
                    )
        try:
            return Settings.model_validate(with_former(self.settings))
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"][:2]))  # behind it: of a union
            given = f"a model whose {where} cannot be used"
            fix = "update LLM-QFL, or train it again"
            raise DataError(given, "a model of this version of LLM-QFL", fix) from None


def model_settings(settings: Settings, feature_kind: str) -> dict[str, dict[str, Any]]:
    """Return the settings that predictions depend on.

    Parameters
    ----------
    settings : Settings
        The run's.
    feature_kind : str
        The features that `features.kind` came out as.

    Returns
    -------
    dict
        By section; the backend is the one that the server evaluates on, without budgets.
    """
    quantum = settings.quantum.model_copy(update={"backend": settings.evaluation.backend})
    hardware = settings.hardware.without_budgets()
    features = settings.features.model_copy(update={"kind": feature_kind})
    llm = settings.llm
    if "embedding" not in split_list(feature_kind) or llm.encoder != "auto":
        # A teacher predicts nothing; beside "none" the layers are the encoder's.
        layers = 0 if llm.encoder == "auto" else llm.encoder_layers
        own = {"model": "none" if layers else "auto", "options": "", "layers": layers}
        llm = llm.model_copy(update=own)
    used = settings.model_copy(
        update={"quantum": quantum, "hardware": hardware, "features": features, "llm": llm}
    ).model_dump(include=set(NEEDED))
    for key in PLACES:
        section, _, leaf = key.partition(".")
        used[section][leaf] = FIELDS[key].default
    read = {"text_column": settings.data.text_column}
    return {"run": {"seed": settings.run.seed}, "data": read, **used}


def write_model_file(folder: Path, facts: dict[str, Any], names: tuple[str, ...]) -> None:
    """Write ``model.json`` into a folder, with the digests of the files beside it."""
    files = {name: file_digest(folder / name) for name in names}
    write_json(folder / MODEL_FILE, {"format": FORMAT, **facts, "files": files})


def read_model_file(folder: Path) -> ModelFile:
    """Read ``model.json``, and check the files that it names.

    Raises
    ------
    DataError
        If it is no such file, of another version, or a file beside it is missing or changed.
    OSError
        If it cannot be read; `FileNotFoundError` where there is none.
    """
    path = folder / MODEL_FILE
    found = json_object(read_file(path))
    whole, fix = "a model.json as a run or Model.save writes it", "copy the folder again"
    if found is None:
        raise DataError(f"{path} is no JSON object", whole, fix)
    if found.get("format") != FORMAT:
        given = f"{path} is of format {str(found.get('format'))[:20]!r}"
        raise DataError(given, f"format {FORMAT}", "use the version of LLM-QFL that wrote it")
    try:
        model = ModelFile.model_validate(found)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise DataError(f"{path} has no usable {where!r}", whole, fix) from None
    for name, digest in model.files.items():
        if Path(name).name != name or not (folder / name).is_file():
            raise DataError(f"{folder} lacks {name!r}, which its {MODEL_FILE} names", whole, fix)
        if file_digest(folder / name) != digest:
            given = f"{folder / name} is not the file that {MODEL_FILE} was written for"
            raise DataError(given, f"the sha256 {digest[:12]}…", fix)
    return model


def file_digest(path: Path) -> str:
    """Return the sha256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
