from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core import ModelError, parse_run
from llm.serialised import read_serialised, serialise
from strategies import build_agent
from strategies.agents.regulator import AGENT
from strategies.agents.regulator import agent as online
from strategies.agents.regulator.agent import GROUP, Learner, RegulatorAgent, earned, groups
from strategies.agents.regulator.encoding import (
    GO_ID,
    LEVELS,
    SKIP_ID,
    STOP_ID,
    VOCABULARY,
    encode,
    states_of,
)
from strategies.agents.regulator.policy import (
    WEIGHTS,
    Choice,
    allowed,
    compose,
    draw,
    likelihood,
    load,
    new_model,
    token_scores,
    tokens_of,
)
from strategies.decisions import ClientView, Decision, HasTranscript, Observation
from tests.strategies.agents import observations

torch.set_num_threads(1)


def view(client: int, **changes: Any) -> ClientView:
    base = {"steps": 5, "circuits_per_step": 100, "circuits_fixed": 7}
    return observations.view(client, **{**base, **changes})


def seen(number: int, **changes: Any) -> Observation:
    base = {
        "min_steps": 1,
        "plain_steps": 5,
        "plain_spend": 507.0 * number,
        "price": 0.005,
        "idle_price": 0.0025,
        "start_loss": 0.7,
        "losses": (0.6,),
        "accuracies": (0.6,),
    }
    clients = changes.pop("clients", [view(k) for k in range(number)])
    return observations.seen(clients, **{**base, **changes})


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def untrained() -> Any:
    torch.manual_seed(0)
    return new_model().eval()


def test_it_has_one_to_three_million_parameters(untrained: Any) -> None:
    assert 1e6 < sum(p.numel() for p in untrained.parameters()) < 3e6


@given(st.integers(0, 10**6), st.integers(1, 6))
def test_decided_and_decisions_are_each_others_inverse(seed: int, clients: int) -> None:
    rng = np.random.default_rng(seed)
    levels = rng.choice([0.0, *LEVELS], (4, clients))
    stop = rng.random(4) < 0.5
    choice = Choice(torch.as_tensor(tokens_of(stop, levels)), torch.zeros(4))
    assert (choice.levels == levels).all()
    assert (choice.stop == stop).all()


def test_the_client_of_most_merit_always_trains_and_nobody_stops_before_a_round() -> None:
    mask = allowed(torch.tensor([False, True]), 2)
    assert mask[0, 0].nonzero().flatten().tolist() == [GO_ID]
    assert mask[1, 0].nonzero().flatten().tolist() == [GO_ID, STOP_ID]
    assert not mask[:, 1, SKIP_ID].any()
    assert mask[:, 2, SKIP_ID].all()


def test_drawn_decided_are_as_likely_as_the_model_says(untrained: Any) -> None:
    ids = torch.randint(9, len(VOCABULARY), (6, 8 + 7 * 4), generator=chance(1))
    free = torch.tensor([True, False] * 3)
    choice = draw(untrained, ids, free, chance(2))
    again = likelihood(untrained, ids, choice.tokens, free)
    assert torch.allclose(choice.log_probability, again, atol=1e-4)
    assert (choice.levels[:, 0] > 0).all()
    assert not choice.stop[1::2].any()


def test_divergence_is_torchs_and_counts_what_is_said_only(untrained: Any) -> None:
    torch.manual_seed(1)
    ids = torch.randint(9, len(VOCABULARY), (6, 8 + 7 * 4), generator=chance(1))
    free = torch.tensor([True] * 6)
    tokens = draw(untrained, ids, free, chance(2)).tokens
    tokens[:, 0] = torch.tensor([STOP_ID, *[GO_ID] * 5])
    models = untrained, new_model().eval()
    ours, theirs = (token_scores(model, ids, tokens, free) for model in models)
    p, q = (torch.distributions.Categorical(logits=one.scores) for one in (ours, theirs))
    each = torch.distributions.kl_divergence(p, q)
    each[0, 1:] = 0
    assert torch.allclose(ours.divergence(theirs), each.sum(1), atol=1e-5)
    assert torch.allclose(ours.divergence(ours), torch.zeros(6), atol=1e-6)


def test_without_chance_each_word_is_the_likeliest(untrained: Any) -> None:
    ids = torch.randint(9, len(VOCABULARY), (1, 8 + 7 * 3), generator=chance(3))
    free = torch.tensor([True])
    choice = draw(untrained, ids, free)
    text = compose(ids, choice.tokens)
    assert text.shape == (1, 9 + 8 * 3)
    for place in range(4):
        end = 8 + 8 * place
        assert text[0, end] == choice.tokens[0, place]
        scores = untrained(input_ids=text[:, :end], use_cache=False).logits[0, -1]
        best = scores.masked_fill(~allowed(free, 3)[0, place], -torch.inf).argmax()
        assert best == choice.tokens[0, place]


@pytest.mark.parametrize("surprise", [1.0, -1.0])
def test_online_what_earned_more_than_before_becomes_likelier(
    untrained: Any, monkeypatch: pytest.MonkeyPatch, surprise: float
) -> None:
    rewards = iter([0.0, surprise])
    monkeypatch.setattr(online, "earned", lambda before, after: next(rewards))
    learner, now = Learner(copy.deepcopy(untrained)), seen(3)
    ids, free = torch.as_tensor(encode(states_of(now))[0]), torch.tensor([False])
    tokens = draw(learner.model, ids, free, chance(0)).tokens

    def likely() -> float:
        with torch.no_grad():
            return float(likelihood(learner.model, ids, tokens, free)[0])

    before = likely()
    for _ in range(3):
        learner.learn(now)
        learner.record(ids, tokens, free)
        learner.finish(now)
    assert (likely() - before) * surprise > 0


def test_online_a_wish_to_stop_that_is_not_granted_is_not_what_earned(untrained: Any) -> None:
    agent = RegulatorAgent(copy.deepcopy(untrained), online=True)
    wishes = 0
    for number in range(2, 20):
        wishes += agent.decide(seen(3, round=number)).stop
        assert agent.learner is not None
        assert [int(tokens[0, 0]) for _, tokens, _ in agent.learner._decided] == [GO_ID]
    assert wishes


def test_the_shipped_weights_record_how_they_were_made_and_fit_a_bundle() -> None:
    about = read_serialised(WEIGHTS, "the regulator", "")["metadata"]
    assert about["made_by"].startswith("python -m training.regulator.train --seed 0 ")
    assert about["curve"][-1]["reward"] > about["rivals"]["best standing"]
    assert WEIGHTS.stat().st_size < 4_000_000


@pytest.fixture(scope="module")
def shipped() -> Any:
    agent = build_agent(parse_run([], ["agent.kind=regulator"])[0])
    assert isinstance(agent, HasTranscript)
    return agent


@pytest.mark.parametrize("clients", [1, 2, 10, 12, 13, 50])
def test_it_decides_for_any_number_of_clients(shipped: Any, clients: int) -> None:
    agent = shipped
    decided = agent.decide(seen(clients))
    assert set(decided.participants) == set(decided.steps) <= set(range(clients))
    assert decided.participants
    assert all(step in {1, 2, 5, 10, 20} for step in decided.steps.values())
    assert len(agent.attempts) == len(groups(clients))
    assert agent.attempts[0].prompt.startswith("round1 left5 ")
    assert "train" in decided.reason
    assert agent.decide(seen(clients)) == decided


def test_groups_are_even_and_cover_everybody() -> None:
    for clients in range(1, 60):
        parts = groups(clients)
        assert sorted(place for part in parts for place in part) == list(range(clients))
        sizes = [len(part) for part in parts]
        assert max(sizes) <= GROUP
        assert max(sizes) - min(sizes) <= 1


def test_what_a_round_earned_is_counted_as_in_the_simulation() -> None:
    before = seen(3)
    after = seen(
        3,
        round=3,
        losses=(0.6, 0.5),
        accuracies=(0.6, 0.7),
        clients=(
            view(0, busy_seconds=4.0, seconds_per_step=0.8, chosen=1),
            view(1, busy_seconds=1.0, seconds_per_step=0.2, chosen=1),
            view(2, rounds_since=1),
        ),
    )
    # Client 2 was not timed: it counts as the mean of the others.
    paid, idle = 2 / 3, 3.0 / 7.5
    # Means of at most three: 0.7, 0.65 before and 0.6 after.
    expected = 0.05 - 0.005 * paid - 0.0025 * idle
    assert earned(before, after) == pytest.approx(expected)
    assert earned(before, before) is None


def test_online_it_learns_in_the_run_and_draws_the_same_with_the_same_seed() -> None:
    def ran(seed: int) -> tuple[list[Decision], float]:
        given = ["agent.kind=regulator", "agent.online=true", f"run.seed={seed}"]
        agent = AGENT.from_settings(parse_run([], given)[0])
        before = agent.model.lm_head.weight.detach().clone()
        losses, decided = [0.6], []
        for number in range(2, 7):
            now = seen(4, round=number, losses=tuple(losses), accuracies=(0.5,) * len(losses))
            decided.append(agent.decide(now))
            losses.append(losses[-1] - 0.3 / number**2)
        return decided, float((agent.model.lm_head.weight.detach() - before).abs().sum())

    first, moved = ran(0)
    assert moved > 0
    assert ran(0) == (first, moved)
    assert AGENT.from_settings(parse_run([], ["agent.kind=regulator"])[0]).learner is None


def test_missing_and_damaged_weights_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"weights of the regulator cannot be read.*reinstall"):
        load(tmp_path / "none.json")
    body = read_serialised(WEIGHTS, "the regulator", "")
    body["sha256"] = "0" * 64
    (tmp_path / "bad.json").write_text(json.dumps(body), encoding="utf-8")
    with pytest.raises(ModelError, match=r"weights of the regulator in .* are damaged"):
        load(tmp_path / "bad.json")
    torch.manual_seed(0)
    model = new_model()
    state = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}
    (tmp_path / "new.json").write_text(serialise(state, {}), encoding="utf-8")
    (tmp_path / "other.json").write_text(
        serialise({"model.norm.weight": state["model.norm.weight"]}, {})
    )
    with pytest.raises(ModelError, match=r"not those of this version's model"):
        load(tmp_path / "other.json")
    again = load(tmp_path / "new.json")
    assert torch.allclose(again.lm_head.weight, model.lm_head.weight.half().float())


@pytest.mark.parametrize("evaluation", ["central", "federated"])
def test_a_federation_is_regulated_and_every_text_is_recorded(
    federate: Any, evaluation: str
) -> None:
    rows = ["data.server_rows=0"] if evaluation == "federated" else []
    ran = federate("agent.kind=regulator", "run.rounds=3", f"evaluation.mode={evaluation}", *rows)
    decisions = ran.decisions()
    assert {line["kind"] for line in decisions} == {"regulator"}
    for line in decisions:
        assert line["decided_by"] == "regulator"
        assert line["attempts"][0]["answer"]
    known = decisions[-1]["observation"]["clients"]
    assert any(client["credit"] is not None for client in known) == (evaluation == "central")
