"""A federated run on `ibm:` backends: IBM's real client, and a cloud here that misbehaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message

from client_app.app import app
from client_app.site import forget
from core.messages import TRAIN
from quantum.engines.devices.job_store import JobStore
from quantum.engines.devices.jobs import JobRunner
from tests.conftest import Federate
from tests.quantum.http_cloud import TOKEN, HttpCloud
from tests.quantum.scripted_service import KilledError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The RuntimeOptions class is deprecated"),
]

GIVEN = (
    "run.clients=2",
    "run.rounds=2",
    "train.steps=2",
    "train.batch_rows=4",
    "agent.rule=fixed",
    "data.val_fraction=0.1",
    "hardware.shots=64",
    "hardware.layout_trials=1",
    "quantum.backend=ibm:manila,ibm:least_busy",
)


def paid(cloud: HttpCloud) -> int:
    """Jobs that the cloud accepted; each has a tag of its own or is paid twice."""
    tags = [job["tags"][0] for job in cloud.jobs.values()]
    assert len(set(tags)) == len(tags)
    return len(tags)


def test_a_run_on_hardware_survives_the_line_and_pays_once(
    federate: Federate, cloud: HttpCloud, own_jobs: Path, caplog: Any
) -> None:
    cloud.submit = ["lost", "", "lost-after", "429", "", "503", "lost-after"]
    ran = federate(*GIVEN, f"llm.store={own_jobs}")
    jobs = 2 * 2 * (2 + 1)  # clients, rounds, a job a step and one for the validation rows
    assert paid(cloud) == ran.summary["ledger"]["jobs"] == jobs
    assert ran.summary["ledger"]["qpu_seconds"] == pytest.approx(2.5 * jobs)
    assert ran.summary["ledger"]["queue_seconds"] == pytest.approx(59.5 * jobs)
    sent = next(iter(cloud.jobs.values()))["params"]["pubs"][0]
    assert sent[3] == pytest.approx(1 / 8)  # 64 shots
    backends = [client["backend"] for client in ran.events("prepared")[0]["clients"]]
    assert backends == ["ibm:manila", "ibm:least_busy (ibm_manila)"]
    assert ran.summary["test"]["rows"] == 60
    told = caplog.text + "".join(
        path.read_text(errors="ignore") for path in ran.folder.rglob("*") if path.is_file()
    )
    assert TOKEN not in told
    assert TOKEN.encode() not in (own_jobs / "jobs.sqlite").read_bytes()


def test_a_client_killed_while_it_waits_collects_its_job(
    federate: Federate,
    cloud: HttpCloud,
    own_jobs: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed in each order's second wait; the same order reaches a new process."""
    waited = JobRunner._final_status
    waits: list[str] = []

    def dying(self: JobRunner, *given: Any) -> str:
        waits.append("")
        if len(waits) % 5 == 2:
            raise KilledError
        return waited(self, *given)

    deaths = []

    def restarted(message: Message, context: Context) -> Message:
        while True:
            try:
                return app(message, context)
            except KilledError:
                assert message.metadata.message_type == TRAIN
                deaths.append(len(cloud.jobs))
                forget()

    monkeypatch.setattr(JobRunner, "_final_status", dying)
    ran = federate(*GIVEN, f"llm.store={own_jobs}", client_app=restarted)
    assert len(deaths) >= 3
    assert paid(cloud) == ran.summary["ledger"]["jobs"] == 12
    book = JobStore(own_jobs / "jobs.sqlite")
    assert book.open_jobs() == []
    assert book.spent("1/0").jobs + book.spent("1/1").jobs == 12
    entries = json.loads((ran.folder / "ledger.json").read_text())["entries"]
    assert [e["jobs"] for e in entries if e["round"]] == [3, 3, 3, 3]


def test_qpu_budget_of_the_federation_ends_the_run(
    federate: Federate, cloud: HttpCloud, own_jobs: Path
) -> None:
    ran = federate(*GIVEN, "stop.qpu_seconds=14", "run.rounds=5", f"llm.store={own_jobs}")
    assert ran.summary["stop_reason"] == "budget of 14 QPU seconds is spent"
    assert ran.summary["rounds"] == 1  # 2 clients, 3 jobs each, 2.5 s a job
