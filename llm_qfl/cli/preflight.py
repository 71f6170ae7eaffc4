"""Before a run starts: look for what would end it later, and say what would run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import check_new_run
from core.formatting import display_safe, duration, join_list, whole
from llm_qfl.cli.children import ChildFailedError, ask
from llm_qfl.cli.plan import Plan

PATIENCE = 60.0
"""Longest wait for the check, seconds; then the run starts unchecked, and says so."""


def preflight(plan: Plan, *, here: bool, dry: bool) -> None:
    """Refuse what would end the run later; with `dry` print what would run.

    Parameters
    ----------
    plan : Plan
        Its settings are checked already.
    here : bool
        Whether the run is on this machine. What a deployment's parts find is not known here.
    dry : bool
        Print what would run, however long the check takes.

    Raises
    ------
    UserError
        One line: the mistake.
    ChildFailedError
        If a dry check breaks off; a run starts all the same, and says so.
    """
    plan.print_notices()
    if not plan.settings.run.folder:
        output = plan.overrides.get("run.output", plan.settings.run.output)
        check_new_run(Path(str(output)), plan.settings.run.name)
    found: Mapping[str, Any] = {}
    if here:
        try:
            found = ask("server_app.preflight", plan, seconds=None if dry else PATIENCE)
        except ChildFailedError as error:
            if dry:
                raise
            print(f"llm-qfl: starting unchecked: {error}", file=sys.stderr)
    for line in paid(plan, found):
        print(f"llm-qfl: {line}", file=sys.stderr)
    if dry:
        print("\n".join(map(display_safe, lines(plan, found))))


def paid(plan: Plan, found: Mapping[str, Any]) -> list[str]:
    """Warn, in one line, of what a run on devices that cost money may take of them."""
    clients = [client for client in found.get("clients", ()) if client["qpu_seconds"][0]]
    if not clients:
        return []
    train, price = plan.settings.train, plan.settings.hardware.qpu_price
    names = ", ".join(dict.fromkeys(client["backend"] for client in clients))
    few, many = (sum(client["qpu_seconds"][k] for client in clients) for k in (0, 1))
    text = f"{names} costs money: about {duration(few)} of QPU time at {train.steps} steps a round"
    most = found["most_steps"]
    raised = most > train.steps
    if raised:
        text += f", {duration(many)} if the agent raises them to {most} in every round"
    if price:
        text += f"; {price * few:,.2f}" + f" to {price * many:,.2f}" * raised
        text += f" at hardware.qpu_price = {price:g}"
    if train.steps < most < train.max_steps:
        text += f" (no more without a budget, though train.max_steps = {train.max_steps})"
    return [f"{text}; stop.qpu_seconds or hardware.budget_qpu_seconds holds it to less"]


def lines(plan: Plan, found: Mapping[str, Any]) -> list[str]:
    """Write what would run."""
    settings = plan.settings
    shown = [
        f"run      {settings.run.name}: {settings.run.clients} clients, at most "
        f"{settings.run.rounds} rounds",
    ]
    if not found:
        agent, backend = settings.agent.kind, settings.quantum.backend
        shown += [
            f"agent    {agent}",
            f"backend  {backend}, or what a node sets",
            "Rows, models and backends are at the deployment's nodes and were not looked at.",
        ]
        return shown
    clients = found["clients"]
    rows = [client["train_rows"] for client in clients]
    few, many = (sum(client["circuits"][k] for client in clients) for k in (0, 1))
    train, most = settings.train, found["most_steps"]
    spread = whole(rows[0]) if min(rows) == max(rows) else f"{whole(min(rows))} to {max(rows):,}"
    shown += [
        f"data     {found['data']}: {spread} training rows a client; the server has "
        f"{whole(found['server_rows'])} validation and {whole(found['test_rows'])} test rows",
        f"classes  {len(found['classes'])}: {join_list(found['classes'])}",
        *(f"note     {note}" for note in found["notes"]),
        f"backend  {', '.join(dict.fromkeys(client['backend'] for client in clients))}",
        f"model    {found['model']}",
        f"agent    {found['agent']}",
        f"circuits {whole(few)} at {train.steps} steps a round"
        + f", {whole(many)} at {most}" * (most > train.steps)
        + ", if every client trains in every round",
        "Nothing was started or written.",
    ]
    return shown
