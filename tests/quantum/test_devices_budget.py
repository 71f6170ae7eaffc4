"""What is open can be cancelled, and what is spent is bounded before it is spent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core import BackendError, HardwareSettings
from quantum.engines.base import Usage
from quantum.engines.devices.base import Budget
from quantum.engines.devices.jobs import JobRunner
from tests.quantum.scripted_service import KilledError, ScriptedService, make_request
from tests.quantum.scripted_site import ONE, OWN_FAULT, Site, check


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "jobs.sqlite")


def test_cancel_open_cancels_what_runs_and_leaves_what_is_done(site: Site) -> None:
    for key, script in {
        "runs": {"status": ["killed"]},
        "orphan": {"submit": ["killed-after"]},
        "never accepted": {"submit": ["killed"]},
        "done": {"result": ["killed"]},
        "forgotten": {"status": ["killed"]},
    }.items():
        with pytest.raises(KilledError):
            site.start(**script).run(make_request(key))
    with pytest.raises(KilledError):
        site.start(status=["killed"]).run(make_request("other", run="run-2"))
    del site.cloud.jobs[site.entry("forgotten").job_id]
    runner = site.start()
    assert len(runner.store.open_jobs("run-1")) == 5
    assert runner.cancel_open("run-1") == 2
    assert site.service.calls.count("cancel") == 2
    statuses = {key: site.entry(key).status for key in ("runs", "orphan", "never accepted")}
    assert set(statuses.values()) == {"cancelled"}
    assert site.entry("forgotten").status == "failed"
    assert [e.key for e in runner.store.open_jobs()] == ["done", "other"]
    assert {j.key for j in site.cloud.jobs.values() if j.cancelled} == {"runs", "orphan"}
    assert check(site.start().run(make_request("done")), "done") == ONE


@pytest.mark.parametrize(
    ("budget", "setting", "spent", "cost"),
    [
        (Budget(jobs=2), "budget_jobs = 2", "2", "1"),
        (Budget(circuits=8), "budget_circuits = 8", "8", "4"),
        (Budget(shots=8192), "budget_shots = 8192", "8192", "4096"),
        # Two jobs of 3 s as billed, and an estimate of 4 s before each.
        (Budget(qpu_seconds=7.0), "budget_qpu_seconds = 7", "6", "4"),
    ],
)
def test_a_budget_may_be_reached_exactly_and_not_exceeded(
    site: Site, budget: Budget, setting: str, spent: str, cost: str
) -> None:
    site.budget = budget
    check(site.start().run(make_request("a")), "a")
    check(site.start().run(make_request("b")), "b")
    with pytest.raises(
        BackendError,
        match=f"hardware.{setting} with {spent} spent or reserved, and the next job would cost "
        f"{cost}; ",
    ):
        site.start().run(make_request("c"))
    assert (site.service.calls, site.entry("c"), site.paid) == ([], None, 2)
    # What is in the store costs nothing; another run has a budget of its own.
    check(site.start().run(make_request("b")), "b")
    check(site.start().run(make_request("d", run="run-2")), "d")


def test_a_budget_exceeded_by_one(site: Site) -> None:
    site.budget = Budget(circuits=7)
    site.start().run(make_request("a"))
    with pytest.raises(BackendError, match="jobs within the 3 left"):
        site.start().run(make_request("b"))


def test_a_second_attempt_is_within_the_budget_too(site: Site) -> None:
    site.budget, site.cloud.endings = Budget(jobs=1), [OWN_FAULT]
    with pytest.raises(BackendError, match="budget_jobs"):
        site.start().run(make_request("k"))
    assert site.paid == 1


def test_budgets_come_from_the_settings() -> None:
    hardware = HardwareSettings(
        budget_jobs=1, budget_circuits=2, budget_shots=3, budget_qpu_seconds=4.5
    )
    assert Budget.of(hardware) == Budget(1, 2, 3, 4.5)


def test_without_a_store_budgets_and_values_last_as_long_as_the_runner(site: Site) -> None:
    service = ScriptedService(site.cloud)
    runner = JobRunner(service, None, Budget(jobs=1), 3, 60.0, np.random.default_rng(0), site.sleep)
    assert check(runner.run(make_request("a")), "a") == ONE
    assert check(runner.run(make_request("a")), "a") == ONE
    with pytest.raises(BackendError, match="budget_jobs"):
        runner.run(make_request("b"))


def test_usages_add_and_subtract() -> None:
    assert ONE + ONE - ONE == ONE
    assert sum([ONE, ONE], Usage()) == Usage(2, 8, 8192, 6.0, 180.0)
