"""The teacher's hidden states: the same pooling whatever the architecture, stored on demand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm
from llm import adapters
from llm.models import build_classifier
from tests.llm.conftest import Folders, Reviews, settings_for, task_of


@pytest.mark.parametrize(("kind", "peft"), [("bert", "lora"), ("gpt2", "lora"), ("llama", "none")])
def test_hidden_states_are_those_before_the_head(
    kind: str, peft: str, model_folder: Folders, reviews: Reviews, tmp_path: Path
) -> None:
    """The mean over a row's tokens of the fine-tuned model's last states, one row at a time."""
    import torch

    settings = settings_for(model_folder(kind), peft=peft)
    texts = reviews[0]

    def run(hidden: bool) -> llm.Teacher:
        return llm.fine_tune(task_of(reviews, settings, hidden=hidden), tmp_path)

    teacher = run(hidden=True)
    assert teacher.hidden.shape == (32, 16)
    assert teacher.hidden.dtype == np.float32
    assert teacher.folder is not None
    with torch.random.fork_rng(devices=[]):
        model = build_classifier(llm.resolve(settings.model, "text"), 2)
        adapters.restore(adapters.adapt(model, settings), teacher.folder)
    model.module.eval()
    for row in (0, 7, 31):
        batch = model.tokens(texts[row : row + 1], "text", 16).batch([0])
        with torch.no_grad():
            states = model.encoder(**batch).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(teacher.hidden[row], states.numpy(), atol=1e-5)
    again = run(hidden=True)
    assert again.metrics["reused"]
    np.testing.assert_array_equal(again.hidden, teacher.hidden)
    other = run(hidden=False)
    assert not other.metrics["reused"]
    assert other.hidden.size == 0
    assert other.folder != teacher.folder
    np.testing.assert_array_equal(other.soft_logits, teacher.soft_logits)
    if kind == "bert":  # the head reads just these states
        head: Any = model.module.classifier
        logits = teacher.hidden @ head.weight.detach().numpy().T + head.bias.detach().numpy()
        np.testing.assert_allclose(logits, teacher.soft_logits, atol=1e-4)
