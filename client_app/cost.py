"""What a run would cost on its backends, without running it: `python -m client_app.cost`.

Reads the flat settings as JSON from standard input and writes JSON; `llm-qfl cost` prints it. Rows
are counted at the real data, circuits are transpiled for the real backends; nothing is submitted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from client_app.site import SiteCache, on_backend
from core import Settings, backend_of, settings_command, store_root, worst_steps

if TYPE_CHECKING:
    from quantum import Classifier


@dataclass(frozen=True)
class StepCost:
    """What one kind of work costs a client.

    Attributes
    ----------
    jobs, circuits, shots, two_qubit_gates : int
        Counts; an exact simulator has no jobs and no shots.
    qpu_seconds : float
        Estimated; 0 for simulators that stand for no device.
    """

    jobs: int
    circuits: int
    shots: int
    two_qubit_gates: int
    qpu_seconds: float

    def __add__(self, other: StepCost) -> StepCost:
        mine, theirs = asdict(self), asdict(other)
        return StepCost(**{key: mine[key] + theirs[key] for key in mine})

    def times(self, count: int) -> StepCost:
        """Return the cost of so many."""
        return StepCost(**{key: value * count for key, value in asdict(self).items()})


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
        of a ``round`` besides its steps, and of the ``end`` (the final test); ``judge``: the
        server's own evaluations, on ``judged_on``; ``totals``: the whole run at ``train.steps``
        and at the most that the agent may give, ``max_steps``; ``price`` of a QPU second;
        ``rounds``: those that are paid; ``adapter``: what training one
        together sends, ``bytes`` each way and ``bytes_in_all``, 0 without `llm.federated`.

    Raises
    ------
    UserError
        If data or a backend cannot be had.
    """
    from quantum import build_classifier

    clients, totals = [], {"steps": _NOTHING, "max_steps": _NOTHING}
    most = worst_steps(settings, _backends(settings))
    all_steps = {"steps": settings.train.steps, "max_steps": most}
    rounds = settings.run.rounds - settings.train.warm_rounds
    for client, backend in enumerate(_backends(settings)):
        own = on_backend(settings, backend)
        cache = SiteCache(own, client, f"client {client}")
        host = replace(cache.host, estimate=True)
        classifier = build_classifier(own.quantum, cache.classes, host)
        entry, step, fixed, end = _client(cache, classifier)
        warm = _warm_evaluations(cache, classifier)
        clients.append(entry)
        for name, steps in all_steps.items():
            totals[name] += (step.times(steps) + fixed).times(rounds) + end + warm
    evaluator = _evaluator(settings)
    for name in totals:
        totals[name] += evaluator
    return {
        "adapter": _adapter(settings),
        "rounds": rounds,
        "judged_on": settings.evaluation.backend,
        "judge": asdict(evaluator),
        **all_steps,
        "price": settings.hardware.qpu_price,
        "clients": clients,
        "totals": {name: asdict(cost) for name, cost in totals.items()},
    }


def _backends(settings: Settings) -> list[str]:
    """Return each client's backend."""
    names = settings.quantum.backend
    return [backend_of(names, client) for client in range(settings.run.clients)]


def _evaluator(settings: Settings) -> StepCost:
    """Return what the server's own evaluations cost: validation each round, the test once."""
    backend = settings.evaluation.backend
    if settings.evaluation.mode != "central" or backend == "exact":
        return _NOTHING
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
    return price(len(data.validation)).times(settings.run.rounds) + price(len(data.test))


def _adapter(settings: Settings) -> dict[str, int]:
    """Return the bytes of the shared adapter: one way for a client, and over the run."""
    if settings.llm.federated == "none":
        return {"bytes": 0, "bytes_in_all": 0}
    from data import load_site
    from llm import shared_bytes

    info, _ = load_site(settings, 0, settings.run.clients)
    size = shared_bytes(settings.llm, info.kind, len(info.classes))
    return {"bytes": size, "bytes_in_all": 2 * size * settings.llm.rounds * settings.run.clients}


_NOTHING = StepCost(0, 0, 0, 0, 0.0)


def _client(
    cache: SiteCache, classifier: Classifier
) -> tuple[dict[str, Any], StepCost, StepCost, StepCost]:
    from quantum import circuits_before_steps, circuits_per_step

    settings, rows = cache.settings, len(cache.site.train)
    backend, train = settings.quantum.backend, settings.train
    federated = settings.evaluation.mode == "federated"
    price = _price(classifier)
    step = price(circuits_per_step(train, rows, classifier.angles, backend))
    fixed = price(circuits_before_steps(train, rows)) + price(len(cache.site.validation))
    end = _NOTHING
    if federated:
        fixed += price(len(cache.site.validation))
        end = price(len(cache.site.test))
    entry = {
        "client": cache.client,
        "backend": backend,
        "train_rows": rows,
        "angles": classifier.angles,
        "circuit": _circuit(classifier),
        "step": asdict(step),
        "round": asdict(fixed),
        "end": asdict(end),
    }
    return entry, step, fixed, end


def _warm_evaluations(cache: SiteCache, classifier: Classifier) -> StepCost:
    """Return what federated evaluation costs a client in all warm rounds."""
    settings = cache.settings
    rounds = settings.train.warm_rounds if settings.evaluation.mode == "federated" else 0
    return _price(classifier)(len(cache.site.validation)).times(rounds)


def _circuit(classifier: Classifier) -> dict[str, Any]:
    """Return what is known of a client's circuit."""
    facts = getattr(getattr(classifier.engine, "circuit", None), "facts", None)
    if facts is None:
        return {"two_qubit_gates": classifier.two_qubit_gates}
    return asdict(facts)


def _price(classifier: Classifier) -> Callable[[int], StepCost]:
    """Return a function from circuits to their cost on a classifier's backend."""
    from quantum import DeviceEngine

    gates, engine = classifier.two_qubit_gates, classifier.engine

    def price(circuits: int) -> StepCost:
        shots = circuits * int(getattr(engine, "shots", 0))
        jobs, seconds = engine.quote(circuits) if isinstance(engine, DeviceEngine) else (0, 0.0)
        return StepCost(jobs, circuits, shots, circuits * gates, seconds)

    return price


def main() -> int:
    """Read settings and write the estimate."""
    return settings_command(estimate)


if __name__ == "__main__":
    sys.exit(main())
