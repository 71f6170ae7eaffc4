"""A pretrained language model in the regulator's place; here one of random weights, and tiny."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from core import ModelError
from strategies.agents.regulator.encoding import GO_ID, SKIP_ID, VOCABULARY, encode
from strategies.agents.regulator.policy import draw, token_scores
from training.regulator.train import Course, family, imitate
from training.smollm2.model import Pretrained, restore, through

torch.set_num_threads(1)


class Words:
    """A tokenizer: a token a word with the space before it."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        words = re.findall(r"\n| ?[^ \n]+", text)
        return [self.known.setdefault(word, len(self.known)) for word in words]

    def decode(self, ids: torch.Tensor) -> str:
        names = list(self.known)
        return "".join(names[int(i)] for i in ids)


def small(**more: Any) -> tuple[Pretrained, Words]:
    torch.manual_seed(0)
    shape = {"vocab_size": 200, "hidden_size": 32, "intermediate_size": 48}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 5}
    base = LlamaForCausalLM(LlamaConfig(**shape, **heads)).to(torch.bfloat16).eval()
    words = Words()
    return Pretrained(base, words, first=2, last=4, **more), words


def observed(clients: int = 4, federations: int = 3) -> torch.Tensor:
    running = family(0, "test", 0, federations)
    ids = torch.as_tensor(encode(running.states())[0])
    return ids[:, : 8 + 7 * clients]


def test_a_text_holds_every_number_once_and_words_stand_where_lines_end() -> None:
    model, words = small()
    ids = observed()
    text = model.frozen.text(ids)
    lines = words.decode(text[0]).split("\n")
    assert lines[0] == "Columns: cost speed own teacher credit record since"
    assert lines[1].startswith("round A left ")
    assert lines[1].endswith(" clients E")  # four: A is none
    assert len(lines) == 2 + 4 + 1
    bins = [VOCABULARY[int(i)].lstrip("abcdefghijklmnopqrstuvwxyz") for i in ids[0, 8:15]]
    letters = [b if b == "?" else chr(ord("A") + int(b)) for b in bins]
    assert lines[2].split() == [*letters, "->"]
    arrow = words.known[" ->"]
    places = model.frozen.places(4)
    assert (text[:, places] == arrow).all()
    assert int((text[0] == arrow).sum()) == len(places) == 5
    assert places[0] == text.shape[1] - 1


def test_frozen_layers_are_computed_once_and_shared_by_copies() -> None:
    model, _ = small()
    ids, frozen = observed(), model.frozen
    states = frozen.states(ids)
    direct = through(frozen.layers, frozen.embed(frozen.text(ids)), frozen.rotary)
    assert torch.equal(states, direct)
    other = copy.deepcopy(model)
    assert other.frozen is frozen
    frozen.layers = None
    assert torch.equal(other.frozen.states(ids), direct)
    assert torch.equal(other.word_logits(ids), model.word_logits(ids))
    with torch.no_grad():
        model.head.add_(1.0)
    assert not torch.equal(other.head, model.head)


def test_all_words_are_drawn_from_one_reading_as_their_scores_say() -> None:
    model, _ = small()
    ids, free = observed(), torch.tensor([True, False, True])
    with torch.no_grad():
        model.head.mul_(40)
        likeliest = draw(model, ids, free)
        seeds = (torch.Generator().manual_seed(k) for k in range(20))
        drawn = next(one for k in seeds if (one := draw(model, ids, free, k)).stop.any())
        for choice in (likeliest, drawn):
            scores = token_scores(model, ids, choice.tokens, free)
            assert torch.allclose(scores.log_probability(), choice.log_probability)
    assert (likeliest.log_probability >= drawn.log_probability - 1e-6)[1]
    assert likeliest.tokens[1, 0] == GO_ID
    assert (likeliest.tokens[:, 1] != SKIP_ID).all()  # the client of most merit trains


def test_it_learns_to_imitate_and_is_restored_from_a_file(tmp_path: Path) -> None:
    model, _ = small()
    rest = [one for one in model.parameters() if not one.requires_grad]
    before = [one.clone() for one in rest]
    optimizer = torch.optim.AdamW(model.learnt().values(), lr=5e-3)
    course = Course(batch=16)
    losses = [imitate(model, optimizer, family(0, "test", 0, 4), course) for _ in range(4)]
    assert losses[-1] < losses[0] - 0.5
    assert all(torch.equal(one, other) for one, other in zip(rest, before, strict=True))
    file = tmp_path / "adapter.safetensors"
    save_file({name: one.detach() for name, one in model.learnt().items()}, file)
    again = restore(small()[0], file)
    assert torch.equal(again.word_logits(observed()), model.eval().word_logits(observed()))
    with pytest.raises(ModelError, match="holds other arrays"):
        restore(small(rank=4)[0], file)
