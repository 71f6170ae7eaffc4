"""`llm-qfl cost`: what a run would take of its backends, without running it.

The launcher does not import the apps: a process of its own loads the data, opens the backends and
transpiles the circuit; nothing is submitted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cli.plan import Plan, make_plan
from cli.words import clip, one_line
from federation import UserError, duration, flatten, percent, whole

USER_MISTAKE = 2
LONGEST = 400

COUNTS = (
    ("jobs", "jobs", whole),
    ("circuits", "circuits", whole),
    ("shots", "shots", whole),
    ("two_qubit_gates", "two-qubit gates", whole),
    ("qpu_seconds", "QPU time, estimated", duration),
)
"""Keys of a cost, their names, and how they are written."""


def cost(files: Iterable[Path], assignments: Iterable[str], *, as_json: bool = False) -> int:
    """Print the estimated cost of a configuration.

    Parameters
    ----------
    files, assignments
        As `cli.plan.make_plan` takes them.
    as_json : bool
        Print JSON instead of tables.

    Returns
    -------
    int
        0, or 1 if the estimate failed.

    Raises
    ------
    UserError
        For a mistake in the settings, data or backend, in one line.
    """
    plan = make_plan(files, assignments, None)
    found = ask(plan)
    if found is None:
        return 1
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(cost_lines(found)))
    return 0


def ask(plan: Plan) -> dict[str, Any] | None:
    """Let the estimating process work; None if it failed, which has then been said."""
    settings = {**flatten(plan.settings), **plan.overrides}
    command = [sys.executable, "-m", "client_app.cost"]
    done = subprocess.run(
        command,
        cwd=plan.app,
        input=json.dumps(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    last = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
    if done.returncode == USER_MISTAKE:
        raise UserError(last[-1])
    if done.returncode:
        said = clip(one_line(last[-1]), LONGEST)
        print(f"llm-qfl: the cost could not be estimated: {said}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def cost_lines(found: Mapping[str, Any]) -> list[str]:
    """Write an estimate as lines: circuits by backend, then what a step, a round and all cost."""
    lines = ["circuit, after transpiling"]
    seen: dict[str, dict[str, Any]] = {}
    for client in found["clients"]:
        seen.setdefault(client["backend"], client)
    for backend, client in seen.items():
        lines.append(f"  {backend}: {_circuit(client['circuit'])}, {client['angles']} angles")
    lines += ["", f"  {'':<10}{'rows':>7} {'circuits':>12} {'jobs':>6} {'QPU':>11}  backend"]
    for client in found["clients"]:
        rows, backend = whole(client["train_rows"]), client["backend"]
        for name in ("step", "round"):
            part, said = client[name], f"client {client['client']}" if name == "step" else ""
            lines.append(
                f"  {said:<10}{rows if said else '':>7} {whole(part['circuits']):>12} "
                f"{whole(part['jobs']):>6} {duration(part['qpu_seconds']):>11}  "
                + (f"a step on {backend}" if said else "a round besides its steps")
            )
    lines += ["", *_totals(found)]
    return lines


def _circuit(facts: Mapping[str, Any]) -> str:
    said = f"{facts['two_qubit_gates']} two-qubit gates"
    if "depth" not in facts:
        return f"{said} on any pair"
    return (
        f"{said}, depth {facts['depth']} (two-qubit {facts['two_qubit_depth']}), "
        f"{1e6 * facts['seconds']:.1f} us a shot, error {percent(facts['error'])}"
    )


def _totals(found: Mapping[str, Any]) -> list[str]:
    rounds, least, most = found["rounds"], found["steps"], found["max_steps"]
    lines = [
        f"all clients in each of {rounds} rounds{'':<12} {least:>7} steps each {most:>7} steps each"
    ]
    for key, name, write in COUNTS:
        few, many = (write(found["totals"][which][key]) for which in ("steps", "max_steps"))
        lines.append(f"  {name:<41}{few:>18} {many:>18}")
    return [*lines, "Estimates; budgets hold a run to less: stop.* and hardware.budget_*."]
