"""The language model that makes a trained model's features: found again, or taken along."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from core import LlmSettings, ModelError

ENCODER = "encoder"
"""Folder of a saved model that holds its encoder, where it was taken along."""

TAKEN = ("*.json", "*.txt", "*.model", "*.safetensors")
"""Files of an encoder that are taken along: no pickle, no code."""


def find_encoder(
    settings: LlmSettings, kind: Literal["text", "dna"], identity: str, folder: Path
) -> LlmSettings:
    """Return the settings of the encoder that a model was trained with.

    Parameters
    ----------
    settings : LlmSettings
        As the run had them.
    kind : {"text", "dna"}
        What a row is.
    identity : str
        What identifies the encoder's weights; empty: whatever the settings name.
    folder : Path
        The model's folder, which may hold the encoder.

    Raises
    ------
    ModelError
        If it is not there, or is another one.
    """
    from llm import ModelContext, build_encoder

    if (folder / ENCODER).is_dir() and identity.startswith("folder:"):
        settings = _encoded_by(settings, folder / ENCODER)
    encoder = build_encoder(ModelContext(kind=kind, settings=settings))
    if not identity or encoder.identity == identity:
        return settings
    source = getattr(encoder.model, "source", None)  # of a transformer
    if source and source.hub_id and identity.startswith(f"hub:{source.hub_id}@"):
        place = _at_revision(
            source.hub_id, identity.rpartition("@")[2].partition(",")[0], local=source.local_only
        )
        return _encoded_by(settings, place)
    raise ModelError(
        f"the encoder {encoder.name} is not the one that the model was trained with",
        f"the weights {identity[:60]}",
        "put that model back (llm.model), or train again",
    )


def _encoded_by(settings: LlmSettings, folder: Path) -> LlmSettings:
    from llm import encoder_choice

    own = {"model": str(folder), "encoder": "auto", "options": ""}
    return settings.model_copy(update={**own, "layers": encoder_choice(settings)[1]})


def _at_revision(hub_id: str, revision: str, *, local: bool) -> Path:
    """Return the folder of a hub model as it was at a revision."""
    from huggingface_hub import errors, snapshot_download

    try:
        found = snapshot_download(
            hub_id, revision=revision, local_files_only=local, allow_patterns=list(TAKEN)
        )
    except (OSError, ValueError, errors.HfHubHTTPError) as error:
        raise ModelError(
            f"the encoder {hub_id} at revision {revision[:12]} cannot be had "
            f"({type(error).__name__})",
            "the revision that the model was trained with",
            f"run hf download {hub_id} --revision {revision} where there is a network",
        ) from None
    return Path(found)


def take_along(source: Path, target: Path) -> None:
    """Copy an encoder's files into a model's folder.

    Raises
    ------
    ModelError
        If its weights are in no safetensors file.
    """
    files = [path for pattern in TAKEN for path in source.glob(pattern)]
    if not any(path.suffix == ".safetensors" for path in files):
        raise ModelError(
            f"the encoder in {source} has no *.safetensors",
            "weights in safetensors, which hold no code",
            "save it again with save_pretrained, or leave include_encoder out",
        )
    target.mkdir()
    for path in files:
        shutil.copyfile(path, target / path.name)
