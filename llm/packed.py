"""Weights as text: float16 safetensors in JSON; Flower's app bundle ships no binary file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from federation import ModelError, explain

if TYPE_CHECKING:
    import torch


def pack(state: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> str:
    """Return weights and metadata as the text of a shipped JSON file.

    Parameters
    ----------
    state : mapping of name to torch.Tensor
        Weights; stored as float16.
    metadata : mapping
        What the file should say of its making; must be JSON.

    Returns
    -------
    str
        JSON with the keys ``metadata``, ``sha256`` (of the bytes) and ``safetensors_base64``.
    """
    import torch
    from safetensors.torch import save

    halves = {
        name: tensor.detach().to(torch.float16).contiguous() for name, tensor in state.items()
    }
    payload = save(halves)
    body = {
        "metadata": dict(metadata),
        "sha256": hashlib.sha256(payload).hexdigest(),
        "safetensors_base64": base64.b64encode(payload).decode("ascii"),
    }
    return json.dumps(body, indent=1) + "\n"


def read_packed(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """Return a shipped file: ``metadata``, ``sha256`` and ``safetensors_base64``.

    Parameters
    ----------
    path : Path
        The file.
    what, remedy : str
        Whose weights these are, and what to do if they cannot be read.

    Raises
    ------
    federation.ModelError
        If the file is missing or not such a file.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        if {"metadata", "sha256", "safetensors_base64"} <= set(body):
            return dict(body)
        problem = "keys are missing"
    except (OSError, ValueError, TypeError) as error:
        problem = str(error).splitlines()[0]
    raise ModelError(
        explain(
            f"the weights of {what} cannot be read from {path} ({problem})",
            "the file that the package ships",
            remedy,
        )
    )


def unpack(body: Mapping[str, Any], path: Path, what: str) -> dict[str, torch.Tensor]:
    """Return the weights of a shipped file, float32.

    Raises
    ------
    federation.ModelError
        If its bytes are not those that were written.
    """
    from safetensors.torch import load

    payload = base64.b64decode(body["safetensors_base64"])
    if hashlib.sha256(payload).hexdigest() != body["sha256"]:
        raise ModelError(
            explain(
                f"the weights of {what} in {path} are damaged",
                f"bytes whose sha256 is {body['sha256']}",
                "reinstall the package",
            )
        )
    return {name: tensor.float() for name, tensor in load(payload).items()}
