"""Small observations for tests of agents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core import Settings, parse_run
from strategies.decisions import ClientView, Observation


def view(client: int, **changes: Any) -> ClientView:
    return ClientView(**{"client": client, "rows": 10, "steps": 10, **changes})


def seen(clients: Sequence[ClientView], **changes: Any) -> Observation:
    base = {"round": 2, "rounds_left": 9, "min_steps": 2, "max_steps": 50, "plain_steps": 10}
    return Observation(**{**base, "clients": tuple(clients), **changes})


def settings_of(*given: str) -> Settings:
    return parse_run([], list(given))[0]
