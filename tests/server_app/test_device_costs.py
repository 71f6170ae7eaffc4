"""What a run on a device that costs money may take: said before, and bounded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_app.cost import estimate
from core import UserError, most_steps, parse_run, worst_steps
from data import load_federation
from llm_qfl.cli.plan import make_plan
from llm_qfl.cli.preflight import lines, paid
from server_app.preflight import check
from strategies.decisions import Decision, Observation
from tests.conftest import SMALL, Federate
from tests.quantum.http_cloud import HttpCloud

pytestmark = pytest.mark.filterwarnings("ignore:The RuntimeOptions class is deprecated")

IBM = (
    "run.clients=2",
    "train.steps=2",
    "train.max_steps=6",
    "train.batch_rows=4",
    "data.val_fraction=0.1",
    "hardware.shots=64",
    "hardware.layout_trials=1",
    "quantum.backend=ibm:manila,exact",
)


@pytest.fixture
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("QISKIT_IBM_TOKEN", raising=False)


class Greedy:
    """Asks for far more steps than anybody may give."""

    name = "greedy for steps"

    def decide(self, observation: Observation) -> Decision:
        clients = tuple(view.client for view in observation.clients)
        steps = dict.fromkeys(clients, 50)
        return Decision(participants=clients, steps=steps, reason="more")


@pytest.mark.slow
@pytest.mark.parametrize(("budget", "steps"), [((), 4), (("stop.qpu_seconds=100000",), 6)])
def test_without_a_budget_steps_on_hardware_at_most_double(
    federate: Federate,
    cloud: HttpCloud,
    own_jobs: Path,
    caplog: pytest.LogCaptureFixture,
    budget: tuple[str, ...],
    steps: int,
) -> None:
    ran = federate(*IBM, *budget, "run.rounds=1", f"llm.store={own_jobs}", agent=Greedy())
    assert ran.decisions()[0]["steps"] == {"0": steps, "1": steps}
    assert ran.summary["ledger"]["jobs"] == steps + 1
    said = "a device costs money and no budget is set: at most 4 steps a round, not 6"
    assert (said in caplog.messages) == (not budget)


BUDGETS = (
    "stop.circuits=9",
    "stop.shots=9",
    "stop.qpu_seconds=9",
    "hardware.budget_jobs=9",
    "hardware.budget_qpu_seconds=9",
)


@given(
    steps=st.integers(1, 60),
    most=st.integers(60, 300),
    backend=st.sampled_from(["exact", "aer:manila", "fake:manila", "ibm:least_busy", "ibm:x"]),
    budget=st.sampled_from(["", *BUDGETS]),
    rule=st.sampled_from(["adaptive", "fixed"]),
)
def test_the_bound_holds_where_money_is_spent_without_a_budget(
    steps: int, most: int, backend: str, budget: str, rule: str
) -> None:
    settings, _ = parse_run([], [f"train.steps={steps}", f"train.max_steps={most}"])
    own = parse_run([], ["quantum.backend=ibm:x", budget])[0] if budget else settings
    settings = settings.model_copy(
        update={
            "stop": own.stop,
            "hardware": own.hardware,
            "agent": settings.agent.model_copy(update={"rule": rule}),
        }
    )
    bounded = backend.startswith("ibm:") and not budget
    wanted = min(most, 2 * steps) if bounded else most
    assert most_steps(settings, ["exact", backend]) == wanted
    assert worst_steps(settings, ["exact", backend]) == (steps if rule == "fixed" else wanted)


def test_the_opening_says_what_hardware_may_cost(cloud: HttpCloud, own_jobs: Path) -> None:
    words = [*SMALL, *IBM, "hardware.qpu_price=2", f"llm.store={own_jobs}"]
    plan = make_plan([], words, None)
    found = check(plan.settings)
    _, sites = load_federation(plan.settings)
    rows = len(sites[0].validation)
    few, many = (
        2 * (2 * (steps + 1) + (steps * 8 + rows) * 64 * 250e-6)  # rounds; jobs, circuits, shots
        for steps in (2, 4)
    )
    assert found["clients"][0]["qpu_seconds"] == pytest.approx([few, many])
    assert found["clients"][1]["qpu_seconds"] == [0, 0]
    assert found["most_steps"] == 4
    (line,) = paid(plan, found)
    assert line.startswith("ibm:manila costs money: about ")
    assert f"{2 * few:,.2f} to {2 * many:,.2f} at hardware.qpu_price = 2" in line
    assert "the agent raises them to 4 in every round" in line
    assert "no more without a budget, though train.max_steps = 6" in line
    assert any(
        re.match(r"circuits .* at 2 steps a round, .* at 4, if", x) for x in lines(plan, found)
    )
    assert paid(plan, {}) == []
    free = make_plan([], [*SMALL, "quantum.backend=fake:manila"], None)
    assert paid(free, check(free.settings)) == []


def costs(tmp_path: Path, *words: str) -> dict[str, Any]:
    return estimate(parse_run([], [*SMALL, *IBM[:-1], f"llm.store={tmp_path}", *words])[0])


@pytest.mark.usefixtures("no_account")
@pytest.mark.parametrize(
    ("backend", "snapshot"),
    [
        ("ibm:ibm_kingston", "fake_marrakesh"),
        ("ibm:manila", "fake_manila"),
        ("aer:ibm_kingston", "fake_marrakesh"),
        ("aer:manila", "fake_manila"),
        ("fake:manila", "fake_manila"),
    ],
)
def test_any_named_device_is_estimated_without_an_account(
    backend: str, snapshot: str, tmp_path: Path
) -> None:
    found = costs(tmp_path, f"quantum.backend={backend}", "hardware.qpu_price=1.5")
    client = found["clients"][0]
    assert client["circuit"]["backend"] == snapshot
    shot = 250e-6 + client["circuit"]["seconds"]
    assert client["circuit"]["seconds"] > 0
    assert client["step"]["qpu_seconds"] == pytest.approx(2 + 8 * 64 * shot)
    assert found["price"] == 1.5
    # Two clients, two rounds, a job a step and one for the validation rows.
    jobs, circuits = (found["totals"]["steps"][key] for key in ("jobs", "circuits"))
    assert jobs == 2 * 2 * (2 + 1)
    seconds = 2 * jobs + circuits * 64 * shot
    assert found["totals"]["steps"]["qpu_seconds"] == pytest.approx(seconds)
    assert found["max_steps"] == (4 if backend.startswith("ibm:") else 6)


@pytest.mark.usefixtures("no_account")
def test_extrapolation_triples_the_shots_of_an_estimate(tmp_path: Path) -> None:
    backend = "quantum.backend=ibm:manila"
    plain, thrice = (
        costs(tmp_path, backend, f"hardware.resilience_level={level}")["clients"][0]["step"]
        for level in (1, 2)
    )
    assert thrice["qpu_seconds"] - 2 == pytest.approx(3 * (plain["qpu_seconds"] - 2))


@pytest.mark.usefixtures("no_account")
def test_no_device_stands_for_least_busy_and_plain_aer_takes_no_qpu(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no IBM Quantum account is saved on this machine"):
        costs(tmp_path, "quantum.backend=ibm:least_busy")
    assert costs(tmp_path, "quantum.backend=aer")["totals"]["steps"]["qpu_seconds"] == 0


def test_a_run_needs_the_account_all_the_same(no_account: None) -> None:
    settings, _ = parse_run([], [*SMALL, *IBM])
    with pytest.raises(UserError, match="no IBM Quantum account is saved on this machine"):
        check(settings)
