"""Sizes and limits are those of the model itself, whatever its config calls them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import llm
from core import LlmSettings, ModelError
from llm.encoders import UNLIMITED, longest_input, state_size
from llm.models import build_classifier, empty_classifier, load_base
from tests.llm.conftest import ENDS, MLP, SIZE, Folders, _tokenizer
from tests.llm.test_llm_models import slow_embedding

BERT = {**SIZE, "intermediate_size": 32, "max_position_embeddings": 32}
OPT = {**SIZE, "ffn_dim": 32, "pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 1}
MODELS: dict[str, tuple[str, dict[str, Any], int, int]] = {
    "OPT with a projection": (
        "OPT",
        {**OPT, "max_position_embeddings": 20, "word_embed_proj_dim": 8},
        8,
        20,
    ),
    "OPT": ("OPT", {**OPT, "max_position_embeddings": 20, "word_embed_proj_dim": 16}, 16, 20),
    "XLNet": (
        "XLNet",
        {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32, "vocab_size": 15},
        16,
        UNLIMITED,
    ),
    "GPT2": ("GPT2", {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 15}, 16, 1024),
    "BERT": ("Bert", BERT, 16, 32),
    "ALBERT": ("Albert", {**BERT, "embedding_size": 4}, 16, 32),
    "Electra": ("Electra", {**BERT, "embedding_size": 4}, 16, 32),
    "RoBERTa": ("Roberta", {**BERT, "pad_token_id": 2}, 16, 29),
    "MPNet": ("MPNet", {**BERT, "pad_token_id": 1}, 16, 30),
    "DistilBERT": (
        "DistilBert",
        {"dim": 16, "hidden_dim": 32, "n_layers": 1, "n_heads": 2, "vocab_size": 15},
        16,
        512,
    ),
    "DeBERTa": ("DebertaV2", {**BERT, "relative_attention": True, "position_buckets": 8}, 16, 32),
    "Llama": ("Llama", {**SIZE, **MLP, **ENDS}, 16, 2048),
    "Mamba": ("Mamba", {**SIZE, "state_size": 4}, 16, UNLIMITED),
    "T5's encoder": (
        "T5",
        {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 15},
        16,
        UNLIMITED,
    ),
}
WORKING = [name for name in MODELS if name != "T5's encoder"]


def build(name: str) -> Any:
    kind, values, _, _ = MODELS[name]
    config = getattr(transformers, f"{kind}Config")(**values)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(7)
        model = "T5EncoderModel" if kind == "T5" else f"{kind}Model"
        return getattr(transformers, model)(config).eval()


@pytest.mark.parametrize("name", MODELS)
def test_facts_come_from_the_module(name: str) -> None:
    module, (_, _, hidden, limit) = build(name), MODELS[name]
    assert (state_size(module), longest_input(module)) == (hidden, limit)


@pytest.mark.parametrize("name", [n for n in MODELS if MODELS[n][3] < 100])
def test_the_limit_is_the_longest_input_that_runs(name: str) -> None:
    """One token more has no position; the mask is what places tokens behind the padding."""
    if name == "DeBERTa":
        pytest.skip("relative positions: it reads more than its config says")
    module, limit = build(name), MODELS[name][3]

    def read(tokens: int) -> Any:
        ids = torch.full((1, tokens), 5)
        with torch.no_grad():
            return module(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state

    assert read(limit).shape[1] == limit
    with pytest.raises((IndexError, RuntimeError)):
        read(limit + 1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("model")
            build(name).save_pretrained(made[name])
            _tokenizer(made[name], pad=True)
        return made[name]

    return make


@pytest.mark.parametrize("name", WORKING)
def test_rows_are_embedded_and_classified(name: str, saved: Folders) -> None:
    folder, texts = str(saved(name)), ["good film", "the day was awful", "a"]
    fast = llm.embed(texts, LlmSettings(model=folder), "text")
    assert fast.shape == (3, MODELS[name][2])
    np.testing.assert_allclose(fast, slow_embedding(texts, folder, "text"), atol=2e-6)
    source = llm.resolve(folder, "text")
    model = build_classifier(source, 3)
    batch = model.tokens(texts, "text").batch([0, 1, 2])
    with torch.no_grad():
        assert model.module(**batch).logits.shape == (3, 3)
    assert model.hidden == MODELS[name][2]
    empty, heads = empty_classifier(source, 3)
    assert heads == model.heads
    counts = (sum(p.numel() for p in each.parameters()) for each in (empty, model.module))
    assert len(set(counts)) == 1


def test_more_tokens_than_the_model_reads_is_one_line(saved: Folders) -> None:
    base = load_base(str(saved("OPT with a projection")), "text")
    with pytest.raises(
        ModelError, match=r"llm.max_tokens 21 is more than .*; accepted: at most 20"
    ):
        base.tokens(["good"], "text", 21)
    endless = load_base(str(saved("XLNet")), "text")  # its tokenizer says 32
    with pytest.raises(ModelError, match="accepted: at most 32"):
        endless.tokens(["good"], "text", 33)
    assert endless.tokens(["good"], "text", 32).lengths.tolist() == [1]


def test_an_encoder_decoder_is_refused_in_one_line(tmp_path: Path) -> None:
    _, values, _, _ = MODELS["T5's encoder"]
    transformers.T5Config(**values).save_pretrained(tmp_path)
    _tokenizer(tmp_path, pad=True)
    with pytest.raises(ModelError, match=r"is an encoder-decoder \(t5\); accepted: an encoder"):
        load_base(str(tmp_path), "text")


# --- what lies beside a model -------------------------------------------------------------

OLD_NAMES = pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's, of transformers


@pytest.fixture
def beside(model_folder: Folders, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies a model and lays a large adapter of it into the folder."""

    def make(kind: str) -> Path:
        from peft import LoraConfig, get_peft_model

        folder = tmp_path / kind
        shutil.copytree(model_folder(kind), folder)
        base = transformers.AutoModel.from_pretrained(folder)
        adapted = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear"))
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_" in name:
                    parameter.fill_(1.0)
        adapted.save_pretrained(folder)
        assert (folder / "adapter_config.json").is_file()
        return folder

    return make


@OLD_NAMES
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_the_base_is_the_model_in_the_folder(
    kind: str, model_folder: Folders, beside: Callable[[str], Path]
) -> None:
    folder, texts = beside(kind), ["good film", "the day was awful"]
    clean, found = (
        llm.embed(texts, LlmSettings(model=str(each)), "text")
        for each in (model_folder(kind), folder)
    )
    np.testing.assert_array_equal(found, clean)
    model = build_classifier(llm.resolve(str(folder), "text"), 2)
    assert not any("lora" in name for name, _ in model.module.named_parameters())


@OLD_NAMES
def test_the_agents_model_is_the_one_in_the_folder(
    model_folder: Folders, beside: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm.chat.local import _load
    from llm.sources import locate

    folder = beside("llama")
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["LlamaForCausalLM"]
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    module, _ = _load(locate(str(folder)), torch.device("cpu"))
    assert not any("lora" in name for name, _ in module.named_parameters())


@OLD_NAMES
def test_an_adapter_alone_is_one_line(beside: Callable[[str], Path]) -> None:
    folder = beside("bert")
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match="is an adapter without its base model; accepted") as error:
        llm.resolve(str(folder), "text")
    assert "\n" not in str(error.value)


def test_code_beside_a_model_is_not_run(model_folder: Folders, tmp_path: Path) -> None:
    """Neither for a model of transformers with code beside it, nor for one that needs the code."""
    folder, mark = tmp_path / "bert", tmp_path / "ran"
    shutil.copytree(model_folder("bert"), folder)
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    config = json.loads((folder / "config.json").read_text())
    parts = ("AutoConfig", "AutoModel", "AutoModelForSequenceClassification")
    config["auto_map"] = dict.fromkeys(parts, "own.Own")
    (folder / "config.json").write_text(json.dumps(config))
    names = json.loads((folder / "tokenizer_config.json").read_text())
    names["auto_map"] = {"AutoTokenizer": [None, "own.Own"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    load_base(str(folder), "text")
    build_classifier(llm.resolve(str(folder), "text"), 2)
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own"}))
    with pytest.raises(ModelError, match=r"cannot be loaded .*without code of its own") as error:
        load_base(str(folder), "text")
    assert "\n" not in str(error.value)
    assert not mark.exists()
