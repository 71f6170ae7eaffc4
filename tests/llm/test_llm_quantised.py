"""Every architecture, adapted in float32 and in 4 bits: padding, layers, gradients, keeping."""

from __future__ import annotations

import json
import re
import shutil
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm
from core import LlmSettings, ModelError
from llm import adapters, models, quantised
from llm.models import build_classifier
from llm.training import rates
from tests.llm.conftest import Folders, Reviews, settings_for, task_of

NEW = ("roberta", "distilbert", "qwen2", "qwen3", "deepseek")
ALL = ("bert", "gpt2", "llama", *NEW)


def built(folder: Path, peft: str, device: str = "cpu") -> tuple[models.Model, Any]:
    import torch

    settings = settings_for(folder, peft=peft)
    source = llm.resolve(settings.model, "text")
    return adapters.build(source, 2, settings, torch.device(device))


@pytest.mark.parametrize("kind", ALL)
def test_padding_does_not_change_the_logits(
    kind: str, model_folder: Folders, reviews: Reviews
) -> None:
    import torch

    model = build_classifier(llm.resolve(str(model_folder(kind)), "text"), 3)
    tokens = model.tokens([*reviews[0][:6], "", "good"], "text", 16)
    width = int(tokens.lengths.max()) + 3
    for row in tokens.rows:
        ids = torch.full((1, width), tokens.pad)
        ids[0, : len(row)] = torch.from_numpy(row)
        mask = (torch.arange(width) < len(row)).long()[None]
        with torch.no_grad():
            padded = model.module(input_ids=ids, attention_mask=mask).logits
            alone = model.module(
                input_ids=torch.from_numpy(row)[None], attention_mask=mask[:, : len(row)]
            ).logits
        torch.testing.assert_close(padded, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "layers", "head"),
    [
        ("bert", 12, "classifier"), ("roberta", 12, "classifier"), ("distilbert", 12, "classifier"),
        ("gpt2", 8, "classifier"), ("llama", 14, "classifier"), ("qwen2", 14, "classifier"),
        ("qwen3", 14, "classifier"), ("deepseek", 16, "classifier"),
    ],
)  # fmt: skip
def test_every_linear_layer_is_adapted_and_in_four_bits(
    kind: str, layers: int, head: str, model_folder: Folders
) -> None:
    import bitsandbytes
    import torch

    plain = build_classifier(llm.resolve(str(model_folder(kind)), "text"), 2)
    assert len(adapters.linear_layers(plain)) == layers
    model, module = built(model_folder(kind), "qlora")
    assert model.heads == (head,)
    small = [m for m in module.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert len([name for name, _ in module.named_parameters() if "lora_A" in name]) == layers
    # BERT and RoBERTa have a pooler besides, which nobody uses.
    assert len({id(m.weight) for m in small}) == layers + (kind in ("bert", "roberta"))
    assert {m.weight.quant_state.quant_type for m in small} == {"nf4"}
    assert all(m.weight.quant_state.nested for m in small)
    heads = [p for name, p in module.named_parameters() if f"{head}." in name and p.requires_grad]
    assert heads
    assert {p.dtype for p in heads} == {torch.float32}
    assert adapters.count(module) == adapters.count(built(model_folder(kind), "lora")[1])


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("peft", ["lora", "qlora"])
def test_a_step_reaches_adapters_and_head_and_the_stored_model_is_the_same(
    kind: str, peft: str, model_folder: Folders, reviews: Reviews, tmp_path: Path
) -> None:
    import torch

    model, module = built(model_folder(kind), peft)
    batch = model.tokens(reviews[0][:16], "text", 16).batch(range(16))
    labels = torch.from_numpy(reviews[1][:16])
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = torch.optim.AdamW(trained.values(), lr=0.01)
    with torch.no_grad():
        module(**batch)
    module.train()
    for _ in range(2):  # LoRA's B starts at zero: A has a gradient from the second step on
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(**batch).logits, labels).backward()
        optimizer.step()
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in trained), name
        assert name not in trained or (parameter.grad is not None and parameter.grad.any()), name

    module.eval()
    adapters.save(module, tmp_path)
    _, other = built(model_folder(kind), peft)
    adapters.restore(other, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(other(**batch).logits, module(**batch).logits, atol=0, rtol=0)


def test_a_teacher_of_four_bits_learns_and_is_stored(
    model_folder: Folders, reviews: Reviews, tmp_path: Path
) -> None:
    texts = reviews[0]
    lines: list[str] = []
    settings = settings_for(model_folder("llama"), peft="qlora", epochs=6, patience=0)
    teacher = llm.fine_tune(task_of(reviews, settings), tmp_path, lines.append)
    assert teacher.metrics["accuracy"] >= 0.9
    assert teacher.metrics["peft"] == "qlora"
    assert "(qlora on cpu, " in lines[0]
    assert teacher.folder is not None
    logits = llm.load_fine_tuned(teacher.folder, "cpu")
    np.testing.assert_allclose(logits(texts[:32]), teacher.soft_logits, atol=1e-5)
    auto = settings.model_copy(update={"peft": "auto", "device": "cpu", "epochs": 1})
    first = llm.fine_tune(task_of(reviews, auto), tmp_path)
    lora = auto.model_copy(update={"peft": "lora"})
    again = llm.fine_tune(task_of(reviews, lora), tmp_path)
    assert first.metrics["peft"] == "lora"
    assert again.metrics["reused"]


@pytest.mark.filterwarnings("ignore:bitsandbytes.*autograd kernel was not registered")
def test_the_kernel_without_gradient_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Folders
) -> None:
    """The trap itself: Llama would train on, with adapters that learn next to nothing."""
    import bitsandbytes
    from transformers import LlamaConfig, LlamaModel

    if not bitsandbytes.functional.has_avx512bf16():
        pytest.skip("this CPU has no AVX512-BF16")
    shutil.copytree(model_folder("llama"), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    big = LlamaConfig(**{**config, "hidden_size": 64, "intermediate_size": 128, "head_dim": 32})
    LlamaModel(big).save_pretrained(tmp_path)
    built(tmp_path, "qlora")
    monkeypatch.setattr(quantised, "keep_autograd", lambda _: 0)
    with pytest.raises(ModelError, match=r"no gradient reaches \d+ of 28 .*set llm.peft=lora"):
        built(tmp_path, "qlora")


def test_a_layer_without_gradient_is_noticed_and_nothing_else_changes(
    model_folder: Folders,
) -> None:
    import torch

    _, module = built(model_folder("llama"), "lora")
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    state = torch.get_rng_state()
    quantised.check_gradients(module, "a model")
    layer = module.get_submodule("base_model.model.encoder.layers.1.mlp.down_proj.lora_A.default")
    layer.register_forward_hook(lambda *given: given[-1].detach())
    with pytest.raises(ModelError, match=r"qlora does not train a model .*reaches 1 of 28 adapter"):
        quantised.check_gradients(module, "a model")
    assert torch.equal(torch.get_rng_state(), state)
    assert not module.training
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None


def test_four_bits_are_refused_where_they_make_no_sense(
    model_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match=r"qlora with llm.model dna-tiny.*; set llm.peft=auto"):
        llm.fine_tune(
            llm.Task(
                ["ACGT"], np.zeros(1, int), [], np.zeros(0), 2, LlmSettings(peft="qlora"), "dna", 0
            )
        )

    def broken(name: str) -> Any:
        raise OSError(f"no {name} for this machine")

    with monkeypatch.context() as patch:
        patch.setattr(quantised, "importlib", types.SimpleNamespace(import_module=broken))
        with pytest.raises(ModelError, match=r"needs bitsandbytes.*no bitsandbytes.nn for this"):
            built(model_folder("gpt2"), "qlora")
    shutil.copytree(model_folder("llama"), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"are quantised already.*choose the unquantised model"):
        llm.load_base(str(tmp_path), "text")


def test_what_auto_means(
    model_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    small = llm.resolve(str(model_folder("llama")), "text")
    shutil.copytree(model_folder("llama"), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    shape = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
    shape |= {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64}
    (tmp_path / "config.json").write_text(json.dumps({**config, **shape, "vocab_size": 128_256}))
    large = llm.resolve(str(tmp_path), "text")
    assert models.count_parameters(large) == 1_235_814_400  # Llama-3.2-1B, its config alone
    assert models.count_parameters(llm.resolve("dna-tiny", "dna")) == 435_072
    assert adapters.choose_peft("auto", large, cuda) == "qlora"
    assert adapters.choose_peft("auto", small, cuda) == "lora"
    for kind in ("lora", "qlora", "none"):
        assert adapters.choose_peft(kind, large, cuda) == kind
    monkeypatch.setattr(adapters, "count_parameters", None)  # on the CPU nobody counts
    assert adapters.choose_peft("auto", large, cpu) == "lora"


def test_cuda_required_and_not_there_is_one_line(
    model_folder: Folders, reviews: Reviews, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = settings_for(model_folder("bert"), device="cuda")
    message = re.escape("llm.device = 'cuda', but torch finds no CUDA device; accepted: ")
    with pytest.raises(ModelError, match=message):
        llm.embed(reviews[0], settings, "text")
    with pytest.raises(ModelError, match=message):
        llm.fine_tune(task_of(reviews, settings))


def test_a_gpu_that_is_full_is_one_line(
    model_folder: Folders, reviews: Reviews, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from llm import fitted, states

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(fitted, "train", full)
    monkeypatch.setattr(states, "mean_pool", full)
    settings = settings_for(model_folder("bert"))
    message = r"GPU's memory does not hold llm.model .*bert.*; accepted: a smaller llm.batch_size"
    with pytest.raises(ModelError, match=message):
        llm.fine_tune(task_of(reviews, settings))
    with pytest.raises(ModelError, match=message):
        llm.embed(reviews[0], settings, "text")


def test_the_head_has_a_rate_of_its_own(model_folder: Folders) -> None:
    def peak(**changes: Any) -> tuple[float, float]:
        settings = settings_for(model_folder("bert"), **changes)
        return rates(settings)

    assert peak() == (0.01, 0.01)
    assert peak(head_learning_rate=0.05) == (0.01, 0.05)
    assert peak(peft="none") == (0.001, 0.01)
