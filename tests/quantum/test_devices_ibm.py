"""The real client over HTTP: it speaks to a cloud that answers on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from core import BackendError, HardwareSettings
from quantum.engines.devices.backends import pick_backend
from quantum.engines.devices.jobs import JobRunner
from tests.quantum.device_jobs import ONE, SHOTS, go
from tests.quantum.http_cloud import HttpCloud, client_of
from tests.quantum.scripted_service import KilledError

# Of the client's own making, each time that it submits.
pytestmark = pytest.mark.filterwarnings("ignore:The RuntimeOptions class is deprecated")


def test_a_job_with_its_usage(cloud: HttpCloud, start: Callable[..., JobRunner]) -> None:
    assert go(start()) == ONE
    assert go(start()) == ONE
    (job,) = cloud.jobs.values()
    assert job["params"]["resilience_level"] == 1
    assert "options" not in job["params"] or job["params"]["options"] == {}
    assert [t.startswith("llm-qfl-") for t in job["tags"]] == [True]


def test_settings_reach_the_service(cloud: HttpCloud, start: Callable[..., JobRunner]) -> None:
    go(start(HardwareSettings(resilience_level=0, twirling=True, dynamical_decoupling="XY4")))
    params = cloud.jobs["job-0"]["params"]
    assert params["resilience_level"] == 0
    assert params["options"] == {
        "twirling": {"enable_gates": True},
        "dynamical_decoupling": {"enable": True, "sequence_type": "XY4"},
    }
    assert {pub[3] for pub in params["pubs"]} == {SHOTS**-0.5}


@pytest.mark.parametrize("fault", ["lost", "lost-after", "429", "503"])
def test_a_lost_connection_is_paid_once(
    cloud: HttpCloud, start: Callable[..., JobRunner], fault: str
) -> None:
    cloud.submit = [fault]
    assert go(start()) == ONE
    assert len(cloud.jobs) == 1


def test_a_restart_collects(cloud: HttpCloud, start: Callable[..., JobRunner]) -> None:
    def die(seconds: float) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        go(start(sleep=die))
    assert go(start()) == ONE
    assert len(cloud.jobs) == 1


def test_a_forgotten_job_is_submitted_anew(
    cloud: HttpCloud, start: Callable[..., JobRunner]
) -> None:
    def die(seconds: float) -> None:
        cloud.jobs["gone"] = cloud.jobs.pop("job-0") | {"tags": []}
        raise KilledError

    with pytest.raises(KilledError):
        go(start(sleep=die))
    assert go(start()).jobs == 2


@pytest.mark.parametrize(
    ("reason", "jobs", "message"),
    [
        ({"reason": "Internal error", "reasonCode": 9701}, 2, ""),
        ({"reason": "Instruction foo is not supported", "reasonCode": 7001}, 1, "Error code 7"),
        ({}, 1, "ValueError: broken"),
    ],
)
def test_a_failed_job(
    cloud: HttpCloud,
    start: Callable[..., JobRunner],
    reason: dict[str, Any],
    jobs: int,
    message: str,
) -> None:
    cloud.end = [("Failed", reason)]
    if message:
        with pytest.raises(BackendError, match=f"job job-0 failed at ibm_manila: .*{message}"):
            go(start())
    else:
        assert go(start()) == ONE + ONE
    assert len(cloud.jobs) == jobs


def test_a_stop_and_a_timeout_cancel(cloud: HttpCloud, start: Callable[..., JobRunner]) -> None:
    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(start(sleep=stop))
    clock = iter([0.0, 1.0])
    with pytest.raises(BackendError, match="job-1 had not ended after 1 s and was cancelled"):
        go(start(timeout=1.0, clock=lambda: next(clock)), "other")
    assert [job["state"] for job in cloud.jobs.values()] == ["Cancelled", "Cancelled"]


def test_open_jobs_are_cancelled_on_request(
    cloud: HttpCloud, start: Callable[..., JobRunner]
) -> None:
    def die(seconds: float) -> None:
        raise KilledError

    cloud.polls = 10
    with pytest.raises(KilledError):
        go(start(sleep=die))
    assert start().cancel_open("run-1") == 1
    assert cloud.jobs["job-0"]["state"] == "Cancelled"


@pytest.mark.parametrize(("execution", "mode"), [("session", "dedicated"), ("batch", "batch")])
def test_sessions_open_with_the_first_job_close_at_the_end_and_open_again_when_expired(
    cloud: HttpCloud, start: Callable[..., JobRunner], execution: Any, mode: str
) -> None:
    runner = start(HardwareSettings(execution=execution))
    runner.service.close()
    assert cloud.sessions == {}
    go(runner, "a")
    go(runner, "b")
    assert cloud.sessions == {"session-0": {"mode": mode, "open": True}}
    cloud.sessions["session-0"]["open"] = False  # its time is up
    go(runner, "c")
    used = [job["session_id"] for job in cloud.jobs.values()]
    assert used == ["session-0", "session-0", "session-1"]
    runner.service.close()
    assert not cloud.sessions["session-1"]["open"]


def test_backends(cloud: HttpCloud) -> None:
    client = client_of(cloud)
    for name in ("manila", "ibm_manila", "least_busy"):
        assert pick_backend(client, name, 5).name == "ibm_manila"
    for name, qubits, why in (
        ("nope", 2, "no such backend; accepted: ibm:ibm_manila .5 qubits.; change"),
        ("manila", 6, "has 5 qubits and the circuit needs 6"),
        ("least_busy", 6, "none in operation of 6 qubits"),
    ):
        with pytest.raises(BackendError, match=why):
            pick_backend(client, name, qubits)
    cloud.operational = False
    for name, why in (
        ("manila", "ibm_manila is out of operation now; accepted: .*least_busy, or wait"),
        ("least_busy", "none in operation of 2 qubits"),
    ):
        with pytest.raises(BackendError, match=why):
            pick_backend(client_of(cloud), name, 2)


def test_a_lost_connection_is_not_taken_for_an_empty_account() -> None:
    cloud = HttpCloud()
    cloud.url = "http://127.0.0.1:9"
    with pytest.raises(BackendError, match="no such backend, or IBM Quantum cannot be reached"):
        pick_backend(client_of(cloud), "manila", 2)
    with pytest.raises(BackendError, match=r"cannot be opened .*Max retries exceeded"):
        pick_backend(client_of(cloud), "least_busy", 2)
