"""Tiny models of each architecture, made from their configs and saved to a temporary folder."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm
from core import LlmSettings

Folders = Callable[[str], Path]
Reviews = tuple[list[str], np.ndarray]

WORDS = ("good", "fine", "great", "bad", "awful", "poor", "film", "day", "food", "the", "a", "was")


def settings_for(folder: Path | str, **changes: Any) -> LlmSettings:
    """Return settings of a short fine-tuning of the model in a folder."""
    values = {"epochs": 2, "batch_size": 8, "learning_rate": 0.01, "max_tokens": 16}
    return LlmSettings(model=str(folder), **{**values, **changes})


def task_of(reviews: Reviews, settings: LlmSettings, **changes: Any) -> llm.Task:
    """Return a task of the first 32 reviews, the others for validation; seed 4."""
    texts, labels = reviews
    values: dict[str, Any] = {"train_texts": texts[:32], "train_labels": labels[:32]}
    values |= {"val_texts": texts[32:], "val_labels": labels[32:]}
    values |= {"classes": 2, "settings": settings, "kind": "text", "seed": 4}
    return llm.Task(**{**values, **changes})


@pytest.fixture(autouse=True)
def one_thread_offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One torch thread and no network, for the same numbers everywhere."""
    import torch
    from huggingface_hub import constants

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    yield
    torch.set_num_threads(threads)


def _tokenizer(folder: Path, pad: bool) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["[UNK]", "[EOS]", *(["[PAD]"] if pad else [])]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"unk_token": "[UNK]", "eos_token": "[EOS]"}
    if pad:
        names["pad_token"] = "[PAD]"
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **names)
    fast.save_pretrained(folder)


SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 15}
MLP = {"intermediate_size": 32, "num_key_value_heads": 2}
ENDS = {"bos_token_id": None, "eos_token_id": 1}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", {**SIZE, "intermediate_size": 32, "max_position_embeddings": 32}),
    "roberta": (
        "Roberta",
        {**SIZE, "intermediate_size": 32, "max_position_embeddings": 34, "pad_token_id": 2},
    ),
    "distilbert": (
        "DistilBert",
        {"dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2, "vocab_size": 15},
    ),
    "gpt2": (
        "GPT2",
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 15}
        | {"bos_token_id": 1, "eos_token_id": 1},
    ),
    "llama": ("Llama", {**SIZE, **ENDS, "intermediate_size": 32}),
    "qwen2": ("Qwen2", {**SIZE, **MLP, **ENDS}),
    "qwen3": ("Qwen3", {**SIZE, **MLP, **ENDS, "head_dim": 8}),
    # One dense layer, then one of four experts: latent attention with low-rank queries.
    "deepseek": (
        "DeepseekV3",
        {**SIZE, **MLP, **ENDS, "moe_intermediate_size": 16, "n_routed_experts": 4}
        | {"num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1}
        | {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4}
        | {"v_head_dim": 8},
    ),
}
"""Class names of transformers begin with the first; the second makes the config."""

PADDED = {"bert", "roberta", "distilbert"}


def _model(kind: str) -> Any:
    import torch
    import transformers

    name, values = ARCHITECTURES[kind]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(7)
        config = getattr(transformers, f"{name}Config")(**values)
        return getattr(transformers, f"{name}Model")(config)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from a name in `ARCHITECTURES` to a folder of such a model."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            from llm.device import quiet

            quiet()
            folder = tmp_path_factory.mktemp(kind)
            _model(kind).save_pretrained(folder)
            _tokenizer(folder, pad=kind in PADDED)
            made[kind] = folder
        return made[kind]

    return make


TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WITHOUT_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system message') }}{% endif %}"
    + TEMPLATE
)


@pytest.fixture(scope="session")
def causal_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that makes a folder of a small causal LM with random weights.

    A Llama of two layers, and a byte-level BPE tokenizer trained on our own prompts.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from strategies.decisions.prompt import TEXTS

    @functools.cache
    def make(seed: int = 0, template: str = "", **config: Any) -> Path:
        import torch

        from llm.device import quiet

        quiet()
        folder = tmp_path_factory.mktemp("causal")
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        special = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator(
            [TEXTS["system"], "0 1 2 3 4 5 6 7 8 9 0.123 loss rows"], trainer
        )
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
        fast.chat_template = template or None
        fast.save_pretrained(folder)
        size: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        shape = {**size, "intermediate_size": 64, "vocab_size": 512, "eos_token_id": 0}
        shape |= {"bos_token_id": None, "max_position_embeddings": 8192, **config}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            LlamaForCausalLM(LlamaConfig(**shape)).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def reviews() -> tuple[list[str], np.ndarray]:
    """Short made-up reviews whose words tell the class: (texts, labels), 48 rows."""
    rng = np.random.default_rng(3)
    labels = np.arange(48) % 2
    texts = []
    for label in labels:
        words = WORDS[3:6] if label else WORDS[:3]
        said = [str(rng.choice(words)) for _ in range(int(rng.integers(1, 5)))]
        texts.append(" ".join(["the", str(rng.choice(WORDS[6:9])), "was", *said]))
    return texts, labels
