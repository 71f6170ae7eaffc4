"""Saving a model as a folder of its own, and handing it to the Hugging Face hub.

The folder holds what a run folder holds of a model (`core.model_file`), what its run found
(``run.json``), a card (``README.md``) and, if wanted, the encoder. No pickle, no code.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from core import ModelError, UserError, real_path, unexpected_error, write_json, write_text
from core.model_file import write_model_file
from llm_qfl.model.card import card
from llm_qfl.model.encoders import ENCODER, take_along
from llm_qfl.model.predictor import ADAPTER, ARRAYS, Predictor
from llm_qfl.model.run_facts import RUN_FILE


def save(model: Predictor, folder: str | Path, *, include_encoder: bool = False) -> Path:
    """Write a model into a folder, whole or not at all; as `Model.save`."""
    place = real_path(folder)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        given = f"{str(place)!r} is there, and not empty"
        raise UserError(given, "a new folder, or an empty one", "name another")
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{place.name[:100]}-", dir=place.parent))
    try:
        _fill(draft, model, include_encoder=include_encoder)
        draft.chmod(0o755)
        draft.replace(place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return place


def _fill(draft: Path, model: Predictor, *, include_encoder: bool) -> None:
    """Write everything into a folder that nobody sees yet; ``model.json`` last."""
    from strategies.journal import save_arrays

    about = model.about.model_dump(exclude={"format", "files"})
    save_arrays(draft / ARRAYS, dict(model.arrays))
    names = [ARRAYS]
    if model.adapter_arrays is not None:
        save_arrays(draft / ADAPTER, dict(model.adapter_arrays))
        names.append(ADAPTER)
    if include_encoder:
        about["encoder"] = _with_encoder(draft, model)
    write_json(draft / RUN_FILE, model.run)
    write_text(draft / "README.md", card(model))
    write_model_file(draft, about, (*names, RUN_FILE))


def _with_encoder(draft: Path, model: Predictor) -> str:
    """Take the encoder along; return its identity as a folder."""
    from llm import encoder_choice, resolve

    if not model.embeds:
        raise UserError(
            "include_encoder of a model whose features no language model makes",
            "include_encoder=False",
            "leave it out",
        )
    name, layers = encoder_choice(model.encoder)
    source = resolve(name, model.kind, layers=layers)
    if source.folder is None:
        return source.identity  # it comes with this package
    take_along(source.folder, draft / ENCODER)
    return resolve(str(draft / ENCODER), model.kind, layers=source.layers).identity


def push_to_hub(
    model: Predictor, repo_id: str, *, private: bool = True, include_encoder: bool = False
) -> str:
    """Save a model and upload it; as `Model.push_to_hub`."""
    from huggingface_hub import HfApi

    identity, name = model.about.encoder, str(model.settings.llm.model)
    own_file = identity.startswith("gguf:") and Path(name).is_absolute()
    needs = (own_file or identity.startswith("folder:")) and not include_encoder
    if needs and not (model.files.folder / ENCODER).is_dir():
        raise UserError(
            f"a model whose encoder is a file or folder of this machine ({name})",
            "an encoder that others have too, or include_encoder=True",
            "take it along with include_encoder=True",
        )
    api = HfApi()
    with tempfile.TemporaryDirectory() as parent:
        folder = save(model, Path(parent) / "model", include_encoder=include_encoder)
        try:
            url = api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message="Upload of LLM-QFL"
            )
        except Exception as error:  # the network, the hub and its client raise nearly everything
            raise _not_uploaded(repo_id, error) from error
    return str(url)


def _not_uploaded(repo_id: str, error: Exception) -> ModelError:
    """Say in one line why an upload failed; no token is part of what the client says."""
    status: Any = getattr(getattr(error, "response", None), "status_code", None)
    fix = "check the network, and HF_HUB_OFFLINE"
    if status in (401, 403) or "token" in type(error).__name__.lower():
        fix = "run hf auth login, or set HF_TOKEN to a token that may write there"
    elif type(error).__name__ == "HFValidationError":
        fix = "write USER/NAME"
    given = f"the model was not uploaded to {repo_id!r} ({unexpected_error(error)})"
    return ModelError(given, "a repository of the hub that you may write", fix)
