"""The CUDA path, on a Llama of random weights; skipped where torch finds no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import llm
from core import LlmSettings
from tests.llm.conftest import Folders, Reviews, settings_for, task_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("peft", ["lora", "qlora", "none"])
def test_fine_tuned_on_the_gpu(
    peft: Any, model_folder: Folders, reviews: Reviews, tmp_path: Path
) -> None:
    texts = reviews[0]
    settings = settings_for(model_folder("llama"), peft=peft, device="cuda", epochs=6, patience=0)
    state = torch.cuda.get_rng_state()
    lines: list[str] = []
    teacher = llm.fine_tune(task_of(reviews, settings), tmp_path, lines.append)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert f"({peft} on cuda, " in lines[0]
    assert teacher.metrics["accuracy"] >= 0.9 or peft == "none"
    assert teacher.folder is not None
    for device in ("cuda", "cpu"):
        logits = llm.load_fine_tuned(teacher.folder, device)(texts[:32])
        within = 0.1 if peft == "qlora" else 1e-3  # 4-bit layers compute in bfloat16 on CUDA
        np.testing.assert_allclose(logits, teacher.soft_logits, atol=within)


def test_embeddings_are_the_same_on_both(model_folder: Folders, reviews: Reviews) -> None:
    found = [
        llm.embed(reviews[0], LlmSettings(model=str(model_folder("llama")), device=device), "text")
        for device in ("cpu", "cuda", "auto")
    ]
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    np.testing.assert_array_equal(found[2], found[1])
