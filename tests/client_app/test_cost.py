"""The estimate of a run's cost is what the run then costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from client_app.cost import NOTHING, added, estimate
from core import UserError, parse_run
from tests.conftest import NO_TEACHER, SMALL

GIVEN = (
    *NO_TEACHER,
    "train.batch_rows=4",
    "hardware.shots=16",
    "hardware.layout_trials=1",
    "quantum.backend=aer,exact,aer:manila",
)


@pytest.mark.parametrize(
    "more",
    [
        ("train.optimizer=auto",),
        ("train.optimizer=cobyla", "train.learning_rate=0.5"),
        ("train.warm_rounds=1",),
        ("evaluation.mode=federated", "data.server_rows=0"),
        (
            *("evaluation.mode=federated", "data.server_rows=0"),
            *("evaluation.keep=average", "run.rounds=3"),
        ),
        ("evaluation.backend=aer:manila", "evaluation.keep=average", "run.rounds=3"),
        ("evaluation.backend=aer:manila",),
        ("evaluation.mode=federated", "data.server_rows=0", "train.warm_rounds=1"),
    ],
)
def test_estimate_is_the_ledgers_total(federate: Callable[..., Any], more: tuple[str, ...]) -> None:
    settings, _ = parse_run([], [*SMALL, *GIVEN, *more])
    said = estimate(settings)["totals"]["steps"]
    summary = federate(*GIVEN, *more).summary
    for key in ("jobs", "circuits", "shots"):
        assert summary["ledger"][key] + summary["judge"].get(key, 0) == said[key], key
    if "jobs" not in summary["judge"]:
        assert summary["ledger"]["two_qubit_gates"] == said["two_qubit_gates"]


def test_estimate_names_circuit_and_prices(tmp_path: Any) -> None:
    settings, _ = parse_run([], [*SMALL, *GIVEN, f"llm.store={tmp_path}"])
    found = estimate(settings)
    aer, exact, manila = found["clients"]
    assert [c["backend"] for c in found["clients"]] == ["aer", "exact", "aer:manila"]
    assert exact["circuit"] == {"two_qubit_gates": 12}
    assert exact["step"]["circuits"] == 4 * (1 + 2 * exact["angles"])
    assert (aer["step"]["circuits"], aer["step"]["jobs"], aer["step"]["shots"]) == (8, 1, 128)
    assert manila["circuit"]["two_qubit_gates"] >= 12
    assert 0 < manila["circuit"]["error"] < 1
    assert found["totals"]["max_steps"] == found["totals"]["steps"]  # everybody, fixed steps
    assert not (tmp_path / "jobs.sqlite").exists()  # nothing was submitted


def test_the_shared_adapters_bytes_are_the_ledgers(federate: Callable[..., Any]) -> None:
    given = ("llm.federated=fedavg", "llm.rounds=2")
    adapter = estimate(parse_run([], [*SMALL, *given])[0])["adapter"]
    ran = federate(*given)
    assert adapter["bytes"] == ran.summary["adapter"]["bytes"]
    assert adapter["bytes_in_all"] == ran.events("adapter-begin")[0]["bytes_in_all"]
    assert estimate(parse_run([], [*SMALL])[0])["adapter"] == {"bytes": 0, "bytes_in_all": 0}


def test_fake_hardware_has_estimated_qpu_seconds_closed_form(tmp_path: Any) -> None:
    settings, _ = parse_run(
        [],
        [*SMALL, *GIVEN[:-1], "quantum.backend=fake:manila", f"llm.store={tmp_path}"],
    )
    client = estimate(settings)["clients"][0]
    shot = 250e-6 + client["circuit"]["seconds"]
    assert client["step"]["qpu_seconds"] == pytest.approx(2.0 + 8 * 16 * shot)


def test_costs_add_up() -> None:
    one = dict(zip(NOTHING, (1, 2, 3, 4, 0.5), strict=True))
    assert list(added((1, one), (2, one)).values()) == [3, 6, 9, 12, 1.5]


def test_unknown_backend_is_one_line(tmp_path: Any) -> None:
    settings, _ = parse_run([], [*SMALL, "quantum.backend=fake:nowhere"])
    with pytest.raises(UserError, match="no such snapshot"):
        estimate(settings)
