"""Language models in this process: random weights, and yet every answer is in the required form."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from core import ModelError, parse_run
from llm.chat.local import LocalChatModel, open_chat_model, plain_chat
from llm.chat.model import ChatModelError, Question
from strategies.decisions import ClientView, Decision, Observation
from strategies.decisions.llm_agent import choices
from strategies.decisions.parsing import parse_answer
from strategies.decisions.prompt import question, retry_question
from tests.llm.conftest import TEMPLATE, WITHOUT_SYSTEM

SEEN = Observation(
    round=2,
    rounds_left=3,
    min_steps=1,
    max_steps=40,
    plain_steps=10,
    plain_spend=60.0,
    losses=(0.6,),
    accuracies=(0.7,),
    clients=tuple(
        ClientView(client=k, rows=10 + k, steps=10, loss=0.5 + k / 10, circuits_per_step=2)
        for k in (0, 1, 12)
    ),
)
ASKED = question(SEEN, min_rounds=1)


def opened(folder: Path | str, *given: str) -> LocalChatModel:
    """Open a model that writes, unless it is told to choose."""
    written = ["agent.kind=llm", f"agent.model={folder}", "agent.decoding=schema"]
    settings, _ = parse_run([], [*written, *given])
    return open_chat_model(settings.agent, clients=3, seed=0)


@pytest.mark.parametrize(
    ("seed", "template"),
    [(0, ""), (1, TEMPLATE), (2, WITHOUT_SYSTEM), (3, TEMPLATE)],
    ids=["plain", "chat", "without system message", "other weights"],
)
def test_random_weights_answer_in_the_required_form(
    causal_folder: Callable[..., Path], seed: int, template: str
) -> None:
    chat_model = opened(causal_folder(seed, template))
    answer = chat_model.ask(ASKED)
    jsonschema.validate(json.loads(answer.text), ASKED.schema)
    assert answer.text.startswith('{"reason": "')
    assert ', "steps": {"0": ' in answer.text
    assert not answer.truncated
    assert answer.seconds > 0
    assert 20 < answer.answer_tokens < 250 + 36
    assert chat_model.tokenizer.decode(chat_model.tokenizer.encode(answer.text)) == answer.text
    result = parse_answer(answer.text, SEEN)
    assert result.notes == ()
    assert result.decision is not None or "nobody is chosen" in result.problem
    again = chat_model.ask(retry_question(ASKED, answer.text, "nobody is chosen"))
    jsonschema.validate(json.loads(again.text), ASKED.schema)
    assert again.prompt_tokens > answer.prompt_tokens


def test_the_same_question_has_the_same_answer(causal_folder: Callable[..., Path]) -> None:
    folder = causal_folder(1, TEMPLATE)
    assert opened(folder).ask(ASKED).text == opened(folder).ask(ASKED).text


def test_the_chat_template_is_used(causal_folder: Callable[..., Path]) -> None:
    chat_model = opened(causal_folder(0, TEMPLATE))
    ids = chat_model._tokens(ASKED.messages)
    text = chat_model.tokenizer.decode(ids[0])
    system, user = (m["content"] for m in ASKED.messages)
    assert text == f"<|system|>{system}<|end|><|user|>{user}<|end|><|assistant|>"
    merged = opened(causal_folder(0, WITHOUT_SYSTEM))._tokens(ASKED.messages)
    text = chat_model.tokenizer.decode(merged[0])
    assert text == f"<|user|>{system}\n\n{user}<|end|><|assistant|>"
    plain = plain_chat(retry_question(ASKED, "{}", "nobody").messages)
    assert plain.endswith("one JSON object only.\n\nAnswer:\n")
    assert "\n\nAnswer:\n{}\n\nThat cannot be used: nobody." in plain


def test_a_checkpoints_habits_of_sampling_are_not_the_agents(
    causal_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "sampling"
    shutil.copytree(causal_folder(0), folder)
    expected = opened(folder).ask(ASKED).text
    habits = {"do_sample": True, "temperature": 5.0, "repetition_penalty": 1.9, "eos_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(habits))
    assert opened(folder).ask(ASKED).text == expected


def test_the_limit_of_tokens_cuts_an_answer_off(causal_folder: Callable[..., Path]) -> None:
    answer = opened(causal_folder(0), "agent.max_tokens=9").ask(ASKED)
    assert answer.truncated
    assert answer.answer_tokens == 9
    assert "answer shorter" in parse_answer(answer.text, SEEN, answer.truncated).problem


def test_the_deadline_ends_an_answer(causal_folder: Callable[..., Path]) -> None:
    chat_model = opened(causal_folder(0), "agent.timeout=1e-9")
    with pytest.raises(ChatModelError, match=r"no whole answer within 1e-09 s") as raised:
        chat_model.ask(ASKED)
    assert raised.value.answer.answer_tokens == 1
    assert raised.value.answer.prompt_tokens > 100
    assert raised.value.answer.seconds > 0
    assert not raised.value.lasting


def test_a_question_that_the_model_cannot_hold_is_a_lasting_error(
    causal_folder: Callable[..., Path],
) -> None:
    chat_model = opened(causal_folder(0, max_position_embeddings=512))
    with pytest.raises(
        ChatModelError, match=r"together at most the 512 that agent\.model"
    ) as raised:
        chat_model.ask(ASKED)
    assert raised.value.lasting


def test_whatever_fails_is_no_answer_and_no_end_of_the_run(
    causal_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    chat_model = opened(causal_folder(0))
    with pytest.raises(ChatModelError, match=r"failed \(ValueError: no grammar for this schema"):
        chat_model.ask(replace(ASKED, schema={"type": "nonsense"}))

    def fails(*_: Any, **__: Any) -> None:
        raise IndexError("index out of range in self\nat line 3")

    monkeypatch.setattr(LocalChatModel, "_generate", fails)
    with pytest.raises(ChatModelError, match=r"failed \(IndexError: index out of range") as raised:
        chat_model.ask(ASKED)
    assert not raised.value.lasting


@pytest.mark.parametrize("decoding", ["schema", "choices"])
def test_scores_that_are_no_numbers_are_no_answer(
    causal_folder: Callable[..., Path], decoding: str
) -> None:
    chat_model = opened(causal_folder(0), f"agent.decoding={decoding}")
    for weights in chat_model.module.parameters():
        weights.data.fill_(float("nan"))
    with pytest.raises(ChatModelError, match="are no numbers"):
        chat_model.ask(offered(list("ABC")) if decoding == "choices" else ASKED)


def test_it_computes_on_every_core_and_gives_them_back(
    causal_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    chat_model, used = opened(causal_folder(0), "agent.decoding=choices"), []
    choose = chat_model._choose

    def watched(*given: Any) -> Any:
        used.append(torch.get_num_threads())
        return choose(*given)

    monkeypatch.setattr(chat_model, "_choose", watched)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        chat_model.ask(offered(list("ABC")))
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        chat_model.ask(offered(list("ABC")))
        assert used == [3, 2]
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


# --- choosing -------------------------------------------------------------------------------


def offered(labels: list[str]) -> Question:
    rule = Decision(participants=(0,), steps={0: 13})
    decisions = choices(SEEN, rule, stop_allowed=True).values()
    return question(SEEN, 1, dict(zip(labels, decisions, strict=False)))


@pytest.mark.parametrize(
    "labels", [list("ABCDEF"), ["stop now", "A", "everybody trains", "0.123 rows"]]
)
def test_choices_are_scored_as_without_a_cache(
    causal_folder: Callable[..., Path], labels: list[str]
) -> None:
    # Large weights: every token before a label matters for it.
    folder = causal_folder(3, TEMPLATE, initializer_range=0.5)
    chat_model = opened(folder, "agent.decoding=choices")
    asked = offered(labels)
    answer = chat_model.ask(asked)
    ids = chat_model._tokens(asked.messages)
    scores = []
    for label in asked.options:
        tokens = chat_model.tokenizer.encode(label, add_special_tokens=False)
        whole = torch.cat([ids, torch.tensor([tokens])], dim=1)
        with torch.inference_mode():
            logits = torch.log_softmax(chat_model.module(whole).logits[0].double(), dim=-1)
        scores.append(
            sum(float(logits[ids.shape[1] - 1 + k, token]) for k, token in enumerate(tokens))
        )
    expected = torch.log_softmax(torch.tensor(scores, dtype=torch.float64), dim=0)
    found = torch.tensor(list(answer.likelihoods.values()), dtype=torch.float64).log()
    assert torch.allclose(found, expected, atol=1e-3)
    best = list(asked.options)[int(expected.argmax())]
    assert answer.text == asked.options[best]
    assert parse_answer(answer.text, SEEN).notes == ()
    assert answer.prompt_tokens == ids.shape[1]


def test_choosing_needs_no_grammar(causal_folder: Callable[..., Path]) -> None:
    assert opened(causal_folder(0), "agent.decoding=choices").grammar is None


def test_small_models_choose_and_large_ones_write(
    causal_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = causal_folder(0)
    assert opened(folder, "agent.decoding=auto").closed
    monkeypatch.setattr("llm.chat.local.SMALL", 100)
    assert not opened(folder, "agent.decoding=auto").closed
    monkeypatch.setattr("llm.chat.local.find_spec", lambda name: None)
    assert opened(folder, "agent.decoding=auto").closed


def test_a_choice_that_took_too_long_is_none(causal_folder: Callable[..., Path]) -> None:
    chat_model = opened(causal_folder(0), "agent.decoding=choices", "agent.timeout=1e-9")
    with pytest.raises(ChatModelError, match=r"chose nothing within 1e-09 s \(agent.timeout\)"):
        chat_model.ask(offered(list("ABC")))


# --- models that will not do ----------------------------------------------------------------


def test_missing_and_foreign_models_are_one_line(
    causal_folder: Callable[..., Path], model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    mute = tmp_path / "mute"
    shutil.copytree(causal_folder(0), mute)
    (mute / "tokenizer.json").unlink()
    damaged = tmp_path / "damaged"
    shutil.copytree(causal_folder(0), damaged)
    (damaged / "model.safetensors").write_bytes(b"none")
    cases = {
        str(tmp_path / "none"): "there is no such folder",
        str(empty): "is not a transformers model: it has no config.json",
        str(mute): "has no tokenizer in",
        str(damaged): "cannot be loaded (",
        str(model_folder("bert")): "bert fills gaps, it does not write",
        str(model_folder("llama")): "1 weights are missing, the first is lm_head.weight",
        "nobody/nothing": "is no folder here, the hub cannot be reached",
    }
    for model, problem in cases.items():
        with pytest.raises(ModelError) as raised:
            opened(model)
        assert problem in str(raised.value)
        assert "agent.model" in str(raised.value)
        assert "llm.model" not in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_tokenizer_of_another_model_is_refused(causal_folder: Callable[..., Path]) -> None:
    folder = causal_folder(0, vocab_size=300)
    with pytest.raises(ModelError, match=r"it knows 500 tokens and the model 300.*choices"):
        opened(folder)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_where_there_is_none(causal_folder: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match=r"agent.device = 'cuda', but torch finds no CUDA"):
        opened(causal_folder(0), "agent.device=cuda")


# --- in a run -------------------------------------------------------------------------------


@pytest.mark.parametrize("decoding", ["schema", "choices"])
def test_a_model_in_this_process_directs_a_run(
    causal_folder: Callable[..., Path], federate: Callable[..., Any], decoding: str
) -> None:
    folder = causal_folder(1, TEMPLATE)
    given = ("agent.kind=llm", f"agent.model={folder}", f"agent.decoding={decoding}")
    ran = federate(*given, "train.steps=1", "train.max_steps=3")
    lines = ran.decisions()
    assert [len(line["attempts"]) >= 1 for line in lines] == [True] * len(lines)
    summary = ran.summary["agent"]
    assert summary["name"] == f"llm ({folder.name})"
    assert summary["prompt_tokens"] > 100 * len(lines)
    assert summary["answer_tokens"] > 0
    if decoding == "choices":  # random weights like a letter, whatever it stands for
        assert [len(line["attempts"]) for line in lines] == [2] * len(lines)
        assert summary["fallbacks"] == summary["uninformed"]
