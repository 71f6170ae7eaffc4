"""No job is paid twice and none is lost, whatever breaks: connection, service, or client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import BackendError
from quantum.engines.base import Usage
from quantum.engines.devices.base import Request
from quantum.engines.devices.job_store import JobStore
from quantum.engines.devices.jobs import SETTLE
from tests.quantum.scripted_service import KilledError, make_request
from tests.quantum.scripted_site import ONE, OUR_FAULT, OWN_FAULT, Site, check


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "jobs.sqlite")


def test_a_job_is_submitted_once_and_its_values_are_stored(site: Site) -> None:
    assert check(site.start().run(make_request("k"))) == ONE
    assert site.service.calls[:1] == ["submit"]
    assert check(site.start().run(make_request("k"))) == ONE
    assert site.service.calls == []
    assert site.paid == 1


def test_a_job_is_recorded_before_it_is_submitted_and_its_id_before_the_wait(site: Site) -> None:
    runner = site.start()
    seen: list[tuple[str, str | None]] = []
    submit, status = site.service.submit, JobStore(site.path)

    def submit_and_look(request: Request, tags: list[str]) -> Any:
        entry = status.find("k")
        assert entry is not None
        seen.append((entry.status, entry.job_id))
        return submit(request, tags)

    site.service.submit = submit_and_look  # type: ignore[method-assign]
    site.at_sleep = {1: KilledError()}
    with pytest.raises(KilledError):
        runner.run(make_request("k"))
    entry = site.entry()
    assert [*seen, (entry.status, entry.job_id)] == [("intended", None), ("submitted", "job-0")]


@pytest.mark.parametrize(
    ("script", "calls"),
    [
        # Not accepted: looked for, not found, submitted again.
        ({"submit": ["lost"]}, ["submit", "tag", "submit"]),
        ({"submit": ["503", "timeout"]}, ["submit", "tag", "submit", "tag", "submit"]),
        # Accepted, and the answer lost: found, not submitted again.
        ({"submit": ["lost-after"]}, ["submit", "tag"]),
        ({"submit": ["lost", "503-after"]}, ["submit", "tag", "submit", "tag"]),
        ({"submit": ["lost-after"], "tag": ["lost", "503"]}, ["submit", "tag", "tag", "tag"]),
        # Refused for now: nothing to look for.
        ({"submit": ["429", "429"]}, ["submit", "submit", "submit"]),
        # Lost while waiting, and while collecting.
        ({"status": ["lost", "ok", "503", "timeout"]}, ["submit"]),
        ({"result": ["lost", "lost", "lost"], "usage": ["503"], "metrics": ["lost"]}, ["submit"]),
    ],
)
def test_calls_are_repeated_while_the_service_cannot_be_reached(
    site: Site, script: dict[str, list[str]], calls: list[str]
) -> None:
    assert check(site.start(**script).run(make_request("k"))) == ONE
    assert [c for c in site.service.calls if c in ("submit", "find", "tag")] == calls
    assert site.paid == 1


def test_waits_double_with_jitter_and_restart_after_an_answer(site: Site) -> None:
    site.cloud.polls = 0
    site.retries = 8
    script = {"submit": ["429"] * 8, "status": ["lost"]}
    site.start(**script).run(make_request("k"))
    for n, pause in enumerate(site.slept[:8]):
        assert 0.5 * min(2**n, 60) <= pause <= min(2**n, 60)
    assert len(set(site.slept)) == 9
    assert site.slept[8] <= 1.0


def test_an_unknown_job_is_looked_for_after_a_pause(site: Site) -> None:
    site.start(submit=["lost"]).run(make_request("k"))
    assert site.slept[0] == SETTLE


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ({"submit": ["lost"] * 4}, "whether it accepted the job is not known"),
        ({"submit": ["429"] * 4}, "whether it accepted the job is not known"),
        ({"submit": ["lost-after"], "tag": ["lost"] * 4}, "whether it accepted the job is not"),
        ({"status": ["lost"] * 4}, "job job-0"),
        ({"status": ["401"]}, "job job-0"),
        ({"result": ["503"] * 4}, "job job-0"),
    ],
)
def test_a_service_out_of_reach_is_one_error_and_a_restart_pays_nothing(
    site: Site, script: dict[str, list[str]], what: str
) -> None:
    with pytest.raises(BackendError, match=f"scripted does not answer .*{what}.*start again") as r:
        site.start(**script).run(make_request("k"))
    assert "\n" not in str(r.value)
    assert check(site.start().run(make_request("k"))) == ONE
    assert site.paid == 1


def test_usage_that_cannot_be_read_does_not_cost_the_values(site: Site) -> None:
    usage = check(site.start(usage=["lost"] * 4).run(make_request("k")))
    assert usage == Usage(1, 4, 4096, 4.0, 0.0)  # as estimated


def test_a_refused_job_is_not_tried_again(site: Site) -> None:
    with pytest.raises(BackendError, match=r"refused the job .*400 Client Error.*; accepted: "):
        site.start(submit=["bad"]).run(make_request("k"))
    assert site.service.calls == ["submit"]
    assert (site.slept, site.entry().status, site.paid) == ([], "failed", 0)
    assert JobStore(site.path).spent("run-1") == Usage()
    assert check(site.start().run(make_request("k"))) == ONE


@pytest.mark.parametrize("again", ["lost", "ok"])
def test_killed_between_intent_and_id(site: Site, again: str) -> None:
    with pytest.raises(KilledError):
        site.start(submit=["killed-after"]).run(make_request("k"))
    assert site.entry().status == "intended"
    assert check(site.start(tag=[again]).run(make_request("k"))) == ONE
    assert "submit" not in site.service.calls
    assert site.paid == 1


def test_killed_before_the_job_was_accepted(site: Site) -> None:
    with pytest.raises(KilledError):
        site.start(submit=["killed"]).run(make_request("k"))
    assert check(site.start().run(make_request("k"))) == ONE
    assert site.service.calls[:2] == ["tag", "submit"]
    assert site.paid == 1


@pytest.mark.parametrize("call", ["status", "result", "usage", "metrics"])
def test_killed_between_id_and_values(site: Site, call: str) -> None:
    with pytest.raises(KilledError):
        site.start(**{call: ["killed"]}).run(make_request("k"))
    assert site.entry().status == "submitted"
    assert check(site.start(find=["503"]).run(make_request("k"))) == ONE
    assert [c for c in site.service.calls if c in ("submit", "find")] == ["find", "find"]
    assert site.paid == 1


def test_a_long_queue_is_polled_less_and_less_often(site: Site) -> None:
    site.cloud.polls = 300
    site.start().run(make_request("k"))
    assert site.slept == sorted(site.slept)
    assert site.slept[-1] == 10.0
    assert site.now < 3600


def test_a_failure_of_the_backends_own_is_submitted_once_more(site: Site) -> None:
    site.cloud.endings = [OWN_FAULT]
    assert check(site.start().run(make_request("k"))) == ONE + ONE
    assert site.entry("k").reason.startswith("Error code 9701")
    assert site.entry("k#2").status == "collected"
    assert check(site.start().run(make_request("k"))) == ONE + ONE
    assert site.service.calls == []
    assert site.paid == 2


def test_it_is_not_submitted_a_third_time(site: Site) -> None:
    site.cloud.endings = [OWN_FAULT, OWN_FAULT]
    with pytest.raises(BackendError, match=r"job job-1 failed at scripted: .*9701"):
        site.start().run(make_request("k"))
    assert site.paid == 2
    assert JobStore(site.path).spent("run-1") == ONE + ONE


def test_killed_after_a_failure_was_recorded(site: Site) -> None:
    site.cloud.endings = [OWN_FAULT, OWN_FAULT]
    with pytest.raises(KilledError):
        site.start(submit=["ok", "killed-after"]).run(make_request("k"))
    with pytest.raises(BackendError, match="job job-1 failed"):
        site.start().run(make_request("k"))
    assert site.paid == 2


def test_a_failure_of_ours_is_reported_and_not_submitted_again(site: Site) -> None:
    site.cloud.endings = [OUR_FAULT]
    with pytest.raises(
        BackendError, match=r"job job-0 failed at scripted: .*Too many shots.*again"
    ):
        site.start().run(make_request("k"))
    assert site.paid == 1
    assert site.entry().usage == ONE


def test_a_job_cancelled_from_outside_is_an_error_and_starting_again_submits_anew(
    site: Site,
) -> None:
    site.cloud.endings = [("CANCELLED", "")]
    with pytest.raises(BackendError, match="job job-0 was cancelled at scripted"):
        site.start().run(make_request("k"))
    assert (site.paid, site.entry().status) == (1, "cancelled")
    assert check(site.start().run(make_request("k"))) == ONE + ONE
    assert site.entry("k#2").status == "collected"


def test_a_job_that_the_service_forgot_is_submitted_anew(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KilledError):
        site.start(status=["killed"]).run(make_request("k"))
    site.cloud.purge()
    assert check(site.start().run(make_request("k"))) == Usage(2, 8, 8192, 3.0 + 4.0, 90.0)
    assert "scripted no longer knows job job-0" in caplog.text
    assert [c for c in site.service.calls if c in ("submit", "find", "tag")] == [
        "find",
        "tag",
        "submit",
    ]


@pytest.mark.parametrize(
    ("spoilt", "why"),
    [
        ([np.zeros(3)], "1 results for 2 circuits"),
        ([np.zeros(2), np.zeros(1)], r"shape \(2,\); \(3,\) was requested"),
        ([np.array([0.0, np.nan, 0.0]), np.zeros(1)], "not finite"),
        ([np.array(["x", "y", "z"]), np.zeros(1)], "no expectations in it"),
    ],
)
def test_a_malformed_result_is_an_error(site: Site, spoilt: Any, why: str) -> None:
    with pytest.raises(KilledError):
        site.start(result=["killed"]).run(make_request("k"))
    site.cloud.jobs["job-0"].spoilt = spoilt
    with pytest.raises(BackendError, match=f"the result of job job-0 is malformed: .*{why}"):
        site.start().run(make_request("k"))
    assert (site.entry().status, site.entry().usage) == ("failed", ONE)


def test_a_job_that_takes_too_long_is_cancelled(site: Site) -> None:
    site.cloud.polls, site.timeout = 10**6, 60.0
    with pytest.raises(BackendError, match=r"job-0 had not ended after 60 s and was cancelled;"):
        site.start().run(make_request("k"))
    assert site.now == pytest.approx(60.0)
    assert (site.cloud.jobs["job-0"].state, site.entry().status) == ("CANCELLED", "cancelled")
    assert site.entry().qpu_seconds == 0.0


def test_a_job_that_takes_too_long_and_cannot_be_cancelled_stays_to_be_collected(
    site: Site,
) -> None:
    site.cloud.polls, site.timeout, site.cloud.uncancellable = 10**6, 60.0, True
    with pytest.raises(BackendError, match="could not be cancelled;"):
        site.start().run(make_request("k"))
    site.cloud.jobs["job-0"].polls = 0
    assert check(site.start().run(make_request("k"))) == ONE
    assert site.paid == 1


def test_a_job_that_ends_just_when_it_takes_too_long_is_collected(site: Site) -> None:
    site.cloud.polls, site.timeout, site.cloud.uncancellable = 3, 0.01, True
    assert check(site.start().run(make_request("k"))) == ONE


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(1)])
def test_a_stop_cancels_the_job_and_goes_on(site: Site, stop: BaseException) -> None:
    site.at_sleep = {1: stop}
    with pytest.raises(type(stop)):
        site.start().run(make_request("k"))
    assert (site.cloud.jobs["job-0"].state, site.entry().status) == ("CANCELLED", "cancelled")
    check(site.start().run(make_request("k")))
    assert site.entry("k#2").status == "collected"


def test_a_stop_leaves_a_job_that_cannot_be_cancelled_to_be_collected(site: Site) -> None:
    site.at_sleep, site.cloud.uncancellable = {1: KeyboardInterrupt()}, True
    with pytest.raises(KeyboardInterrupt):
        site.start().run(make_request("k"))
    assert check(site.start().run(make_request("k"))) == ONE
    assert site.paid == 1
