"""Weights as text: float16 safetensors in JSON; Flower's app bundle ships no binary file.

The bundle is not compressed and goes to every node with every run. So the bytes are packed
without loss: first all high bytes (sign, exponent, two bits), which repeat, then all low bytes;
xz; base85.
"""

from __future__ import annotations

import base64
import hashlib
import json
import lzma
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import ModelError, write_text

if TYPE_CHECKING:
    import torch

MOST = 950_000
"""Characters of the packed weights in one file."""


def serialise(state: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> str:
    """Return weights and metadata as the text of a shipped JSON file.

    Weights are stored as float16; `metadata` says in JSON values how they were made.

    Returns
    -------
    str
        JSON with the keys ``metadata``, ``sha256`` (of the safetensors bytes) and ``packed``; see
        `write_parts`.
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
        "packed": _squeezed(payload),
    }
    return json.dumps(body, indent=1) + "\n"


def write_parts(path: Path, text: str) -> None:
    """Write what `serialise` returns; the end of a long one goes to ``NAME-2.json`` and so on.

    Flower's hub takes no file of more than 1 MiB.
    """
    body = json.loads(text)
    packed = body["packed"]
    parts = [packed[at : at + MOST] for at in range(0, len(packed), MOST)]
    write_text(path, json.dumps({**body, "packed": parts[0], "parts": len(parts)}, indent=1) + "\n")
    for number, part in enumerate(parts[1:], 2):
        write_text(_part(path, number), json.dumps({"packed": part}) + "\n")


def _part(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}.json")


def _squeezed(payload: bytes) -> str:
    planes = payload[1::2] + payload[::2]
    return base64.b85encode(lzma.compress(planes, preset=9 | lzma.PRESET_EXTREME)).decode("ascii")


def _restored(text: str) -> bytes:
    """Return the bytes that `_squeezed` has packed; raises ValueError or LZMAError."""
    planes = lzma.decompress(base64.b85decode(text))
    payload, half = bytearray(len(planes)), len(planes) // 2
    payload[1::2], payload[::2] = planes[:half], planes[half:]
    return bytes(payload)


def read_serialised(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """Return a shipped file: ``metadata``, ``sha256`` and ``packed``.

    `what` names whose weights these are, and `remedy` what to do if they cannot be read.

    Raises
    ------
    core.ModelError
        If the file is missing or not such a file.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        for number in range(2, body.pop("parts", 1) + 1):
            body["packed"] += json.loads(_part(path, number).read_text("utf-8"))["packed"]
        if {"metadata", "sha256", "packed"} <= set(body):
            return dict(body)
        problem = "keys are missing"
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        problem = str(error).splitlines()[0]
    raise ModelError(
        f"the weights of {what} cannot be read from {path} ({problem})",
        "the file that the package ships",
        remedy,
    )


def deserialise(body: Mapping[str, Any], path: Path, what: str) -> dict[str, torch.Tensor]:
    """Return the weights of a shipped file, float32.

    Raises
    ------
    core.ModelError
        If its bytes are not those that were written.
    """
    from safetensors.torch import load

    try:
        payload = _restored(body["packed"])
    except (ValueError, TypeError, lzma.LZMAError):
        payload = b""
    if hashlib.sha256(payload).hexdigest() != body["sha256"]:
        raise ModelError(
            f"the weights of {what} in {path} are damaged",
            f"bytes whose sha256 is {body['sha256']}",
            "reinstall the package",
        )
    return {name: tensor.float() for name, tensor in load(payload).items()}
