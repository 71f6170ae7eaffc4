"""One adapter of all sites: the same start, exact averages, rounds that add up to the epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm
from core import LlmSettings, ModelError
from llm.federated import local_round, round_batches
from llm.shared_adapter import (
    build_frozen,
    build_shared,
    freeze_adapter,
    load_adapter,
    save_adapter,
    shared_bytes,
)
from tests.llm.conftest import Folders, Reviews, settings_for, task_of


def shared_settings(folder: Path | str, **changes: Any) -> LlmSettings:
    return settings_for(folder, **{"federated": "ffa", "rounds": 2, **changes})


def one_round(reviews: Reviews, given: LlmSettings, **changes: Any) -> Any:
    texts, labels = reviews
    rows = {"train_texts": texts, "train_labels": labels, "val_texts": (), "val_labels": ()}
    task = task_of(reviews, given, **rows, seed=changes.pop("seed", 4))
    return local_round(task, **{"arrays": {}, "number": 1, "shared_seed": 9, **changes})


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("federated", ["ffa", "fedavg"])
def test_what_is_averaged(kind: str, federated: str, model_folder: Folders) -> None:
    given = shared_settings(model_folder(kind), federated=federated)
    shared = build_shared(given, "text", 2, 0)
    sides = {name.split(".lora_")[1][0] for name in shared.names if ".lora_" in name}
    assert sides == ({"B"} if federated == "ffa" else {"A", "B"})
    assert any("modules_to_save" in name for name in shared.names)
    assert shared_bytes(given, "text", 2) == sum(a.nbytes for a in shared.arrays().values())


def test_all_sites_draw_the_same_start_and_other_seeds_another(model_folder: Folders) -> None:
    given = shared_settings(model_folder("bert"))
    one, two = (build_shared(given, "text", 2, 5) for _ in range(2))
    assert one.start == two.start != build_shared(given, "text", 2, 6).start
    # 48 bits: a whole number that every part of the way carries.
    assert 0 <= one.start < 2**48
    for name, array in one.arrays().items():
        np.testing.assert_array_equal(array, two.arrays()[name])


def test_the_start_does_not_depend_on_what_was_drawn_before(
    model_folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from llm import adapters

    given = shared_settings(model_folder("llama"))
    usual = build_shared(given, "text", 2, 5)
    adapt = adapters.adapt

    def drawn_before(*arguments: Any) -> Any:
        torch.rand(7)  # as a head that is made on a GPU, or in 4 bits, would shift the draws
        return adapt(*arguments)

    monkeypatch.setattr(adapters, "adapt", drawn_before)
    other = build_shared(given, "text", 2, 5)
    assert other.start == usual.start
    qlora = build_shared(given.model_copy(update={"peft": "qlora"}), "text", 2, 5)
    assert qlora.start == usual.start
    matrices = {n: p for n, p in other.module.named_parameters() if ".lora_A." in n}
    for name, matrix in matrices.items():
        assert float(matrix.detach().abs().max()) <= matrix.shape[1] ** -0.5, name
    assert len({float(matrix.detach().flatten()[0]) for matrix in matrices.values()}) == len(
        matrices
    )


def updates(module: Any) -> dict[str, np.ndarray]:
    """Return B A of every adapted layer."""
    held = {name: p.detach().double().numpy() for name, p in module.named_parameters()}
    return {
        name: held[name.replace(".lora_A.", ".lora_B.")] @ held[name]
        for name in held
        if ".lora_A." in name
    }


@pytest.mark.parametrize(("federated", "exact"), [("ffa", True), ("fedavg", False)])
def test_the_mean_of_the_updates_is_the_update_of_the_mean_for_ffa_only(
    federated: str, exact: bool, model_folder: Folders, reviews: Reviews
) -> None:
    given = shared_settings(model_folder("bert"), federated=federated)
    texts, labels = reviews
    halves = [one_round((texts[i::2], labels[i::2]), given, seed=i).arrays for i in (0, 1)]
    mean = {name: (halves[0][name] + halves[1][name]) / 2 for name in halves[0]}

    def update_of(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return updates(build_frozen(given, "text", freeze_adapter(arrays, 2, 9)).module)

    parts, whole = [update_of(half) for half in halves], update_of(mean)
    gaps = [np.abs((parts[0][n] + parts[1][n]) / 2 - whole[n]).max() for n in whole]
    sizes = [np.abs(whole[name]).max() for name in whole]
    assert min(sizes) > 1e-4
    assert (max(gaps) < 1e-6 * max(sizes)) == exact


@given(
    rows=st.integers(1, 40),
    batch=st.integers(1, 9),
    epochs=st.integers(1, 3),
    rounds=st.integers(1, 7),
)
@settings(max_examples=60, deadline=None)
def test_the_rounds_are_the_epochs_cut_into_parts(
    rows: int, batch: int, epochs: int, rounds: int
) -> None:
    given = LlmSettings(federated="ffa", epochs=epochs, batch_size=batch, rounds=rounds)
    lengths = np.arange(1, rows + 1)
    parts = [round_batches(lengths, given, number, 3) for number in range(1, rounds + 1)]
    seen = np.concatenate([np.concatenate(part) for part in parts if part])
    np.testing.assert_array_equal(np.bincount(seen, minlength=rows), epochs)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    whole = round_batches(lengths, given.model_copy(update={"rounds": 1}), 1, 3)
    np.testing.assert_array_equal(np.concatenate(whole), seen)


def test_rounds_learn_and_start_from_the_average(model_folder: Folders, reviews: Reviews) -> None:
    given = shared_settings(model_folder("bert"), epochs=12)
    first = one_round(reviews, given)
    second = one_round(reviews, given, arrays=first.arrays, number=2)
    assert second.loss < 0.7 * first.loss
    assert second.start == first.start
    other = one_round(reviews, given, number=2)
    assert any((other.arrays[n] != second.arrays[n]).any() for n in other.arrays)


def test_a_round_is_repeatable_and_stored(
    model_folder: Folders, reviews: Reviews, tmp_path: Path
) -> None:
    given = shared_settings(model_folder("gpt2"), dropout=0.1)
    first = one_round(reviews, given, store=tmp_path)
    again = one_round(reviews, given, store=tmp_path)
    fresh = one_round(reviews, given.model_copy(update={"reuse": False}), store=tmp_path)
    assert (first.reused, again.reused, fresh.reused) == (False, True, False)
    assert again.tokens == 0
    assert first.tokens == fresh.tokens > 0
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, again.arrays[name])
        np.testing.assert_array_equal(array, fresh.arrays[name])
    assert (again.steps, again.loss, again.start) == (first.steps, first.loss, first.start)
    later = one_round(reviews, given, store=tmp_path, number=2)
    assert not later.reused


def test_more_rounds_than_steps_leave_the_adapter_as_it_is(
    model_folder: Folders, reviews: Reviews
) -> None:
    texts, labels = reviews
    given = shared_settings(model_folder("bert"), epochs=1, rounds=3)
    few = texts[:4], labels[:4]
    lines: list[str] = []
    first = one_round(few, given, progress=lines.append)
    last = one_round(few, given, arrays=first.arrays, number=3, progress=lines.append)
    assert (first.steps, last.steps) == (0, 1)
    assert [line.rsplit(": ", 1)[1][:13] for line in lines] == ["no step is le", "training loss"]
    start = build_shared(given, "text", 2, 9).arrays()
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, start[name])


def test_the_frozen_adapter_is_teacher_and_encoder(
    model_folder: Folders, reviews: Reviews, tmp_path: Path
) -> None:
    texts = reviews[0]
    given = shared_settings(model_folder("bert"), epochs=12, rounds=1)
    arrays = one_round(reviews, given).arrays
    frozen = freeze_adapter(arrays, 2, 9)
    save_adapter(frozen, tmp_path)
    frozen = load_adapter(tmp_path, frozen.digest, 2, 9)
    teacher = llm.fine_tune(task_of(reviews, given, adapter=frozen), tmp_path)
    assert teacher.metrics["accuracy"] > 0.9
    assert teacher.metrics["tokens"] == teacher.metrics["epochs"] == 0
    # The store gives the same model back, whole.
    assert teacher.folder is not None
    np.testing.assert_allclose(
        llm.load_fine_tuned(teacher.folder)(texts[:32]), teacher.soft_logits, atol=1e-5
    )
    # Its features differ from the base's, and the head on them gives the teacher's logits.
    features = llm.embed(texts, given, "text", adapter=frozen)
    assert np.abs(features - llm.embed(texts, given, "text")).max() > 0.01
    head = {name.rsplit(".", 1)[1]: a for name, a in arrays.items() if "modules_to_save" in name}
    np.testing.assert_allclose(
        (features @ head["weight"].T + head["bias"])[:32], teacher.soft_logits, atol=1e-4
    )


def test_a_lost_or_damaged_adapter_and_one_of_another_model(
    model_folder: Folders, tmp_path: Path
) -> None:
    given = shared_settings(model_folder("bert"))
    arrays = build_shared(given, "text", 2, 0).arrays()
    frozen = freeze_adapter(arrays, 2, 0)
    with pytest.raises(ModelError, match=r"shared adapter of this run cannot be read from .*; "):
        load_adapter(tmp_path, frozen.digest, 2, 0)
    save_adapter(frozen, tmp_path)
    (file,) = tmp_path.glob("teachers/adapter-*/*.safetensors")
    raw = file.read_bytes()
    file.write_bytes(raw[:-4] + b"\0\0\1\0")
    with pytest.raises(ModelError, match=r"\(it is missing or damaged\)"):
        load_adapter(tmp_path, frozen.digest, 2, 0)
    other = shared_settings(model_folder("llama"))
    with pytest.raises(ModelError, match=r"does not fit .*; accepted: the \d+ arrays"):
        build_frozen(other, "text", frozen)
