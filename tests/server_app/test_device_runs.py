"""Whole federated runs on devices: Aer, and fake backends through the local runtime service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message

from client_app.app import app
from client_app.site import forget
from core import UserError
from core.messages import ARRAYS, METRICS, TRAIN, unpack_parameters
from quantum.engines.devices.ibm import IbmService
from quantum.engines.devices.job_store import JobStore
from tests.conftest import Federate, Ran

DEVICE = (
    "hardware.shots=32",
    "hardware.layout_trials=1",
    "train.batch_rows=4",
    "data.val_fraction=0.1",
    "distill.weight=0",  # nothing uses a language model: none is fine-tuned
    "agent.rule=fixed",
)
FEW = ("run.clients=2", "train.steps=1", "data.train_rows=80")
"""Noisy devices take their time: two clients, as many rows each, and a step a round."""
VALIDATED = 4  # rows of each client's validation set


def entries(ran: Ran, server_round: int) -> list[dict[str, Any]]:
    ledger = json.loads((ran.folder / "ledger.json").read_text())
    return [entry for entry in ledger["entries"] if entry["round"] == server_round]


@pytest.mark.slow
def test_different_clients_have_different_backends(federate: Federate, own_jobs: Path) -> None:
    ran = federate(
        *DEVICE,
        "quantum.backend=exact,fake:manila,aer:fake_manila",
        "run.rounds=1",
        "train.steps=2",
        f"llm.store={own_jobs}",
    )
    backends = [client["backend"] for client in ran.events("prepared")[0]["clients"]]
    assert backends == ["exact", "fake:manila", "aer:fake_manila"]
    exact, fake, aer = entries(ran, 1)
    assert (exact["jobs"], exact["shots"]) == (0, 0)
    for device in (fake, aer):
        assert device["jobs"] == 2 + 1  # one a step, one for the validation rows
        assert device["circuits"] == 2 * 2 * 4 + VALIDATED
        assert device["shots"] == 32 * device["circuits"]
        assert device["two_qubit_gates"] >= 12 * device["circuits"]
    kept = JobStore(own_jobs / "jobs.sqlite")
    assert kept.spent("1/1").jobs == 3  # fake backends' jobs are in the store of their node


@pytest.mark.slow
def test_a_restarted_client_collects_its_jobs(federate: Federate, own_jobs: Path) -> None:
    """Each order is carried out twice, by clients that remember nothing but what is on disk."""
    spent: list[int] = []

    def twice(message: Message, context: Context) -> Message:
        first = app(message, context)
        if message.metadata.message_type != TRAIN:
            return first
        spent.append(JobStore(own_jobs / "jobs.sqlite").spent("1/0").jobs)
        forget()
        second = app(message, context)
        spent.append(JobStore(own_jobs / "jobs.sqlite").spent("1/0").jobs)
        reports = [dict(reply.content.metric_records[METRICS]) for reply in (first, second)]
        for key in ("loss", "jobs", "circuits", "shots"):
            assert reports[0][key] == reports[1][key]
        arrays = [unpack_parameters(r.content.array_records[ARRAYS]) for r in (first, second)]
        assert all((arrays[0][name] == arrays[1][name]).all() for name in arrays[0])
        return second

    one = ("run.clients=1", "run.rounds=1", "train.steps=2", "quantum.backend=fake:manila")
    ran = federate(*DEVICE, *one, f"llm.store={own_jobs}", client_app=twice)
    assert spent == [3, 3]  # nothing was submitted again
    assert entries(ran, 1)[0]["jobs"] == 3


def test_warm_rounds_cost_no_circuits(federate: Federate) -> None:
    ran = federate(*DEVICE, "quantum.backend=aer", "train.warm_rounds=1", "run.rounds=2")
    for entry in entries(ran, 1):
        assert entry["steps"] > 0
        assert (entry["jobs"], entry["circuits"], entry["shots"]) == (0, 0, 0)
    for entry in entries(ran, 2):
        assert entry["circuits"] == 2 * 4 * entry["steps"] + VALIDATED


@pytest.mark.parametrize(("unit", "price"), [("circuits", 1), ("shots", 32)])
def test_a_budget_is_never_overrun(federate: Federate, unit: str, price: int) -> None:
    budget = 250 * price
    ran = federate(*DEVICE, "quantum.backend=aer", "run.rounds=9", f"stop.{unit}={budget}")
    spent = ran.summary["ledger"][unit]
    assert budget * 0.7 < spent <= budget
    assert f"{unit} left do not pay for another round" in ran.summary["stop_reason"]


def test_a_nodes_own_budget_ends_its_part(federate: Federate, own_jobs: Path) -> None:
    """The run ends with the model so far, all that was paid is reported, and nothing is overrun."""
    ran = federate(
        *DEVICE,
        "quantum.backend=aer",
        "hardware.budget_jobs=6",
        "run.rounds=9",
        f"llm.store={own_jobs}",
    )
    assert ran.summary["stop_reason"] in (
        "the budget of client 0, 1, 2 does not pay for round 3",
        "the budget of every client is spent",
    )
    assert ran.summary["test"]["rows"] == 60
    assert [ran.events("client")[k]["steps"] for k in (0, 3)] == [3, 1]  # 3 + 1, then 1 + 1 jobs
    assert ran.summary["ledger"]["jobs"] == 3 * 6


def test_a_budget_that_pays_for_no_round_is_one_line(federate: Federate, own_jobs: Path) -> None:
    store = f"llm.store={own_jobs}"
    with pytest.raises(
        UserError, match=r"client 0: hardware\.budget_jobs = 1 with 1 spent or reserved"
    ):
        federate(*DEVICE, "quantum.backend=aer", "hardware.budget_jobs=1", store)


def test_one_clients_budget_does_not_end_the_others(federate: Federate, own_jobs: Path) -> None:
    ran = federate(
        *DEVICE,
        "quantum.backend=aer",
        "run.rounds=4",
        f"llm.store={own_jobs}",
        node_configs={1: {"hardware.budget_jobs": 5}},
    )
    assert ran.summary["rounds"] == 4
    trained = [e["client"] for e in ran.events("client")]
    assert (trained.count(0), trained.count(1), trained.count(2)) == (4, 1, 4)
    participants = [decision["participants"] for decision in ran.decisions()]
    assert participants == [[0, 1, 2], [0, 1, 2], [0, 2], [0, 2]]  # it fails once, then sits out


def test_the_server_evaluates_on_the_device_that_is_set(federate: Federate) -> None:
    few = (*DEVICE, *FEW, "quantum.backend=aer:manila")
    exact, noisy = federate(*few), federate(*few, "evaluation.backend=aer:manila")
    assert exact.summary["judge"] == {"backend": "exact"}
    evaluator = noisy.summary["judge"]
    # Two rounds, the prior correction of the kept model, and the test.
    assert (evaluator["backend"], evaluator["circuits"]) == ("aer:manila", 3 * 40 + 60)
    assert evaluator["jobs"] == 4
    assert noisy.summary["test"]["loss"] != exact.summary["test"]["loss"]


def test_federated_evaluation_is_metered(federate: Federate) -> None:
    ran = federate(
        *DEVICE,
        "quantum.backend=aer",
        "evaluation.mode=federated",
        "data.server_rows=0",
        "run.rounds=1",
    )
    tested = entries(ran, 2)
    assert [entry["circuits"] for entry in tested] == [20, 20, 20]
    assert [entry["shots"] for entry in tested] == [640] * 3
    assert [entry["jobs"] for entry in tested] == [1, 1, 1]


def test_same_seed_same_shots(federate: Federate) -> None:
    one, two, other = (
        federate(*DEVICE, *FEW, "quantum.backend=aer:manila", *more)
        for more in ([], [], ["run.seed=1"])
    )
    assert one.summary["test"] == two.summary["test"]
    assert one.summary["test"] != other.summary["test"]


def test_the_evaluators_jobs_belong_to_the_run_and_its_session_is_closed(
    federate: Federate, own_jobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    close = IbmService.close

    def note(service: IbmService) -> None:
        closed.append(service.name)
        close(service)

    monkeypatch.setattr(IbmService, "close", note)
    federate(
        *DEVICE,
        "run.clients=1",
        "run.rounds=1",
        "train.steps=1",
        "quantum.backend=fake:manila",
        "evaluation.backend=fake:manila",
        "hardware.execution=session",
        f"llm.store={own_jobs}",
    )
    assert JobStore(own_jobs / "jobs.sqlite").spent("/judge").jobs == 3  # the grid has no run id
    assert len(closed) >= 1 + 2


def test_budgets_that_end_while_evaluating_keep_the_model(
    federate: Federate, own_jobs: Path
) -> None:
    """Warm rounds train for nothing, but federated evaluation is paid in each."""
    ran = federate(
        *DEVICE,
        "quantum.backend=aer",
        "evaluation.mode=federated",
        "data.server_rows=0",
        "train.warm_rounds=9",
        "run.rounds=9",
        "hardware.budget_jobs=4",
        f"llm.store={own_jobs}",
    )
    assert ran.summary["rounds"] == 3  # a job each, and one reserved for the test
    assert ran.summary["test"]["rows"] == 60
    assert "the budget of client 0, 1, 2 does not pay" in ran.summary["stop_reason"]
    assert ran.summary["ledger"]["jobs"] == 3 * 4
    numbers = [(e["round"], e["client"]) for e in entries(ran, 5)]
    assert numbers == [(5, 0), (5, 1), (5, 2)]  # after the round that nobody could pay
