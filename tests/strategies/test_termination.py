from __future__ import annotations

from typing import Any

import pytest

from core import parse_run
from strategies import stop_reason
from strategies.agents import ClientView, Observation
from strategies.agents.termination import change_below, gap_below, out_of_patience


def seen(**changes: Any) -> Observation:
    base: dict[str, Any] = {
        "round": 4,
        "rounds_left": 7,
        "min_steps": 1,
        "max_steps": 100,
        "losses": (0.9, 0.6, 0.5),
        "accuracies": (0.5, 0.7, 0.8),
        "alignments": (0.30, 0.20, 0.19),
        "llm_loss": 0.3,
        "clients": (ClientView(client=0, rows=10, steps=5),),
    }
    return Observation(**{**base, **changes})


def test_criteria_by_hand() -> None:
    assert not change_below([0.3], 1.0)
    assert change_below([0.3, 0.31], 0.02)
    assert not change_below([0.5, 0.25], 0.25)  # strictly below tau
    assert gap_below(0.5, 0.49, 0.02)
    assert not gap_below(0.5, None, 9.0)


def test_patience_counts_rounds_since_the_best() -> None:
    assert not out_of_patience([3, 2, 1], 1)
    assert out_of_patience([1, 2], 1)
    assert not out_of_patience([1, 2], 2)
    assert not out_of_patience([1, 2, 3, 4], 0)
    assert not out_of_patience([], 3)


@pytest.mark.parametrize(
    ("given", "change", "message"),
    [
        (["stop.rule=change"], {}, r"moved by 0.0100 < tau = 0.02"),
        (["stop.rule=either"], {}, r"moved by 0.0100"),
        (["stop.rule=gap", "stop.tau=0.4"], {}, r"\|L_server - L_LLM\| = 0.2000 < tau"),
        (["stop.rule=gap"], {}, None),
        (["stop.rule=none"], {}, None),
        (["stop.target_accuracy=0.8"], {}, "target accuracy 0.8 is reached"),
        (["stop.patience=1"], {"losses": (0.5, 0.6, 0.7)}, "no better validation loss for 1"),
        (["stop.circuits=100"], {"circuits_left": 0}, "budget of 100 circuits is spent"),
        (["stop.wall_seconds=9"], {"seconds_left": -1.0}, "budget of 9 seconds is spent"),
        (["stop.rule=change", "stop.min_rounds=4"], {}, None),
    ],
)
def test_reasons(given: list[str], change: dict[str, Any], message: str | None) -> None:
    settings, _ = parse_run([], given)
    reason = stop_reason(seen(**change), settings)
    if message is None:
        assert reason == ""
    else:
        with pytest.raises(RuntimeError, match=message):
            raise RuntimeError(reason)
