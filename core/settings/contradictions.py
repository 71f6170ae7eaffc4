"""Combinations of settings that contradict each other, told before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.errors import Check, IgnoredError, SettingsError, explain
from core.formatting import split_list
from core.settings.agent import LANGUAGE_MODELS, MAY_STOP, circuit_prices
from core.settings.backends import (
    ACCEPTED,
    backend_names,
    is_shot_based,
    local_optimizer,
    unknown_backends,
)
from core.settings.shares import selection_size
from core.settings.teaching import TABLES, teaching_checks

if TYPE_CHECKING:
    from core.settings.schema import Settings

NEEDS_CREDIT = ("bandit", "regulator")
"""Agents that learn from each client's credit."""

LEAST_PRECISION = 0.001
"""Smallest standard error that may be asked for: a million shots."""


def refuse_contradictions(settings: Settings, *, at_node: bool = False) -> None:
    """Refuse combinations that no single key's bounds can express.

    Parameters
    ----------
    settings : Settings
        The whole tree.
    at_node : bool
        Whether they are those of one node: what the run sets for all may be without effect there.

    Raises
    ------
    SettingsError
        One line: what was given, what is accepted, what to do.
    """
    for check in (
        *_run_checks(settings),
        *_backend_checks(settings),
        *(() if at_node else _ignored_checks(settings)),
        *teaching_checks(settings),
        *_data_checks(settings),
        *_agent_checks(settings),
        *_privacy_checks(settings),
    ):
        if check.fine:
            continue
        message = explain(check.given, check.takes, check.fix)
        if check.ignored:
            raise IgnoredError(message, check.ignored, check.by)
        raise SettingsError(message)


def may_count_shots(backend: str) -> bool:
    """Whether a backend may count shots unasked: devices, and PennyLane's Qiskit simulators."""
    return is_shot_based(backend) or backend.startswith("pennylane:qiskit.")


def refuse_unknown_backends(settings: Settings) -> None:
    """Refuse backends that no family takes, before other keys are judged by them.

    Raises
    ------
    SettingsError
        With the unknown names.
    """
    unknown = unknown_backends(backend_names(settings.quantum.backend))
    if unknown:
        given = f"quantum.backend = {', '.join(map(repr, unknown))}"
        raise SettingsError(given, ACCEPTED, "choose one of them")


def _run_checks(settings: Settings) -> tuple[Check, ...]:
    train, stop, agent = settings.train, settings.stop, settings.agent
    chosen = selection_size(settings.run.clients, agent.fraction)
    default_minimum = stop.min_rounds == type(stop)().min_rounds
    return (
        Check(
            bool(settings.run.folder) or not settings.run.resume,
            "run.resume = true without run.folder",
            "the folder of the run that goes on",
            "use llm-qfl run --resume FOLDER, or set run.folder",
        ),
        Check(
            train.min_steps <= train.steps <= train.max_steps,
            f"train.steps = {train.steps}, min_steps = {train.min_steps}, "
            f"max_steps = {train.max_steps}",
            "min_steps <= steps <= max_steps",
            "change train.steps or its bounds",
        ),
        Check(
            settings.run.min_replies <= settings.run.clients,
            f"run.min_replies = {settings.run.min_replies} with run.clients = "
            f"{settings.run.clients}",
            "at most run.clients",
            "lower run.min_replies",
        ),
        Check(
            agent.kind not in ("rule", "random", "greedy", "bandit")
            or settings.run.min_replies <= chosen,
            f"agent.fraction = {agent.fraction:g} of {settings.run.clients} clients selects "
            f"{chosen} with run.min_replies = {settings.run.min_replies}",
            "at least run.min_replies clients",
            "raise agent.fraction or lower run.min_replies",
        ),
        Check(
            default_minimum or stop.min_rounds <= settings.run.rounds,
            f"stop.min_rounds = {settings.stop.min_rounds} with run.rounds = {settings.run.rounds}",
            "at most run.rounds",
            "lower stop.min_rounds or raise run.rounds",
            "stop.min_rounds",
            ("run.rounds",),
        ),
        Check(
            bool(default_minimum or stop.rule != "none" or stop.patience or stop.target_accuracy)
            or agent.kind in MAY_STOP,
            f"stop.min_rounds = {stop.min_rounds} would be ignored because nothing stops the run",
            "stop.rule, stop.patience, stop.target_accuracy, or an agent that may stop the run",
            "set one of them or remove stop.min_rounds",
            "stop.min_rounds",
            ("stop.rule", "stop.patience", "stop.target_accuracy", "agent.kind"),
        ),
    )


def _privacy_checks(settings: Settings) -> tuple[Check, ...]:
    privacy, default = settings.privacy, type(settings.privacy)()
    on = privacy.dp != "none"
    noisy = on or privacy.moment_noise > 0
    agent = settings.agent
    bounds = settings.aggregation.model_dump(include={"max_norm", "norm_ratio", "clip_radius"})
    unused = [k for k in ("delta", "seeded") if getattr(privacy, k) != getattr(default, k)]
    return (
        Check(
            noisy or not unused,
            f"privacy.{(unused or ['delta'])[0]} would be ignored because nothing is noised",
            "privacy.dp or privacy.moment_noise",
            "set one of them, or remove it",
            f"privacy.{(unused or ['delta'])[0]}",
            ("privacy.dp", "privacy.moment_noise"),
        ),
        Check(
            privacy.dp != "central" or settings.aggregation.rule == "uniform",
            f"aggregation.rule = {settings.aggregation.rule!r} with privacy.dp = 'central'",
            "aggregation.rule = 'uniform': the noise is made for equal weights",
            "set aggregation.rule = 'uniform'",
        ),
        *(
            Check(
                privacy.dp != "central" or value == getattr(type(settings.aggregation)(), key),
                f"aggregation.{key} = {value:g} would be ignored because privacy.dp = 'central'",
                "privacy.clip, which shortens an update instead of dropping or moving it",
                f"remove aggregation.{key}",
                f"aggregation.{key}",
                ("privacy.dp",),
            )
            for key, value in bounds.items()
        ),
        Check(
            not on or settings.agent.kind not in NEEDS_CREDIT,
            f"agent.kind = {settings.agent.kind!r} with privacy.dp = {privacy.dp!r}",
            "an agent that needs no credit, which is made of single clients' models",
            f"choose another than {' and '.join(NEEDS_CREDIT)}",
        ),
        Check(
            not on or settings.llm.federated == "none",
            f"llm.federated = {settings.llm.federated!r} with privacy.dp = {privacy.dp!r}",
            "llm.federated = 'none': adapters would leave the sites without noise",
            "leave one of them out",
        ),
        Check(
            not on or (agent.kind, agent.stage) != ("rule", "aggregation") or agent.fraction == 1,
            f"agent.stage = 'aggregation' with privacy.dp = {privacy.dp!r}",
            "agent.stage = 'participation': losses, which carry no noise, would choose whose "
            "updates of a round count, and epsilon does not cover that",
            "set agent.stage = 'participation', or agent.fraction = 1",
        ),
    )


def _agent_checks(settings: Settings) -> tuple[Check, ...]:
    agent, clients = settings.agent, settings.run.clients
    return (
        Check(
            circuit_prices(agent.circuit_prices, clients) is not None,
            f"agent.circuit_prices = {agent.circuit_prices!r} with run.clients = {clients}",
            "a number above 0 for all clients, or one for each, comma-separated",
            "name as many prices as there are clients",
        ),
        Check(
            agent.kind not in LANGUAGE_MODELS or bool(agent.model),
            f"agent.kind = {agent.kind!r} without agent.model",
            "a model's hub id or path (llm), or the server's name of it (endpoint)",
            "set agent.model",
        ),
        Check(
            settings.data.noisy_clients <= clients,
            f"data.noisy_clients = {settings.data.noisy_clients} with run.clients = {clients}",
            "at most run.clients",
            "lower data.noisy_clients",
        ),
    )


def _backend_checks(settings: Settings) -> tuple[Check, ...]:
    text, train, hardware = settings.quantum.backend, settings.train, settings.hardware
    names = backend_names(text)
    counting = [name for name in names if is_shot_based(name)]
    return (
        Check(
            len(names) in (1, settings.run.clients),
            f"quantum.backend names {len(names)} backends with run.clients = "
            f"{settings.run.clients}",
            "one backend for all, or one for each client",
            "name as many as there are clients",
        ),
        Check(
            train.optimizer != "adam" or not counting,
            f"train.optimizer = 'adam' with quantum.backend = {', '.join(counting)}",
            "auto, spsa, parameter-shift or cobyla where shots are counted",
            "set train.optimizer=auto",
        ),
        Check(
            train.warm_rounds <= settings.run.rounds,
            f"train.warm_rounds = {train.warm_rounds} with run.rounds = {settings.run.rounds}",
            "at most run.rounds",
            "lower train.warm_rounds",
        ),
        Check(
            hardware.precision == 0 or hardware.precision >= LEAST_PRECISION,
            f"hardware.precision = {hardware.precision:g}, {hardware.circuit_shots:,} shots",
            f"0, or {LEAST_PRECISION:g} and above",
            "raise hardware.precision",
        ),
    )


def _ignored_checks(settings: Settings) -> tuple[Check, ...]:
    """Check what no client, or no server, would use; a single node may well not use it."""
    text, train, stop = settings.quantum.backend, settings.train, settings.stop
    names = backend_names(text)
    used = {local_optimizer(train.optimizer, name) for name in names}
    used |= {"adam"} if train.warm_rounds else set()
    chosen = f"train.optimizer = {train.optimizer!r} on {text}"
    judged = settings.evaluation.backend
    return (
        Check(
            judged in ("exact", *names),
            f"evaluation.backend = {judged!r}",
            f"exact, or one that quantum.backend names ({text})",
            "choose one of them",
            "evaluation.backend",
            ("quantum.backend",),
        ),
        Check(
            "spsa" in used or train.perturbation == type(train)().perturbation,
            f"train.perturbation = {train.perturbation} would be ignored by {chosen}",
            "an optimizer that perturbs: spsa",
            "remove train.perturbation or set train.optimizer=spsa",
            "train.perturbation",
            ("quantum.backend", "train.optimizer"),
        ),
        Check(
            used != {"spsa"} or train.schedule == "constant",
            f"train.schedule = {train.schedule!r} would be ignored by {chosen}",
            "adam or parameter-shift; SPSA has gains of its own",
            "remove train.schedule",
            "train.schedule",
            ("quantum.backend", "train.optimizer"),
        ),
        Check(
            not stop.shots or settings.hardware.shots > 0 or any(map(may_count_shots, names)),
            f"stop.shots = {stop.shots} would be ignored: {text} computes exact expectations",
            "hardware.shots above 0, or a backend that counts shots",
            "set hardware.shots or remove stop.shots",
            "stop.shots",
            ("quantum.backend", "hardware.shots"),
        ),
    )


def _data_checks(settings: Settings) -> tuple[Check, ...]:
    data, evaluation = settings.data, settings.evaluation
    tabular = data.source in TABLES
    text = data.source == "tweet-eval" or (tabular and data.kind == "text")
    return (
        Check(
            tabular or data.partition != "column",
            f"data.partition = 'column' with data.source = {data.source!r}",
            "data.source = csv or jsonl",
            "choose another partition",
        ),
        Check(
            not tabular or data.text_column != data.label_column,
            f"data.text_column and data.label_column are both {data.text_column!r}",
            "two columns: a text that is its own label teaches nothing",
            "set data.label_column to the column of the classes",
        ),
        Check(
            not text or settings.features.kind != "kmer",
            "features.kind = 'kmer' with rows of text",
            "embedding or auto; k-mers are of DNA",
            "change features.kind, or data.kind if the rows are DNA",
        ),
        Check(
            not data.labels or len(split_list(data.labels)) > 1,
            f"data.labels = {data.labels!r}",
            "two or more class names, comma-separated",
            "name every class",
        ),
        Check(
            data.source not in ("csv", "jsonl") or bool(data.path) or data.per_site,
            f"data.source = {data.source!r} without data.path",
            "a file",
            "set data.path",
        ),
        Check(
            not data.per_site or bool(data.labels),
            "data.per_site without data.labels",
            "the class names in order",
            "set data.labels, since no site sees them all",
        ),
        Check(
            data.partition != "column" or bool(data.partition_column),
            "data.partition = 'column' without data.partition_column",
            "a column's name",
            "set data.partition_column",
        ),
        Check(
            not (data.per_site and evaluation.mode == "central" and not data.test_path),
            "evaluation.mode = 'central' with data.per_site and no data.test_path",
            "evaluation.mode = 'federated', or rows for the server",
            "set evaluation.mode = 'federated'",
        ),
    )
