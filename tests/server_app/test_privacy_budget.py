"""What ends a run before it would spend too much, and what hides single rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from core import SettingsError, UserError, parse_run
from core.accounting import Releases, epsilon, epsilon_drawn, moment_multipliers
from strategies import build_agent
from strategies.privacy_budget import DRAWN, after_round, may_claim_draws
from strategies.state import FederationState
from tests.conftest import Federate

CENTRAL = ("privacy.dp=central", "aggregation.rule=uniform", "privacy.noise=2")
ROWS = (
    *("privacy.dp=local", "privacy.unit=row", "train.batch_rows=0", "llm.model=none"),
    *("distill.weight=0.0", "agent.kind=all", "privacy.noise=20"),
)
TINY_ROWS = (*ROWS, "llm.epochs=3")  # the default: without a language model it has no effect


def test_a_run_ends_before_the_round_that_would_pass_its_epsilon(federate: Federate) -> None:
    limit = epsilon({2.0: 3}, 1e-5)
    ran = federate(*CENTRAL, "run.rounds=6", f"privacy.max_epsilon={limit + 0.001}")
    assert ran.summary["rounds"] == 3
    spent = ran.summary["privacy"]["updates"]
    assert (spent["releases"], spent["epsilon"]) == (3, limit)
    after = epsilon({2.0: 4}, 1e-5)
    expected = f"round 4 would spend epsilon {after:.3g} of privacy.max_epsilon {limit + 0.001:g}"
    assert ran.summary["stop_reason"] == expected
    assert ran.decisions()[-1]["stop"]
    trained = [kind for kind, _ in ran.grid.log if kind == "train"]
    assert len(trained) == 9
    assert (ran.folder / "model.safetensors").exists()


def test_a_budget_below_the_first_round_is_refused_before_anything_is_sent(
    federate: Federate,
) -> None:
    first = f"{epsilon({2.0: 1}, 1e-5):.3g}"
    with pytest.raises(SettingsError, match=f"max_epsilon = 0.1: round 1 would spend .* {first} "):
        federate(*CENTRAL, "privacy.max_epsilon=0.1")


def test_by_rows_every_step_counts_and_so_do_the_moments(federate: Federate) -> None:
    def total(steps: int) -> float:
        return epsilon({10.0: steps, **moment_multipliers(8.0)}, 1e-5)

    given = (*TINY_ROWS, "run.rounds=5", "train.steps=3", "privacy.moment_noise=8")
    ran = federate(*given, f"privacy.max_epsilon={total(6) + 0.001}")
    privacy = ran.summary["privacy"]
    assert (privacy["updates"]["releases"], ran.summary["rounds"]) == (6, 2)
    assert privacy["rows"]["epsilon"] == total(6)
    assert "round 3 would spend epsilon" in ran.summary["stop_reason"]
    with pytest.raises(SettingsError, match="round 1 would spend epsilon"):
        federate(*given, f"privacy.max_epsilon={total(2)}")


def test_rows_are_noised_in_training_and_not_once_more(federate: Federate) -> None:
    """A step moves each number by the rate times the noise over the rows, and the gradient."""
    sent: list[np.ndarray] = []

    def watch(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == "train" and order.metadata.dst_node_id == 1000:
            sent.append(reply.content.array_records["arrays"]["angles"].numpy())
        return reply

    descent = ("train.optimizer=descent", "train.learning_rate=1", "privacy.seeded=true")
    given = (*TINY_ROWS, "run.rounds=1", "train.steps=1", *descent)
    for noise in ("1e-9", "400"):
        ran = federate(*given, f"privacy.noise={noise}", "privacy.clip=0.5", spoil=watch)
    rows = ran.events("prepared")[0]["clients"][0]["train_rows"]
    assert (sent[1] - sent[0]).std() == pytest.approx(400 * 0.5 / rows, rel=0.2)


def test_the_training_rows_loss_does_not_leave_the_site(federate: Federate) -> None:
    ran = federate(*TINY_ROWS, "run.rounds=1")
    for event in ran.events("client"):
        assert event["train_loss"] == event["loss"]
    ran = federate("run.rounds=1")
    assert all(event["train_loss"] != event["loss"] for event in ran.events("client"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("privacy.unit=row", "privacy.unit = 'row' would be ignored because privacy.dp = 'none'"),
        ("privacy.max_epsilon=3", "max_epsilon = 3.0 would be ignored because privacy.dp"),
        ("{rows} train.batch_rows=8", "'row' with train.batch_rows = 8; .*nothing is claimed"),
        ("{rows} train.optimizer=spsa", "'row' with train.optimizer = 'spsa'; .*gradient is clip"),
        ("{rows} quantum.backend=aer", "quantum.backend = 'aer' with train.optimizer = 'auto'"),
        ("{rows} distill.weight=0.3 distill.kind=smoothing", "'row' with distill.weight = 0.3"),
        ("{rows} llm.model=tfidf", "'row' with llm.model = 'tfidf'; .*learns from the rows"),
        ("{rows} evaluation.mode=federated", "with evaluation.baselines = True; .*without noise"),
        ("privacy.site_epsilon=2", "privacy.site_epsilon = 2.0 with privacy.dp = 'none'"),
        ("privacy.dp=local privacy.site_epsilon=2", "2.0 with privacy.moment_noise = 0.0; .*no ep"),
        ("privacy.dp=summed aggregation.rule=uniform", "'summed' with privacy.secure_aggregation"),
        ("{sums}", "privacy.dp = 'summed' with aggregation.rule = 'weighted'; accepted: .*uniform"),
        ("{sums} {rows2}", "'summed' with train.optimizer = 'auto'; .*not linear"),
        ("{sums} {rows2} train.optimizer=descent", "with train.max_steps = 100; .*own noise"),
        (
            "{sums} {rows2} {once} train.schedule=inverse-time",
            "'summed' with train.schedule = 'inverse-time'; .*too little noise",
        ),
        (
            "{sums} {rows2} {once} quantum.backend=aer train.warm_rounds=2",
            "'summed' with train.warm_rounds = 2; .*not linear",
        ),
        (
            "{sums} {rows2} {once} aggregation.rule=uniform",
            "unit = 'row' and aggregation.rule = 'uniform'; accepted: a mean weighted by rows",
        ),
    ],
)
def test_what_hides_nothing_is_refused(given: str, message: str) -> None:
    rows, sums = " ".join(ROWS), "privacy.dp=summed privacy.secure_aggregation=true"
    rows2 = rows.replace("privacy.dp=local ", "")
    once = "train.optimizer=descent train.max_steps=1 train.steps=1"
    words = given.format(rows=rows, sums=sums, rows2=rows2, once=once).split()
    with pytest.raises(UserError, match=message):
        parse_run([], words)


def test_only_a_secret_draw_of_all_clients_lowers_epsilon() -> None:
    given = (*CENTRAL, "agent.kind=random", "agent.fraction=0.5")
    drawn, _ = parse_run([], given)
    assert may_claim_draws(drawn)
    for other in (
        [*CENTRAL, "agent.kind=all"],
        [*given, "agent.leave_out=when-harmless"],
        ["privacy.dp=local", "agent.kind=random", "agent.fraction=0.5"],
    ):
        assert not may_claim_draws(parse_run([], other)[0])
    assert getattr(build_agent(drawn), "samples", "") == DRAWN


def test_a_draw_that_hides_who_trains_is_not_of_the_runs_seed(federate: Federate) -> None:
    """Every site knows the seed; with seeded noise, which hides nothing either, it is that."""

    def chosen(*more: str) -> list[Any]:
        given = ("run.clients=6", "agent.kind=random", "agent.fraction=0.5", "run.rounds=8")
        lines = federate(*CENTRAL, *given, "train.steps=1", *more).decisions()
        return [line["participants"] for line in lines]

    assert chosen() != chosen()
    assert chosen("privacy.seeded=true") == chosen("privacy.seeded=true")


def test_a_run_that_draws_says_both_figures(federate: Federate) -> None:
    given = ("run.clients=20", "agent.kind=random", "agent.fraction=0.05", "run.rounds=3")
    ran = federate(*CENTRAL, *given, "train.steps=1", "data.train_rows=400")
    spent = ran.summary["privacy"]["updates"]
    assert (spent["releases"], spent["drawn"]) == (3, 3)
    assert spent["epsilon"] == epsilon_drawn(1.0, {1: 3}, 20, 1e-5)
    assert spent["epsilon_if_known"] == epsilon({2.0: 3}, 1e-5) > spent["epsilon"]


def test_a_round_without_some_client_counts_as_not_drawn(federate: Federate) -> None:
    drawn, _ = parse_run([], [*CENTRAL, "agent.kind=random", "agent.fraction=0.5", "run.clients=4"])
    from strategies.decisions import Decision
    from tests.strategies.test_state import member

    state = FederationState.begin([member(k) for k in range(4)], drawn)
    two = Decision.to_train({0: 1, 2: 1}, "")
    assert after_round(drawn, state, Releases(1, 1), two) == Releases(2, 2)
    three = Decision.to_train({0: 1, 1: 1, 2: 1}, "")
    assert after_round(drawn, state, Releases(1, 1), three) == Releases(2, 1)
    state.absent = frozenset({3})
    assert after_round(drawn, state, Releases(1, 1), two) == Releases(2, 1)


# --- a site's own limit -----------------------------------------------------------------------

NOISED = ("privacy.dp=local", "privacy.noise=4", "privacy.moment_noise=8")


def account(ran: Any) -> list[Any]:
    from core.site_ledger import recorded

    return [
        recorded(path) for path in sorted((ran.folder.parent / "store/privacy").glob("*.jsonl"))
    ]


def test_every_site_accounts_for_what_leaves_it(federate: Federate, tmp_path: Path) -> None:
    store = f"llm.store={tmp_path / 'store'}"
    for count in (2, 4):
        ran = federate(*NOISED, store, "agent.kind=all")
        for site in account(ran):
            assert [one.count for one in site if one.what == "updates"] == [1] * count
            assert len([one for one in site if one.what == "moments"]) == count
    steps = federate(*TINY_ROWS, store, "run.rounds=1", "train.steps=3")
    assert [site[-1].count for site in account(steps)] == [3, 3, 3]
    assert not (Path(federate().folder) / "privacy").exists()


def test_a_site_sits_out_when_its_own_epsilon_is_spent(federate: Federate, tmp_path: Path) -> None:
    """Every site's pays for two rounds; the model of these is kept."""
    limit = epsilon({2.0: 2, **moment_multipliers(8.0)}, 1e-5)
    store = f"llm.store={tmp_path / 'store'}"
    given = (*NOISED, store, "run.rounds=4", f"privacy.site_epsilon={limit + 0.001}")
    ran = federate(*given, "agent.kind=all")
    assert ran.summary["rounds"] == 2
    assert "budget of client 0, 1, 2 does not pay for round 3" in ran.summary["stop_reason"]
    assert (ran.folder / "model.safetensors").exists()
    with pytest.raises(UserError, match=r"3 clients cannot.*over all runs on this site's rows"):
        federate(*given, "agent.kind=all")
    assert all(len(site) == 4 for site in account(ran))


def test_moments_do_not_leave_for_a_run_that_has_no_first_round_left(
    federate: Federate, tmp_path: Path
) -> None:
    limit = epsilon(moment_multipliers(8.0), 1e-5) + 0.001
    given = (*NOISED, f"llm.store={tmp_path / 'store'}", f"privacy.site_epsilon={limit}")
    with pytest.raises(UserError, match=r"3 clients cannot.*at most privacy.site_epsilon"):
        federate(*given, "agent.kind=all")
    assert not list(tmp_path.rglob("privacy/*.jsonl"))
