"""`dna-tiny`: the embedded DNA language model, 0.435 M parameters over overlapping 3-mers.

A Llama of 2 layers and hidden size 128, pre-trained by `training.pretrain_dna` on the 16
dinucleotide frequencies of unlabelled windows. Its weights travel as float16 safetensors,
serialised into JSON (`llm.serialised`), because Flower's app bundle ships no binary file.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm.serialised import deserialise, read_serialised

if TYPE_CHECKING:
    from transformers import LlamaModel

WEIGHTS = Path(__file__).parent / "weights" / "dna_tiny.json"
HIDDEN = 128
REMEDY = "reinstall the package, or make it again with `python -m training.pretrain_dna`"


def new_model(vocab_size: int = 66) -> LlamaModel:
    """Return the architecture with fresh weights from torch's current generator, float32."""
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


def read(path: Path = WEIGHTS) -> dict[str, Any]:
    """Return the shipped file: ``metadata``, ``sha256`` and ``packed``."""
    return dict(_body(path, _stamp(path)))


def _stamp(path: Path) -> tuple[int, int]:
    """Say which state of a file a process has read; zeros where there is none."""
    if not path.is_file():
        return 0, 0
    found = path.stat()
    return found.st_mtime_ns, found.st_size


# Many sites of one process fine-tune it: unpacking takes longer than a step of training.
@functools.lru_cache(maxsize=1)
def _body(path: Path, stamp: tuple[int, int]) -> dict[str, Any]:
    return read_serialised(path, "dna-tiny", REMEDY)


@functools.lru_cache(maxsize=1)
def _state(path: Path, stamp: tuple[int, int]) -> dict[str, Any]:
    return deserialise(_body(path, stamp), path, "dna-tiny")


def load(path: Path = WEIGHTS) -> LlamaModel:
    """Return the pre-trained model, float32.

    Raises
    ------
    core.ModelError
        If the file is missing or damaged.
    """
    import torch

    state = _state(path, _stamp(path))
    with torch.random.fork_rng(devices=[]):
        model = new_model()
    model.load_state_dict(state)
    # At these sizes the plain attention trains a third faster in bfloat16 than the fused one.
    model.set_attn_implementation("eager")
    return model
