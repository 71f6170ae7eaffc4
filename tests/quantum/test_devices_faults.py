"""The same promise under random faults, real kills, and two clients that want the same job."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import BackendError
from quantum.engines.devices.base import Budget
from quantum.engines.devices.job_store import JobStore
from quantum.engines.devices.jobs import JobRunner
from tests.quantum.scripted_service import (
    Cloud,
    KilledError,
    ScriptedService,
    expected,
    make_request,
)

KEYS = ("a", "b", "c")
READS = ("ok", "ok", "lost", "503", "timeout", "killed")


def faults(*names: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), max_size=6)


LIVES = st.lists(
    st.fixed_dictionaries(
        {
            "submit": faults(
                "ok", "lost", "lost-after", "429", "503-after", "bad", "killed", "killed-after"
            ),
            "find": faults(*READS),
            "tag": faults(*READS),
            "status": faults(*READS, "stop", "401"),
            "result": faults(*READS),
            "usage": faults(*READS),
            "metrics": faults(*READS),
            "error_message": faults(*READS),
            "cancel": faults("ok", "lost"),
        }
    ),
    max_size=6,
)
ENDINGS = st.lists(
    st.sampled_from(
        [
            ("DONE", ""),
            ("DONE", ""),
            ("ERROR", "Error code 9999; internal error"),
            ("ERROR", "Error code 7001; Instruction foo is not supported."),
            ("CANCELLED", ""),
        ]
    ),
    max_size=5,
)


def runner_on(path: Path, service: ScriptedService) -> JobRunner:
    return JobRunner(
        service, JobStore(path), Budget(), 2, 3600.0, np.random.default_rng(0), lambda seconds: None
    )


def live(path: Path, cloud: Cloud, script: dict[str, list[str]]) -> dict[str, list[np.ndarray]]:
    """Ask for all keys until something ends this client; return what it got."""
    runner, got = runner_on(path, ScriptedService(cloud, script)), {}
    for key in KEYS:
        try:
            got[key] = runner.run(make_request(key))[0]
        except BackendError:
            continue
        except (KilledError, KeyboardInterrupt):
            break
    return got


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(lives=LIVES, endings=ENDINGS, polls=st.integers(0, 4))
def test_no_job_is_paid_twice_and_none_is_lost(
    lives: list[dict[str, list[str]]], endings: list[tuple[str, str]], polls: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, cloud = Path(folder) / "jobs.sqlite", Cloud(polls, list(endings))
        for script in lives:
            live(path, cloud, script)
        got: dict[str, list[np.ndarray]] = {}
        for _ in range(len(endings) + 1):  # each more life meets one more bad ending at worst
            got |= live(path, cloud, {})
        store = JobStore(path)
        # None is lost: all have values, those of their key; and the store knows every job.
        assert {k: [v.tolist() for v in got[k]] for k in got} == {
            k: [v.tolist() for v in expected(k)] for k in KEYS
        }
        entries = {e.job_id: e for key in KEYS for e in store.attempts(key) if e.job_id}
        assert set(entries) == set(cloud.jobs)
        assert all(job.state in ("DONE", "ERROR", "CANCELLED") for job in cloud.jobs.values())
        # None is paid twice: one job an attempt, one job of each key that came to its values.
        assert set(cloud.bills.values()) == {1}
        done = Counter(job.key for job in cloud.jobs.values() if job.state == "DONE")
        assert done == dict.fromkeys(KEYS, 1)
        assert store.spent("run-1").jobs == sum(cloud.bills.values())
        assert store.open_jobs() == []


CLIENT = """
import os, pickle, sys
from pathlib import Path
from typing import Any
from tests.quantum.scripted_service import Cloud, ScriptedService, make_request
from tests.quantum.test_devices_faults import runner_on

folder = Path(sys.argv[1])
cloud = pickle.loads((folder / "cloud").read_bytes())
service = ScriptedService(cloud)

def die(seconds):
    (folder / "cloud").write_bytes(pickle.dumps(cloud))
    os._exit(9)

if sys.argv[2] == "before the id":
    accept = cloud.accept
    cloud.accept = lambda *given: (accept(*given), cloud.__dict__.pop("accept"), die(0))
runner = runner_on(folder / "jobs.sqlite", service)
runner._sleep = die
runner.run(make_request("k"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before the id", "after the id"])
def test_a_killed_process_leaves_a_job_that_the_next_one_collects(
    tmp_path: Path, when: str
) -> None:
    (tmp_path / "cloud").write_bytes(pickle.dumps(Cloud()))
    died = subprocess.run(
        [sys.executable, "-c", CLIENT, str(tmp_path), when], capture_output=True, text=True
    )
    assert died.returncode == 9, died.stderr
    cloud = pickle.loads((tmp_path / "cloud").read_bytes())
    entry = JobStore(tmp_path / "jobs.sqlite").find("k")
    assert entry is not None
    assert entry.status == ("intended" if when == "before the id" else "submitted")
    service = ScriptedService(cloud)
    values, usage = runner_on(tmp_path / "jobs.sqlite", service).run(make_request("k"))
    assert [v.tolist() for v in values] == [v.tolist() for v in expected("k")]
    assert (usage.jobs, sum(cloud.bills.values())) == (1, 1)
    assert "submit" not in service.calls
    assert not list(tmp_path.glob("*.lock"))


def test_clients_that_request_the_same_job_at_once_pay_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud, got = Cloud(polls=5), list[list[float]]()
    accept = cloud.accept

    def slowly(*given: Any) -> Any:
        time.sleep(0.05)  # time enough for the others to ask too
        return accept(*given)

    monkeypatch.setattr(cloud, "accept", slowly)

    def client() -> None:
        runner = runner_on(tmp_path / "jobs.sqlite", ScriptedService(cloud))
        got.append(runner.run(make_request("k"))[0][0].tolist())

    clients = [threading.Thread(target=client) for _ in range(5)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join(60)
    assert got == [expected("k")[0].tolist()] * 5
    assert sum(cloud.bills.values()) == 1
