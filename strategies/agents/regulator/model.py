"""The regulator's model: a causal transformer of about a million parameters, and its weights.

A Llama of 5 layers and hidden size 128 over the vocabulary of `words`. The shipped weights were
trained by ``python -m training.regulator.train``; the file tells command, seed and curve.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from core import ModelError
from llm.serialised import read_packed, unpack
from strategies.agents.regulator.vocabulary import VOCABULARY

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

WEIGHTS = Path(__file__).with_name("weights.json")
REMEDY = "reinstall the package, or make it anew with `python -m training.regulator.train`"


def new_model() -> LlamaForCausalLM:
    """Return the architecture with fresh weights from torch's current generator, float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=5,
        num_attention_heads=4,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def load(path: Path = WEIGHTS) -> LlamaForCausalLM:
    """Return the trained model, float32, for evaluation.

    Raises
    ------
    core.ModelError
        If the file is missing or damaged.
    """
    import torch

    state = unpack(read_packed(path, "the regulator", REMEDY), path, "the regulator")
    with torch.random.fork_rng(devices=[]):
        model = new_model()
    try:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]  # stored once
        model.load_state_dict(state)
    except (KeyError, RuntimeError):
        raise ModelError(
            f"the weights of the regulator in {path} are not those of this version's model",
            f"a vocabulary of {len(VOCABULARY)} words",
            REMEDY,
        ) from None
    model.tie_weights()
    return model.eval()
