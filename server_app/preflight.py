"""What would end a run later, found before Flower starts: `python -m server_app.preflight`.

Reads the flat settings as JSON from standard input and writes what would run as JSON. The launcher
calls it as a process of its own. Everything is found by the functions that the run itself uses:
the agent's model or server, the backends, the language model, the rows. No weight is loaded and
no circuit transpiled, and a library loads only where a setting needs it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core import (
    AUTO,
    Settings,
    averages_rounds,
    backend_names,
    backend_of,
    family,
    quantum_of,
    registry,
    settings_command,
    store_root,
    worst_steps,
)
from core.extras import check_extras
from core.own_code import load_extensions

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from data import DataInfo, ServerData, Site


def check(settings: Settings) -> dict[str, Any]:
    """Check what this machine can know of a run, and describe it.

    Parameters
    ----------
    settings : Settings
        The run's settings.

    Returns
    -------
    dict
        ``agent``, ``model``, ``data``, ``notes`` on it, ``classes``, ``server_rows`` and
        ``test_rows`` of the server; ``clients``: each one's ``backend``, ``train_rows`` and
        ``circuits``, the list of its circuits at ``train.steps`` and at ``most_steps``, the most
        that the agent may give, in every round; ``qpu_seconds``, likewise, where a device costs
        money, else 0.

    Raises
    ------
    UserError
        One line, for whatever would end the run.
    """
    from strategies.decisions.extension import find_agent

    check_extras(settings)
    load_extensions(settings)
    agent = find_agent(settings)  # first what takes no time
    _check_backends(settings)
    server, sites = _rows(settings)
    info = server.info
    model = _model(settings, info)
    _check_aggregation(settings, len(info.classes))
    _check_features(settings, server, sites)
    backends = [backend_of(settings.quantum.backend, client) for client in range(len(sites))]
    steps = settings.train.steps, worst_steps(settings, backends)
    costs = _costs(settings, backends, sites, len(info.classes), steps)
    return {
        "agent": agent,
        "most_steps": steps[1],
        "model": model,
        "data": info.name,
        "notes": list(info.notes),
        "classes": list(info.classes),
        "server_rows": len(server.validation),
        "test_rows": len(server.test),
        "clients": [
            {
                "backend": backend,
                "train_rows": len(site.train),
                "circuits": [circuits for circuits, _ in cost],
                "qpu_seconds": [seconds for _, seconds in cost],
            }
            for backend, site, cost in zip(backends, sites, costs, strict=True)
        ],
    }


def _check_backends(settings: Settings) -> None:
    """Look whether each backend can be had here and has the qubits; classes matter to none."""
    from quantum import Host, build_ansatz, check_backend, check_shifts, depths

    if settings.quantum.layers:
        depths(settings.quantum, 2)
    host = Host(settings.hardware, store=store_root(settings.llm.store))
    for name in dict.fromkeys(backend_names(settings.quantum.backend)):
        own = settings.quantum.model_copy(update={"backend": name})
        circuit = build_ansatz(own, classes=2)
        check_backend(circuit, own, host)
        if settings.train.optimizer == "parameter-shift":
            check_shifts(circuit)


def _check_aggregation(settings: Settings, classes: int) -> None:
    """Try an aggregation that is not ours on parameters of the circuit's shapes."""
    if settings.aggregation.rule in registry.shipped("aggregation"):
        return
    from core.flower_compat import set_task_identity
    from quantum import build_classifier
    from strategies.aggregators import check_aggregator

    set_task_identity()  # it reads Flower's messages
    exact = settings.quantum.model_copy(update={"backend": "exact"})
    check_aggregator(settings, dict(build_classifier(exact, classes).initial(0)))


def _rows(settings: Settings) -> tuple[ServerData, tuple[Site, ...]]:
    """Load all rows: the server's and every client's."""
    import numpy as np

    from data import class_rows, load_federation
    from server_app.fitting import check_classes

    server, sites = load_federation(settings)
    held = np.array([class_rows(site.train.labels, len(server.classes)) for site in sites])
    check_classes(settings, np.where(held >= settings.privacy.min_rows, held, 0).sum(axis=0))
    return server, sites


def _check_features(settings: Settings, server: ServerData, sites: Sequence[Site]) -> None:
    """Fit the projection where it takes no language model: that finds too many qubits."""
    from data import check_lengths, common_length, embeds, feature_kind, needs_length

    chosen = feature_kind(server.kind, settings.features)
    if needs_length([chosen]):
        held = {f"client {k}": [s.train, s.validation, s.test] for k, s in enumerate(sites)}
        held["the server"] = [server.validation, server.test]
        texts = {
            holder: [t for part in parts for t in part.texts] for holder, parts in held.items()
        }
        check_lengths(chosen, {one: common_length(rows) for one, rows in texts.items() if rows})
    if not embeds([chosen]) and not settings.privacy.moment_noise:
        _fit(settings, chosen, server, sites)


def _fit(settings: Settings, chosen: str, server: ServerData, sites: Sequence[Site]) -> None:
    from data import (
        USUAL_SHRINKAGE,
        block_columns,
        fit_projection,
        merge_moments,
        moments_of,
        raw_features,
    )
    from server_app.probes import FEWEST_QUBITS

    def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        raise AssertionError("features of a language model are not made before a run")

    features, moments, length = settings.features, [], len(sites[0].train.texts[0])
    for rows in (site.train for site in sites):
        made = raw_features(rows.texts, server.kind, features, embed)
        moments.append(moments_of(made, rows.labels, len(server.classes)))
    merged = merge_moments(moments)
    shrinkage = USUAL_SHRINKAGE if features.shrinkage == AUTO else features.shrinkage
    qubits = FEWEST_QUBITS if settings.quantum.qubits == AUTO else settings.quantum.qubits
    way = features.projection, shrinkage, features.clip, settings.run.seed
    blocks = block_columns(chosen, features, length, len(merged.second))
    fit_projection(merged, qubits, *way, blocks)


def _model(settings: Settings, info: DataInfo) -> str:
    """Find the local language model and the device that it is to compute on; return its name."""
    from data import candidate_kinds, embeds
    from llm import local_model

    if settings.llm.device == "cuda":
        from llm.device import choose_device

        choose_device("cuda")
    embedded = embeds(candidate_kinds(info.kind, settings))
    return local_model(settings, info.kind, embeds=embedded)


def _costs(
    settings: Settings,
    backends: Sequence[str],
    sites: Sequence[Site],
    classes: int,
    steps: Sequence[int],
) -> list[list[tuple[int, float]]]:
    """Return `_cost` of every client, for each number of steps."""
    from quantum import build_ansatz

    own = [quantum_of(settings.quantum, client) for client in range(len(sites))]
    shifts = {quantum: build_ansatz(quantum, classes).shifts for quantum in set(own)}
    return [
        [_cost(settings, backend, site, shifts[quantum], each) for each in steps]
        for backend, site, quantum in zip(backends, sites, own, strict=True)
    ]


def _cost(
    settings: Settings, backend: str, site: Site, shifts: int, steps: int
) -> tuple[int, float]:
    """Return a client's circuits over the run, training so many steps in every round.

    And their QPU seconds, estimated without the gates' own time; 0 where no device is paid.
    """
    from quantum import circuits_before_steps, circuits_per_step

    train, run, hardware = settings.train, settings.run, settings.hardware
    rows, validation = len(site.train), len(site.validation)
    step = circuits_per_step(train, rows, shifts, backend)
    before = circuits_before_steps(train, rows)
    paid = run.rounds - train.warm_rounds
    circuits, jobs = paid * (before + steps * step + validation), paid * (bool(before) + steps + 1)
    if settings.evaluation.mode == "federated":
        validations = run.rounds + averages_rounds(settings)
        circuits, jobs = circuits + validation * validations, jobs + validations
        circuits, jobs = circuits + len(site.test), jobs + 1
    if family(backend) != "ibm":
        return circuits, 0.0
    from quantum.engines.devices.base import qpu_seconds

    shots, level = hardware.circuit_shots, hardware.resilience_level
    return circuits, qpu_seconds(backend, 0.0, circuits, shots, level, jobs)


def main() -> int:
    """Read settings and write what would run."""
    return settings_command(check)


if __name__ == "__main__":
    # Not sys.exit: a thread of a library may still wait for a name that no server resolves.
    os._exit(main())
