"""`dna-tiny`: the embedded DNA language model, 0.435 M parameters over overlapping 3-mers.

A Llama of 2 layers and hidden size 128, pre-trained by `llm.pretrain_dna` on the 16
dinucleotide frequencies of unlabelled windows. Its weights travel as float16 safetensors,
base64-coded inside JSON, because Flower's app bundle ships no binary file.
"""

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
    from transformers import LlamaModel

WEIGHTS = Path(__file__).parent / "weights" / "dna_tiny.json"
HIDDEN = 128


def new_model(vocab_size: int = 66) -> LlamaModel:
    """Return the architecture with fresh weights from torch's current generator.

    Parameters
    ----------
    vocab_size : int
        Tokens, padding and unknown included.

    Returns
    -------
    transformers.LlamaModel
        In float32, without a head.
    """
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=HIDDEN,
        intermediate_size=3 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=4096,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
        use_cache=False,
    )
    return LlamaModel(config)


def pack(state: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> str:
    """Return weights and metadata as the text of the shipped JSON file.

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


def read(path: Path = WEIGHTS) -> dict[str, Any]:
    """Return the shipped file: ``metadata``, ``sha256`` and ``safetensors_base64``.

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
            f"the weights of dna-tiny cannot be read from {path} ({problem})",
            "the file that the package ships",
            "reinstall the package, or make it anew with `python -m llm.pretrain_dna`",
        )
    )


def load(path: Path = WEIGHTS) -> LlamaModel:
    """Return the pre-trained model, float32.

    Raises
    ------
    federation.ModelError
        If the file is missing or damaged.
    """
    import torch
    from safetensors.torch import load as load_safetensors

    body = read(path)
    payload = base64.b64decode(body["safetensors_base64"])
    if hashlib.sha256(payload).hexdigest() != body["sha256"]:
        raise ModelError(
            explain(
                f"the weights of dna-tiny in {path} are damaged",
                f"bytes whose sha256 is {body['sha256']}",
                "reinstall the package",
            )
        )
    with torch.random.fork_rng(devices=[]):
        model = new_model()
    state = {name: tensor.float() for name, tensor in load_safetensors(payload).items()}
    model.load_state_dict(state)
    # At these sizes the plain attention trains a third faster in bfloat16 than the fused one.
    model.set_attn_implementation("eager")
    return model
