"""`llm-qfl cost`: what a run would take of its backends, without running it.

The launcher does not import the apps: a process of its own loads the data, opens the backends and
transpiles the circuit; nothing is submitted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from core.formatting import byte_size, duration, percent, whole
from llm_qfl.cli.children import ask, print_json
from llm_qfl.cli.plan import make_plan

COUNTS = (
    ("jobs", "jobs", whole),
    ("circuits", "circuits, those of exact clients as a device would need them", whole),
    ("shots", "shots", whole),
    ("two_qubit_gates", "two-qubit gates", whole),
    ("qpu_seconds", "QPU time, estimated", duration),
)
"""Keys of a cost, their names, and how they are written."""


ASSUMED = (
    "QPU time: 2 s a job, and 250 us and the circuit's duration a shot (three times at resilience",
    "level 2), without a session's idle time. Of aer:NAME and fake:NAME it is what the device",
    "would take. Without an account a device's own snapshot stands for it, else fake_marrakesh.",
)
"""What the QPU time rests on."""


def cost(
    files: Iterable[Path],
    assignments: Iterable[str],
    unset: Iterable[str] = (),
    *,
    as_json: bool = False,
) -> int:
    """Print the estimated cost of a configuration, whose words are those of `make_plan`.

    Raises
    ------
    UserError
        For a mistake in the settings, data or backend.
    LaunchError
        If the estimate failed.
    """
    plan = make_plan(files, assignments, unset=unset)
    plan.print_notices()
    found = ask("client_app.cost", plan, failed="the cost could not be estimated")
    if as_json:
        print_json(found)
    else:
        print("\n".join(cost_lines(found)))
    return 0


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
            part, label = client[name], f"client {client['client']}" if name == "step" else ""
            lines.append(
                f"  {label:<10}{rows if label else '':>7} {whole(part['circuits']):>12} "
                f"{whole(part['jobs']):>6} {_qpu(part):>11}  "
                + (f"a step on {backend}" if label else "a round besides its steps")
            )
    if found["judge"]["circuits"]:
        server = found["judge"]
        lines.append(
            f"  {'server':<10}{'':>7} {whole(server['circuits']):>12} {whole(server['jobs']):>6} "
            f"{_qpu(server):>11}  judging on {found['judged_on']}, whole run"
        )
    lines += ["", *_totals(found)]
    if found["adapter"]["bytes"]:
        one, everything = (byte_size(found["adapter"][key]) for key in ("bytes", "bytes_in_all"))
        lines.insert(-1, f"  shared adapter: {one} each way for each client, {everything} in all")
    return lines


def _qpu(part: Mapping[str, Any]) -> str:
    """Write a QPU time; a simulator has none."""
    return duration(part["qpu_seconds"]) if part["qpu_seconds"] else "-"


def _circuit(facts: Mapping[str, Any]) -> str:
    gates = f"{facts['two_qubit_gates']} two-qubit gates"
    if "depth" not in facts:
        return f"{gates} on any pair"
    return (
        f"{gates} on {facts['backend']}, depth {facts['depth']} "
        f"(two-qubit {facts['two_qubit_depth']}), "
        f"{1e6 * facts['seconds']:.1f} us a shot, error {percent(facts['error'])}"
    )


def _totals(found: Mapping[str, Any]) -> list[str]:
    rounds, least, most = found["rounds"], found["steps"], found["max_steps"]
    lines = [
        f"{f'all clients in each of {rounds} rounds, and the server':<62}"
        f"{f'{least} steps each':>14} {f'{most} steps each':>14}"
    ]
    for key, name, write in COUNTS:
        few, many = (write(found["totals"][which][key]) for which in ("steps", "max_steps"))
        lines.append(f"  {name:<60}{few:>14} {many:>14}")
    seconds = [found["totals"][which]["qpu_seconds"] for which in ("steps", "max_steps")]
    if found["price"]:
        few, many = (f"{found['price'] * each:,.2f}" for each in seconds)
        name = f"price, at {found['price']:g} a QPU second (hardware.qpu_price)"
        lines.append(f"  {name:<60}{few:>14} {many:>14}")
    lines.append("Estimates; budgets hold a run to less: stop.* and hardware.budget_*.")
    if any(seconds):
        lines += ASSUMED
    return lines
