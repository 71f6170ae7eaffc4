"""Fine-tuning: that it trains what it should, repeats, is stored, and survives odd sites."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm
from core import DataError, LlmSettings, ModelError
from llm import adapters, batches, fine_tuning, training
from llm.calibration import fit_temperature, mean_nll
from llm.models import build_classifier
from llm.teacher import content_key
from llm.training import linear_decay
from tests.llm.conftest import Folders, Reviews, settings_for, task_of


def run(
    reviews: Reviews,
    settings: LlmSettings,
    store: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
    **changes: Any,
) -> llm.Teacher:
    return llm.fine_tune(task_of(reviews, settings, **changes), store, progress)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_each_architecture_learns(kind: str, model_folder: Folders, reviews: Reviews) -> None:
    settings = settings_for(model_folder(kind), epochs=12, patience=0)
    teacher = run(reviews, settings, calibrate=True)
    assert teacher.metrics["accuracy"] >= 0.9
    assert teacher.metrics["loss"] < 0.5
    assert teacher.soft_labels.shape == (32, 2)
    assert teacher.soft_labels.dtype == np.float32
    np.testing.assert_allclose(teacher.soft_labels.sum(axis=1), 1, atol=1e-6)
    assert teacher.val_probabilities.shape == (16, 2)
    assert set(teacher.metrics) == {
        "loss", "raw_loss", "accuracy", "macro_f1", "validation_rows", "epochs", "best_epoch",
        "tokens", "seconds", "trainable", "adapter_bytes", "reused", "peft", "cut",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_lora_trains_adapters_and_head_and_nothing_else(
    kind: str, model_folder: Folders, reviews: Reviews
) -> None:
    import torch

    settings = settings_for(model_folder(kind))
    model = build_classifier(llm.resolve(settings.model, "text"), 2)
    layers = adapters.linear_layers(model)
    module = adapters.adapt(model, settings)
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    lora = [name for name in names if "lora_" in name]
    assert len(lora) == 2 * len(layers)
    assert all("lora_" in name or "modules_to_save" in name for name in names)
    assert not any("pooler" in name for name in names)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    # LoRA's B starts at zero, so A has a gradient from the second step on only.
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.01)
    batch = model.tokens(reviews[0][:8], "text", 16).batch(range(8))
    labels = torch.from_numpy(reviews[1][:8])
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(**batch).logits, labels).backward()
        optimizer.step()
    for name, parameter in module.named_parameters():
        if name in names:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
            assert not torch.equal(parameter, before[name]), name
        else:
            assert torch.equal(parameter, before[name]), name


def test_layers_by_name_and_by_a_wrong_name(model_folder: Folders) -> None:
    model = build_classifier(llm.resolve(str(model_folder("llama")), "text"), 3)
    chosen = adapters.choose_layers(model, "q_proj, v_proj")
    assert len(chosen) == 4
    assert all(name.endswith(("q_proj", "v_proj")) for name in chosen)
    assert len(adapters.choose_layers(model, "auto")) == 14
    with pytest.raises(ModelError, match=r"llm.targets qq: .* no such linear layer; .*q_proj"):
        adapters.choose_layers(model, "q_proj,qq")


def test_same_seed_same_numbers_and_no_global_generator(
    model_folder: Folders, reviews: Reviews
) -> None:
    import torch

    settings = settings_for(model_folder("bert"), dropout=0.1)
    state = torch.get_rng_state()
    first = run(reviews, settings)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    again, other = run(reviews, settings), run(reviews, settings, seed=5)
    np.testing.assert_array_equal(first.soft_logits, again.soft_logits)
    assert first.temperature == again.temperature
    assert not np.array_equal(first.soft_logits, other.soft_logits)


@pytest.mark.parametrize(("kind", "peft"), [("bert", "lora"), ("gpt2", "lora"), ("llama", "none")])
def test_a_stored_model_gives_the_same_logits(
    kind: str, peft: str, model_folder: Folders, reviews: Reviews, tmp_path: Path
) -> None:
    settings = settings_for(model_folder(kind), peft=peft)
    teacher = run(reviews, settings, tmp_path)
    assert teacher.folder is not None
    logits = llm.load_fine_tuned(teacher.folder)
    np.testing.assert_allclose(logits(reviews[0][:32]), teacher.soft_logits, atol=1e-5)
    np.testing.assert_allclose(logits(reviews[0][32:]), teacher.val_logits, atol=1e-5)
    if peft == "lora":
        size = (teacher.folder / "adapter_model.safetensors").stat().st_size
        assert 0 <= size - teacher.metrics["adapter_bytes"] < 10_000


def test_store_is_used_again_and_follows_what_matters(
    model_folder: Folders, reviews: Reviews, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(model_folder("bert"))
    lines: list[str] = []
    first = run(reviews, settings, tmp_path, progress=lines.append)
    assert not first.metrics["reused"]
    assert first.metrics["tokens"] > 0
    assert lines[0].endswith("on 32 rows")
    assert lines[1].startswith(f"{model_folder('bert').name}: epoch 1/2: training loss ")
    assert len(lines) == 3
    lines.clear()

    def refuse(*_: Any) -> None:
        raise AssertionError("fine-tuned again")

    with monkeypatch.context() as patch:
        patch.setattr(fine_tuning, "_fitted", refuse)
        again = run(reviews, settings, tmp_path, progress=lines.append)
        assert len(lines) == 1
        for change in (
            {"seed": 9},
            {"classes": 3},
            {"val_texts": reviews[0][:16]},
        ):
            with pytest.raises(AssertionError, match="fine-tuned again"):
                run(reviews, settings, tmp_path, **change)
        for other in (
            settings.model_copy(update={"reuse": False}),
            settings.model_copy(update={"rank": 4}),
            settings.model_copy(update={"peft": "qlora"}),
            settings.model_copy(update={"head_learning_rate": 0.02}),
        ):
            with pytest.raises(AssertionError, match="fine-tuned again"):
                run(reviews, other, tmp_path)
    assert again.metrics["reused"]
    assert again.metrics["tokens"] == 0
    np.testing.assert_array_equal(first.soft_labels, again.soft_labels)
    assert again.metrics["loss"] == first.metrics["loss"]
    # The temperature is fitted afterwards: the same model serves with and without it.
    raw = run(reviews, settings, tmp_path, calibrate=False)
    assert raw.metrics["reused"]
    assert raw.temperature == 1.0
    np.testing.assert_array_equal(raw.soft_logits, first.soft_logits)


def test_a_damaged_entry_is_trained_again(
    model_folder: Folders, reviews: Reviews, tmp_path: Path
) -> None:
    settings = settings_for(model_folder("bert"), epochs=1)
    first = run(reviews, settings, tmp_path)
    assert first.folder is not None
    (first.folder / "adapter_model.safetensors").write_bytes(b"cut")
    healed = run(reviews, settings, tmp_path)
    assert not healed.metrics["reused"]
    np.testing.assert_array_equal(first.soft_logits, healed.soft_logits)
    assert run(reviews, settings, tmp_path).metrics["reused"]


def test_store_that_cannot_be_written_is_reported(
    model_folder: Folders, reviews: Reviews, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    lines: list[str] = []
    settings = settings_for(model_folder("bert"), epochs=1)
    teacher = run(reviews, settings, file, progress=lines.append)
    assert teacher.folder is None
    assert "is not stored" in lines[-1]


def test_store_keeps_nothing_executable(
    model_folder: Folders, reviews: Reviews, tmp_path: Path
) -> None:
    teacher = run(reviews, settings_for(model_folder("bert"), epochs=1), tmp_path)
    assert teacher.folder is not None
    assert {path.name for path in teacher.folder.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors",
        "facts.json", "logits.npz", "manifest.json",
    }  # fmt: skip
    with np.load(teacher.folder / "logits.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["train"], teacher.soft_logits)
    manifest = json.loads((teacher.folder / "manifest.json").read_text())
    assert teacher.folder == tmp_path / "teachers" / manifest["key"]


def test_only_the_owner_may_read_the_store(
    model_folder: Folders, reviews: Reviews, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    store = tmp_path / "home" / "store"
    for peft in ("lora", "none"):
        teacher = run(reviews, settings_for(model_folder("bert"), epochs=1, peft=peft), store)
        assert teacher.folder is not None
        assert {stat.S_IMODE(path.stat().st_mode) for path in teacher.folder.iterdir()} == {0o600}
        for folder in (teacher.folder, teacher.folder.parent, store, store.parent):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_teachers_of_another_recipe_are_not_taken(
    model_folder: Folders, reviews: Reviews, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(model_folder("bert"), epochs=1)
    first = run(reviews, settings, tmp_path)
    monkeypatch.setattr(adapters, "RECIPE", 10**6)
    second = run(reviews, settings, tmp_path)
    assert not second.metrics["reused"]
    assert first.folder != second.folder


def test_recipe_names_its_numbers() -> None:
    """Fails with a changed number: raise `RECIPE`, then write the new numbers here."""
    recipe = {
        "recipe": training.RECIPE,
        "whole model rate": training.WHOLE_MODEL_RATE,
        "weight decay": training._WEIGHT_DECAY,
        "clip norm": training._CLIP_NORM,
        "schedule": [round(linear_decay(step, 20), 4) for step in (0, 1, 2, 19)],
        "group": batches._GROUP,
    }
    assert recipe == {
        "recipe": 4,
        "whole model rate": 0.1,
        "weight decay": 0.01,
        "clip norm": 1.0,
        "schedule": [0.5, 1.0, 0.9474, 0.0526],
        "group": 8,
    }


def test_key_tells_rows_apart() -> None:
    one, two = np.array([0]), np.array([0, 0])
    keys = {
        content_key([["ab"], []], [one, one[:0]], {}),
        content_key([["a", "b"], []], [two, one[:0]], {}),
        content_key([["a"], ["b"]], [one, one], {}),
        content_key([["ab"], []], [one + 1, one[:0]], {}),
        content_key([["ab"], []], [one, one[:0]], {"seed": 1}),
    }
    assert len(keys) == 5


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize(
    "site", ["one class", "no validation", "one row", "one validation class", "empty text"]
)
def test_odd_sites_give_finite_figures(
    kind: str, site: str, model_folder: Folders, reviews: Reviews
) -> None:
    texts, labels = reviews
    cases: dict[str, dict[str, Any]] = {
        "one class": {"train_labels": np.ones(32, int), "val_labels": np.ones(16, int)},
        "no validation": {"val_texts": [], "val_labels": []},
        "one row": {"train_texts": texts[:1], "train_labels": labels[:1]},
        "one validation class": {"val_texts": texts[32:33], "val_labels": labels[32:33]},
        "empty text": {"train_texts": ["", *texts[1:32]]},
    }
    teacher = run(reviews, settings_for(model_folder(kind)), classes=3, **cases[site])
    numbers = [value for value in teacher.metrics.values() if not isinstance(value, bool | str)]
    assert np.isfinite(numbers).all()
    assert np.isfinite(teacher.soft_labels).all()
    assert np.isfinite(teacher.val_logits).all()
    assert teacher.val_probabilities.shape == (teacher.metrics["validation_rows"], 3)
    if site in ("one class", "no validation", "one validation class"):
        assert teacher.temperature == 1.0


def test_early_stop_keeps_the_best_epoch(model_folder: Folders, reviews: Reviews) -> None:
    # Validation labels are the opposite of the training labels: the first epoch is the best.
    settings = settings_for(model_folder("bert"), epochs=30, patience=2, learning_rate=0.02)
    teacher = run(reviews, settings, val_labels=1 - reviews[1][32:])
    assert teacher.metrics["epochs"] == teacher.metrics["best_epoch"] + 2 < 30
    short = run(
        reviews,
        settings.model_copy(update={"patience": 0, "epochs": 3}),
        val_labels=1 - reviews[1][32:],
    )
    assert short.metrics["epochs"] == 3


def test_weights_of_the_best_epoch_are_restored(model_folder: Folders, reviews: Reviews) -> None:
    lines: list[str] = []
    settings = settings_for(model_folder("bert"), epochs=10, patience=0, learning_rate=0.02)
    wrong = 1 - reviews[1][32:]
    teacher = run(reviews, settings, val_labels=wrong, progress=lines.append)
    losses = [float(re.findall(r"validation loss ([0-9.]+),", line)[0]) for line in lines[1:]]
    assert len(losses) == 10
    assert losses[-1] > min(losses) + 0.1
    # Training validates in bfloat16 where the CPU has it, the teacher is computed in float32.
    best = fit_temperature(teacher.val_logits, wrong)
    assert mean_nll(teacher.val_logits, wrong, best) == pytest.approx(min(losses), abs=0.05)


def test_infinite_logits_end_in_the_same_error() -> None:
    import types

    import torch

    from llm.batches import Tokens
    from llm.training import Rows, _validate, train

    class Broken(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(2))

        def forward(self, input_ids: torch.Tensor, **_: Any) -> types.SimpleNamespace:
            endless = torch.full((len(input_ids), 2), torch.inf)
            return types.SimpleNamespace(logits=self.weight * endless)

    rows = Rows(Tokens((np.array([1]), np.array([2])), 0), np.array([0, 1]))
    assert np.isnan(_validate(Broken(), rows, 0.0)[0])
    with pytest.raises(ModelError, match="diverged"):
        train(Broken(), (), rows, rows, settings_for("none"), 0, lambda _: None)


def test_divergence_is_reported(model_folder: Folders, reviews: Reviews) -> None:
    settings = settings_for(model_folder("bert"), learning_rate=1e30)
    with pytest.raises(ModelError, match=r"diverged with llm.learning_rate 1e\+30; .*lower it"):
        run(reviews, settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": np.zeros(3, int)}, "32 rows and 3 labels"),
        ({"train_labels": np.full(32, 2)}, "labels from 2 to 2; accepted: 0 to 1"),
        ({"train_texts": [], "train_labels": []}, "no training row"),
    ],
)
def test_wrong_rows_are_refused(
    changes: dict[str, Any], message: str, model_folder: Folders, reviews: Reviews
) -> None:
    with pytest.raises(DataError, match=message):
        run(reviews, settings_for(model_folder("bert")), **changes)


def test_dna_tiny_fine_tunes() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    letters = np.array(list("ACGT"))
    texts = [
        "".join(rng.choice(letters, 60, p=[0.3, 0.2, 0.2, 0.3] if y else [0.2, 0.3, 0.3, 0.2]))
        for y in labels
    ]
    settings = LlmSettings(epochs=2)
    teacher = llm.fine_tune(
        llm.Task(texts[:40], labels[:40], texts[40:], labels[40:], 2, settings, "dna", 0)
    )
    assert teacher.metrics["accuracy"] >= 0.75
    assert teacher.metrics["trainable"] == 41_218
    assert teacher.metrics["tokens"] == 2 * 40 * 58


def test_texts_that_are_cut_are_counted(
    model_folder: Callable[[str], Path], reviews: tuple[list[str], np.ndarray]
) -> None:
    base = build_classifier(llm.resolve(str(model_folder("bert")), "text"), 2)
    texts = reviews[0]
    lengths = base.tokens(texts, "text", 32).lengths
    for longest in sorted(set(lengths.tolist()))[:3]:
        cut = base.tokens(texts, "text", longest).cut
        assert cut == int((lengths > longest).sum())
