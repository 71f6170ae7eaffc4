from __future__ import annotations

from typing import Any

import pytest

from strategies import build_agent
from tests.strategies.agents.observations import seen, settings_of, view

DONE: dict[str, Any] = {"losses": (0.5,), "accuracies": (0.6,), "alignments": (0.1,)}
ADAPTIVE = "agent.rule=adaptive"
CLIENTS = [
    view(0, loss=0.9, gap=0.4, llm_loss=0.3, ratio=3.0),
    view(1, loss=0.5, gap=0.0, llm_loss=0.4, ratio=1.25),
    view(2, loss=0.52, gap=0.02, llm_loss=0.6, ratio=0.87),
    view(3, loss=0.6),
]


@pytest.mark.parametrize(
    ("given", "changes", "steps", "reason"),
    [
        (["agent.fraction=0.3"], {"round": 1}, [10, 10, 10, 10], "first round: everybody trains"),
        (
            [ADAPTIVE, "agent.fraction=0.5"],
            DONE,
            [None, 12, 10, None],
            "1 of 2 behind their LLM (mean r",
        ),
        ([ADAPTIVE, "agent.fraction=0.5"], {}, [30, 12, 10, 10], "2 of 4 behind their LLM (mean r"),
        (
            [ADAPTIVE, "agent.fraction=0.5", "agent.stage=aggregation"],
            DONE,
            [30, 12, 10, 10],
            "2 of 4",
        ),
        ([], DONE, [10, 10, 10, 10], "steps as at first"),
        (
            ["agent.fraction=0.5"],
            DONE | {"losses": (0.9, 0.8, 0.5)},
            [None, 15, 15, None],
            "each step pays more than before: more of them; 2 closest",
        ),
        (["agent.kind=all"], DONE, [10, 10, 10, 10], "everybody trains"),
    ],
    ids=[
        "first round",
        "regulates and selects",
        "nothing to select by",
        "aggregation",
        "steps stay",
        "steps pay",
        "all",
    ],
)
def test_who_trains_and_for_how_long(
    given: list[str], changes: dict[str, Any], steps: list[int | None], reason: str
) -> None:
    decided = build_agent(settings_of(*given)).decide(seen(CLIENTS, **changes))
    assert decided.steps == {k: m for k, m in enumerate(steps) if m is not None}
    assert decided.participants == tuple(decided.steps)
    assert decided.reason.startswith(reason)


def test_random_agent_repeats_itself_and_no_other_round() -> None:
    agent = build_agent(settings_of("agent.kind=random", "agent.fraction=0.25"))
    clients = [view(k) for k in range(8)]
    drawn, again = (
        [agent.decide(seen(clients, round=r)).participants for r in range(1, 20)] for _ in range(2)
    )
    assert drawn == again
    assert {len(chosen) for chosen in drawn} == {2}
    assert len(set(drawn)) > 5
