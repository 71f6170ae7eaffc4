"""Before a run starts: look for what would end it later, and say what would run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import check_new_run
from core.extras import check_extras
from core.formatting import display_safe, duration, join_list, whole
from llm_qfl.cli.children import LaunchError, ask, print_json
from llm_qfl.cli.plan import Plan

PATIENCE = 60.0
"""Longest wait for the check, seconds; then the run starts unchecked, and says so."""


def preflight(plan: Plan, *, here: bool, dry: bool, as_json: bool = False) -> None:
    """Refuse what would end the run later; with `dry` print what would run.

    Parameters
    ----------
    plan : Plan
        Its settings are checked already.
    here : bool
        Whether the run is on this machine. What a deployment's parts find is not known here.
    dry : bool
        Print what would run, however long the check takes.
    as_json : bool
        Print that as JSON.

    Raises
    ------
    UserError
        One line: the mistake.
    LaunchError
        If a dry check breaks off; a run starts all the same, and says so.
    """
    plan.print_notices()
    check_extras(plan.settings)
    if not plan.settings.run.folder:
        output = plan.overrides.get("run.output", plan.settings.run.output)
        check_new_run(Path(str(output)), plan.settings.run.name)
    found: Mapping[str, Any] = {}
    if here:
        try:
            failed = "the check broke off" if dry else "starting unchecked"
            patience = None if dry else PATIENCE
            found = ask("server_app.preflight", plan, failed=failed, seconds=patience)
        except LaunchError as error:
            if dry:
                raise
            print(f"llm-qfl: {error}", file=sys.stderr)
    for line in paid(plan, found):
        print(f"llm-qfl: {line}", file=sys.stderr)
    if as_json:
        run = plan.settings.run
        about = {"run": run.name, "clients": run.clients, "rounds": run.rounds}
        print_json({**about, "code": list(plan.files), "found": found})
    elif dry:
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
    settings, run = plan.settings, plan.settings.run
    facts = [("run", f"{run.name}: {run.clients} clients, at most {run.rounds} rounds")]
    last = "Nothing was started or written."
    facts += [("code", f"{name} of yours travels to every site") for name in plan.files]
    if found:
        facts += _facts(found, settings.train.steps)
    else:
        facts += [("agent", settings.agent.kind)]
        facts += [("backend", f"{settings.quantum.backend}, or what a node sets")]
        last = "Rows, models and backends are at the deployment's nodes and were not looked at."
    return [*(f"{name:<8} {text}" for name, text in facts), last]


def _facts(found: Mapping[str, Any], steps: int) -> list[tuple[str, str]]:
    """Return what the check has found of a run on this machine, each with its name."""
    clients, most = found["clients"], found["most_steps"]
    rows = [client["train_rows"] for client in clients]
    few, many = (sum(client["circuits"][k] for client in clients) for k in (0, 1))
    spread = whole(rows[0]) if min(rows) == max(rows) else f"{whole(min(rows))} to {max(rows):,}"
    circuits = f"{whole(few)} at {steps} steps a round"
    circuits += f", {whole(many)} at {most}" * (most > steps)
    return [
        (
            "data",
            f"{found['data']}: {spread} training rows a client; the server has "
            f"{whole(found['server_rows'])} validation and {whole(found['test_rows'])} test rows",
        ),
        ("classes", f"{len(found['classes'])}: {join_list(found['classes'])}"),
        *(("note", note) for note in found["notes"]),
        ("backend", ", ".join(dict.fromkeys(client["backend"] for client in clients))),
        ("model", found["model"]),
        ("agent", found["agent"]),
        ("circuits", f"{circuits}, if every client trains in every round"),
    ]
