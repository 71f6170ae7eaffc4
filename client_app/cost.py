"""What a run would cost on its backends, without running it: `python -m client_app.cost`.

Reads the flat settings as JSON from standard input and writes JSON; `llm-qfl cost` prints it. Rows
are counted at the real data, circuits are transpiled for the real backends; nothing is submitted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from client_app.guidance import rows_to_train
from client_app.process_cache import of_client
from client_app.site import SiteCache
from core import (
    Settings,
    averages_rounds,
    backend_of,
    settings_command,
    store_root,
    worst_steps,
)

if TYPE_CHECKING:
    from quantum import Classifier


Figures = dict[str, float]

NOTHING: Figures = {"jobs": 0, "circuits": 0, "shots": 0, "two_qubit_gates": 0, "qpu_seconds": 0.0}
"""What work costs a client; an exact simulator has no jobs and no shots, and QPU seconds are those
of devices, and of simulators that stand for one."""


def added(*parts: tuple[int, Figures]) -> Figures:
    """Return the sum of costs, each so many times."""
    return {key: sum(count * cost[key] for count, cost in parts) for key in NOTHING}


def estimate(settings: Settings) -> dict[str, Any]:
    """Estimate a run's cost, all clients training in every round.

    Parameters
    ----------
    settings : Settings
        The run's settings.

    Returns
    -------
    dict
        ``clients``: one entry each with backend, rows, circuit facts (a device that no account
        reaches is estimated by a snapshot, whose name they say) and the costs of a ``step``,
        of a ``round`` besides its steps, and of the ``end`` (the final model's
        evaluations); ``judge``: the
        server's own evaluations, on ``judged_on``; ``totals``: the whole run at ``train.steps``
        and at the most that the agent may give, ``max_steps``; ``price`` of a QPU second;
        ``rounds``: those that are paid; ``adapter``: what training one
        together sends, ``bytes`` each way and ``bytes_in_all``, 0 without `llm.federated`.

    Raises
    ------
    UserError
        If data or a backend cannot be had.
    """
    names, clients = settings.quantum.backend, range(settings.run.clients)
    backends = [backend_of(names, client) for client in clients]
    all_steps = {"steps": settings.train.steps, "max_steps": worst_steps(settings, backends)}
    rounds, evaluator = settings.run.rounds - settings.train.warm_rounds, _evaluator(settings)
    entries, totals = [], dict.fromkeys(all_steps, NOTHING)
    for client in clients:
        entry, warm = _client(settings, client, backends[client])
        entries.append(entry)
        for name, steps in all_steps.items():
            paid = added((steps, entry["step"]), (1, entry["round"]))
            own = added((rounds, paid), (1, entry["end"]), (settings.train.warm_rounds, warm))
            totals[name] = added((1, totals[name]), (1, own))
    return {
        "adapter": _adapter(settings),
        "rounds": rounds,
        "judged_on": settings.evaluation.backend,
        "judge": evaluator,
        **all_steps,
        "price": settings.hardware.qpu_price,
        "clients": entries,
        "totals": {name: added((1, cost), (1, evaluator)) for name, cost in totals.items()},
    }


def _evaluator(settings: Settings) -> Figures:
    """Return what the server's own evaluations cost: of rounds, of the final model, the test."""
    backend = settings.evaluation.backend
    if settings.evaluation.mode != "central" or backend == "exact":
        return NOTHING
    from data import load_server
    from quantum import Host, build_classifier

    data = load_server(settings)
    quantum = settings.quantum.model_copy(update={"backend": backend})
    host = Host(
        settings.hardware,
        layout_seed=settings.run.seed,
        store=store_root(settings.llm.store),
        estimate=True,
    )
    price = _price(build_classifier(quantum, len(data.classes), host))
    final = averages_rounds(settings) + (settings.evaluation.prior_correction == "auto")
    validations = settings.run.rounds + final
    return added((validations, price(len(data.validation))), (1, price(len(data.test))))


def _adapter(settings: Settings) -> dict[str, int]:
    """Return the bytes of the shared adapter: one way for a client, and over the run."""
    if settings.llm.federated == "none":
        return {"bytes": 0, "bytes_in_all": 0}
    from data import load_site
    from llm import shared_bytes

    info, _ = load_site(settings, 0, settings.run.clients)
    size = shared_bytes(settings.llm, info.kind, len(info.classes))
    return {"bytes": size, "bytes_in_all": 2 * size * settings.llm.rounds * settings.run.clients}


def _client(settings: Settings, client: int, backend: str) -> tuple[dict[str, Any], Figures]:
    """Return a client's entry, and what a warm round costs it."""
    from quantum import build_classifier, circuits_before_steps, circuits_per_step

    cache = SiteCache(of_client(settings, client), client, f"client {client}")
    host = replace(cache.host, estimate=True)
    classifier = build_classifier(cache.settings.quantum, cache.classes, host)
    price, rows, train = _price(classifier), rows_to_train(cache), settings.train
    validation = price(len(cache.site.validation))
    fixed = added((1, price(circuits_before_steps(train, rows))), (1, validation))
    federated = settings.evaluation.mode == "federated"
    entry = {
        "client": client,
        "backend": backend,
        "train_rows": len(cache.site.train),
        "angles": classifier.angles,
        "circuit": _circuit(classifier),
        "step": price(circuits_per_step(train, rows, classifier.ansatz.shifts, backend)),
        "round": added((1, fixed), (1, validation)) if federated else fixed,
        "end": added((averages_rounds(settings), validation), (1, price(len(cache.site.test))))
        if federated
        else NOTHING,
    }
    return entry, validation if federated else NOTHING


def _circuit(classifier: Classifier) -> dict[str, Any]:
    """Return what is known of a client's circuit."""
    facts = getattr(getattr(classifier.engine, "circuit", None), "facts", None)
    if facts is None:
        return {"two_qubit_gates": classifier.two_qubit_gates}
    return asdict(facts)


def _price(classifier: Classifier) -> Callable[[int], Figures]:
    """Return a function from circuits to their cost on a classifier's backend."""
    from quantum import DeviceEngine

    gates, engine = classifier.two_qubit_gates, classifier.engine

    def price(circuits: int) -> Figures:
        shots = circuits * int(getattr(engine, "shots", 0))
        jobs, seconds = engine.quote(circuits) if isinstance(engine, DeviceEngine) else (0, 0.0)
        figures = jobs, circuits, shots, circuits * gates, seconds
        return dict(zip(NOTHING, figures, strict=True))

    return price


def main() -> int:
    """Read settings and write the estimate."""
    return settings_command(estimate)


if __name__ == "__main__":
    sys.exit(main())
