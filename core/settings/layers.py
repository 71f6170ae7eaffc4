"""Circuits of unequal depth: how many of the run's layers a client's circuit has."""

from __future__ import annotations

from core import registry
from core.errors import SettingsError
from core.formatting import split_list
from core.settings.declare import AUTO, Condition, Conditions, given, when
from core.settings.quantum import QuantumSettings
from core.settings.schema import Settings


def _by_coordinate(rule: str) -> bool:
    return bool(registry.declared("aggregation", rule, "coordinatewise", False))


LAYERED = given("quantum.layers")
COORDINATES = (
    Condition("aggregation.rule", _by_coordinate, "weighted, uniform, median or trimmed-mean"),
)
SIZED = (Condition("quantum.qubits", lambda qubits: qubits != AUTO, "a number"),)
OPEN = when("privacy.secure_aggregation", False)

REQUIREMENTS: tuple[tuple[Conditions, Conditions, str], ...] = (
    (LAYERED, COORDINATES, "each angle is averaged over the sites that have it"),
    (LAYERED, SIZED, "features are chosen for circuits that are alike"),
    (LAYERED, OPEN, "the sum of a layer that one site has is its update"),
    (LAYERED, when("evaluation.mode", "central"), "a site cannot evaluate layers it lacks"),
    (
        LAYERED,
        (Condition("privacy.dp", lambda kind: kind != "central", "`none` or `local`"),),
        "noise is made for a mean of all updates in every angle",
    ),
)
"""As those of `core.settings.checks`."""


def layers_of(quantum: QuantumSettings, client: int) -> int:
    """Return the layers of a client's circuit: `quantum.reps`, or its own of `quantum.layers`."""
    names = split_list(quantum.layers)
    return int(names[0] if len(names) == 1 else names[client]) if names else quantum.reps


def with_layers(quantum: QuantumSettings, layers: int) -> QuantumSettings:
    """Return the settings of a circuit of the first layers; uploads of later ones are not there."""
    changes = {"reps": layers, "uploads": min(quantum.uploads, layers), "layers": ""}
    return quantum.model_copy(update=changes)


def quantum_of(quantum: QuantumSettings, client: int) -> QuantumSettings:
    """Return the settings of a client's own circuit."""
    return with_layers(quantum, layers_of(quantum, client)) if quantum.layers else quantum


def check_layers(s: Settings, *, at_node: bool) -> None:
    """Refuse depths that are no whole numbers from 1 to the run's, or not one a client.

    Raises
    ------
    SettingsError
        One line.
    """
    names, most = split_list(s.quantum.layers), s.quantum.reps
    if s.quantum.layers and not all(n.isdecimal() and 1 <= int(n) <= most for n in names):
        raise SettingsError(
            f"quantum.layers = {s.quantum.layers!r} with quantum.reps = {most}",
            f"whole numbers from 1 to quantum.reps, for instance '{most},1'",
            "lower them, or raise quantum.reps: the global circuit is the deepest",
        )
    if at_node or not names:
        return
    if max(map(int, names)) < most:
        raise SettingsError(
            f"quantum.layers = {s.quantum.layers!r} with quantum.reps = {most}",
            "a client that has all layers: nobody would train the last ones",
            "lower quantum.reps, or raise one of them",
        )
    if len(names) not in (1, s.run.clients):
        raise SettingsError(
            f"quantum.layers names {len(names)} depths with run.clients = {s.run.clients}",
            "one for all clients, or one for each",
            "name as many as there are clients",
        )
