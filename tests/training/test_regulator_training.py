"""Training the regulator in simulated federations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from strategies.agents.regulator.encoding import VOCABULARY, encode
from strategies.agents.regulator.policy import draw, load, new_model, token_scores, tokens_of
from training.regulator import train as training
from training.regulator.rivals import RIVALS
from training.regulator.rollouts import Steps, by_model
from training.regulator.train import Course, evaluated, family, imitate, reinforce, train

torch.set_num_threads(1)


def fresh() -> tuple[Any, torch.optim.Optimizer]:
    """Return an untrained model and its optimizer; the same each time."""
    torch.manual_seed(0)
    model = new_model()
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3)


def test_a_reference_holds_the_regulator_near() -> None:
    reference = fresh()[0].eval()

    def moved(divergence: float) -> float:
        model, optimizer = fresh()
        course = Course(group=4, divergence=divergence)
        for number in range(3):
            running = family(0, "test", number, 2, 4)
            assert np.isfinite(reinforce(model, optimizer, running, course, reference))
        chance = torch.Generator().manual_seed(1)
        ids = torch.randint(9, len(VOCABULARY), (6, 8 + 7 * 4), generator=chance)
        tokens, free = draw(reference, ids, torch.tensor([False] * 6)).tokens, torch.ones(6) > 0
        with torch.no_grad():
            both = [token_scores(one, ids, tokens, free) for one in (model, reference)]
            return float(both[0].divergence(both[1]).mean())

    assert moved(10.0) < 0.5 * moved(0.0)


def test_imitation_finds_the_rule_likelier_and_repeats_itself() -> None:
    def learn() -> tuple[list[float], float]:
        model, optimizer = fresh()
        course = Course()
        losses = [imitate(model, optimizer, family(0, "test", 0, 4), course) for _ in range(3)]
        return losses, float(model.lm_head.weight.detach().sum())

    losses, weights = learn()
    assert 0 < losses[-1] < losses[0] - 0.5
    assert learn() == (losses, weights)


def test_what_earns_more_is_chosen_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[float] = []

    def play_once(running: Any, decide: Any) -> tuple[Steps, Any]:
        read, order = encode(running.states())
        ids = torch.as_tensor(read)
        stop, levels = decide(running, ids, order)
        many = (levels > 0).sum(1).astype(np.float64)
        counted.append(float(many.mean()))
        tokens = torch.as_tensor(tokens_of(stop, levels))
        places = np.arange(len(many))
        return Steps(ids, tokens, places, np.zeros_like(places)), -many[None]

    monkeypatch.setattr(training, "play", play_once)
    model, optimizer = fresh()
    for _ in range(8):
        reinforce(model, optimizer, family(0, "test", 1, 4, 8), Course(group=8))
    assert counted[-1] < 0.8 * counted[0]


def test_training_records_what_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "EVALUATED", 3)
    lines: list[str] = []
    course = Course(imitation=1, reinforcement=1, federations=2, group=2)
    model, about = train(course, 0, lines.append, families=1)
    assert {"everybody", "hindsight"} <= set(about["rivals"])
    assert [set(point) for point in about["curve"]] == [
        {"imitation", "learned", "reward"},
        {"reinforcement", "learned", "reward"},
    ]
    assert len(lines) == 3
    assert not model.training


def test_the_shipped_regulator_beats_its_rivals_in_simulation() -> None:
    plain = {name: RIVALS[name] for name in ("everybody", "half at random", "best standing")}
    found = evaluated(7, {"regulator": by_model(load()), **plain}, families=2)
    assert max(found, key=lambda name: found[name]) == "regulator"
