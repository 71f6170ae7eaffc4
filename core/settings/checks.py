"""Checks of settings against each other, before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from core import registry
from core.errors import SettingsError
from core.settings.aggregation import check_rule
from core.settings.backends import (
    ACCEPTED,
    KNOWN,
    backend_names,
    is_shot_based,
    local_optimizer,
)
from core.settings.declare import Condition, Conditions, above, given, unless, used_by, when
from core.settings.derived import agent_declares, circuit_prices, selection_size
from core.settings.features import any_kind
from core.settings.layers import REQUIREMENTS as LAYERS_REQUIREMENTS
from core.settings.layers import check_layers
from core.settings.llm import LEARNS, TAUGHT
from core.settings.options import parse_options
from core.settings.private import REQUIREMENTS as PRIVATE_REQUIREMENTS
from core.settings.schema import FIELDS, Settings, flatten, traits
from core.settings.secure import REQUIREMENTS as SECURE_REQUIREMENTS
from core.settings.secure import check_secure
from core.settings.values import VALUES

AT_MOST = (
    ("run.min_replies", "run.clients"),
    ("data.noisy_clients", "run.clients"),
    ("train.warm_rounds", "run.rounds"),
    ("train.min_steps", "train.steps"),
    ("train.steps", "train.max_steps"),
)
"""Keys whose value is at most that of another."""


NO_LLM = when("llm.model", "none")


def _embeds(name: str) -> bool:
    return name != "none" and hasattr(registry.find("model", name), "embed")


EMBEDDER = (Condition("llm.model", _embeds, "a model that embeds"),)
NO_EMBEDDER = (
    *when("llm.encoder", "auto"),
    Condition("llm.model", lambda name: not _embeds(name), "none that embeds"),
)
FEDERATED_LLM, LOCAL_LLM = unless("llm.federated", "none"), when("llm.federated", "none")
NO_DP = when("privacy.dp", "none")
FOLDS = above("distill.folds", 0)
AUTO = when("features.kind", "auto")
OF_DNA: Conditions = (
    Condition("features.kind", lambda t: any_kind(t, lambda kind: "text" not in kind.rows), "DNA"),
)
NOT_EMBEDDED, NO_EMBEDDED_CANDIDATE = (
    (Condition(key, lambda t: not any_kind(t, lambda kind: kind.embeds), "no embedding"),)
    for key in ("features.kind", "features.candidates")
)
BY_COLUMN = when("data.partition", "column")
PER_SITE, NOT_PER_SITE = when("data.per_site", True), when("data.per_site", False)
TABLE = used_by("dataset", "data.partition_column")
KIND_SET, DNA = used_by("dataset", "data.kind"), when("data.kind", "dna")
TRAINED = "it needs a fine-tuned language model"
LABELLED = "hidden states are compared of labelled rows"
EMBEDS = "embeddings are made by llm.encoder, or by llm.model"
K_MERS = "k-mers and one-hot are of DNA"


def _trait(name: str, holds: Callable[[Any], bool], says: str) -> Conditions:
    """Require a data set whose trait, None where it declares none, has a value that holds."""

    def of_set(source: str) -> bool:
        return holds(registry.declared("dataset", source, name))

    return (Condition("data.source", of_set, says),)


FILES = _trait("needs_path", bool, "a format of files")
NOT_TEXT = _trait("kind", lambda kind: kind != "text", "not a set of texts")
SITES = _trait("has_sites", lambda has: has is not False, "a data set that names sites")

REQUIREMENTS: tuple[tuple[Conditions, Conditions, str], ...] = (
    (when("run.resume", True), given("run.folder"), "set by llm-qfl run --resume FOLDER"),
    (when("distill.kind", *TAUGHT) + NO_LLM, when("distill.weight", 0.0), TRAINED),
    (NO_LLM, when("distill.features", 0.0), TRAINED),
    (NO_LLM, when("stop.rule", "none", "change"), TRAINED),
    (NO_LLM, LOCAL_LLM, TRAINED),
    (NO_EMBEDDER, NOT_EMBEDDED, EMBEDS),
    (NO_EMBEDDER, NO_EMBEDDED_CANDIDATE, EMBEDS),
    (NO_EMBEDDER + AUTO, NOT_TEXT, EMBEDS),
    (NO_EMBEDDER + AUTO + KIND_SET, DNA, EMBEDS),
    (above("distill.features", 0), when("data.unlabelled_rows", 0), LABELLED),
    (above("distill.features", 0), when("data.unlabelled", ""), LABELLED),
    (above("distill.features", 0), EMBEDDER, "embeddings of rows are compared"),
    (FOLDS, LEARNS[1:], "the others would be fitted to other rows"),
    (FEDERATED_LLM, when("llm.peft", "auto", "lora", "qlora"), "adapters are averaged"),
    (FEDERATED_LLM, NO_DP, "adapters would leave the sites without noise"),
    (FOLDS, LOCAL_LLM, "folds of each site's own teacher; the shared adapter is one model"),
    (FOLDS, when("distill.features", 0.0), "hidden states of several models are not one space"),
    (above("distill.features", 0), unless("train.batch_rows", 1), "it compares pairs of rows"),
    (BY_COLUMN, SITES, "the column is one of the file"),
    (BY_COLUMN + TABLE, given("data.partition_column"), "a column's name"),
    (OF_DNA, NOT_TEXT, K_MERS),
    (OF_DNA + KIND_SET, DNA, K_MERS),
    (NOT_PER_SITE + FILES, given("data.path"), "a file"),
    (PER_SITE, given("data.labels"), "the class names in order, since no site sees them all"),
    (
        PER_SITE + when("evaluation.mode", "central"),
        given("data.test_path"),
        "rows for the server; or evaluation.mode = 'federated'",
    ),
    (
        when("agent.stage", "aggregation"),
        NO_DP,
        "losses, which carry no noise, would choose whose updates of a round count",
    ),
    *SECURE_REQUIREMENTS,
    *PRIVATE_REQUIREMENTS,
    *LAYERS_REQUIREMENTS,
)
"""Where the first conditions hold, the second must hold too, for a reason."""


class IgnoredError(SettingsError):
    """A setting would have no effect: `key`, because of the keys `by`."""

    def __init__(self, given: str, accepted: str, fix: str, key: str, by: tuple[str, ...]) -> None:
        super().__init__(given, accepted, fix)
        self.key, self.by = key, by


def check_backend_names(settings: Settings) -> None:
    """Refuse names of backends that no family takes.

    Raises
    ------
    SettingsError
        With the unknown names.
    """
    unknown = [n for n in backend_names(settings.quantum.backend) if not KNOWN.fullmatch(n)]
    if unknown:
        given = f"quantum.backend = {', '.join(map(repr, unknown))}"
        raise SettingsError(given, ACCEPTED, "choose one of them")


def check_conditions(settings: Settings, keys: Collection[str]) -> None:
    """Refuse other values than the default where the key has no effect.

    Parameters
    ----------
    settings : Settings
        The whole tree.
    keys : collection of str
        The keys to check.

    Raises
    ------
    IgnoredError
        With the first such key.
    """
    flat = flatten(settings)
    for key, field in FIELDS.items():
        if key not in keys or flat[key] == field.default:
            continue
        for other in traits(key).applies_when:
            # A condition on a key that has no effect itself sees that key's default.
            if not other.met(flat):
                why = f"because {other.key} = {flat[other.key]!r}"
                fix = f"remove {key} or change {other.key}"
                raise _ignored(settings, key, why, str(other), fix, other.key)


def check_combinations(settings: Settings, *, at_node: bool = False) -> None:
    """Refuse combinations that no single key's bounds or conditions can express.

    Parameters
    ----------
    settings : Settings
        The whole tree.
    at_node : bool
        Whether they are those of one node, where settings of the whole run may have no effect.

    Raises
    ------
    SettingsError
        One line: what was given, what is accepted, what to do.
    """
    _check_tables(settings)
    _check_values(settings)
    _check_backends(settings)
    _check_stop(settings)
    check_layers(settings, at_node=at_node)
    if not at_node:
        _check_effects(settings)
        _check_agent(settings)
        _check_aggregation(settings)
        check_secure(settings)
    _check_privacy(settings)


def _ignored(
    settings: Settings, key: str, why: str, accepted: str, fix: str, *by: str
) -> IgnoredError:
    given = f"{key} = {flatten(settings)[key]!r} would be ignored {why}"
    return IgnoredError(given, accepted, fix, key, by)


def _check_tables(settings: Settings) -> None:
    flat = flatten(settings)
    for key, other in AT_MOST:
        if flat[key] > flat[other]:  # type: ignore[operator]
            raise SettingsError(
                f"{key} = {flat[key]} with {other} = {flat[other]}",
                f"at most {other}",
                f"lower {key} or raise {other}",
            )
    for one in VALUES:
        if not one.holds(flat[one.key]):
            given = f"{one.key} = {flat[one.key]!r}"
            raise SettingsError(given, one.accepted, f"change {one.key}")
    for where, (needs,), reason in REQUIREMENTS:
        value = flat[needs.key]
        if all(one.holds(flat[one.key]) for one in where) and not needs.holds(value):
            holds = " with ".join(f"{one.key} = {flat[one.key]!r}" for one in where)
            lacks = f"with {needs.key} = {value!r}" if value != "" else f"without {needs.key}"
            fix = f"change {needs.key} or {where[0].key}"
            raise SettingsError(f"{holds} {lacks}", f"{needs} ({reason})", fix)


def _check_values(s: Settings) -> None:
    """Check texts that hold several values, and numbers of clients that follow from others."""
    agent, data, clients = s.agent, s.data, s.run.clients
    if circuit_prices(agent.circuit_prices, clients) is None:
        raise SettingsError(
            f"agent.circuit_prices = {agent.circuit_prices!r} with run.clients = {clients}",
            "a number above 0 for all clients, or one for each, comma-separated",
            "name as many prices as there are clients",
        )
    if data.text_column == data.label_column:
        raise SettingsError(
            f"data.text_column and data.label_column are both {data.text_column!r}",
            "two columns: a text that is its own label teaches nothing",
            "set data.label_column to the column of the classes",
        )


def _check_backends(s: Settings) -> None:
    names = backend_names(s.quantum.backend)
    if len(names) not in (1, s.run.clients):
        raise SettingsError(
            f"quantum.backend names {len(names)} backends with run.clients = {s.run.clients}",
            "one backend for all, or one for each client",
            "name as many as there are clients",
        )
    counting = [name for name in names if is_shot_based(name)]
    if s.train.optimizer == "adam" and counting:
        raise SettingsError(
            f"train.optimizer = 'adam' with quantum.backend = {', '.join(counting)}",
            "auto, spsa, parameter-shift or cobyla where shots are counted",
            "set train.optimizer=auto",
        )


def _check_stop(s: Settings) -> None:
    stop = s.stop
    if stop.min_rounds == FIELDS["stop.min_rounds"].default:
        return
    key, rounds = "stop.min_rounds", s.run.rounds
    if stop.min_rounds > rounds:
        fix = "lower stop.min_rounds or raise run.rounds"
        why = f"because run.rounds = {rounds}"
        raise _ignored(s, key, why, "at most run.rounds", fix, "run.rounds")


def _check_effects(s: Settings) -> None:
    """Refuse what no client, or no server, would use; a single node may well not use it."""
    backend, train = s.quantum.backend, s.train
    names = backend_names(backend)
    if s.evaluation.backend not in ("exact", *names):
        raise IgnoredError(
            f"evaluation.backend = {s.evaluation.backend!r}",
            f"exact, or one that quantum.backend names ({backend})",
            "choose one of them",
            "evaluation.backend",
            ("quantum.backend",),
        )
    used = {local_optimizer(train.optimizer, name) for name in names}
    used |= {"adam"} if train.warm_rounds else set()
    why = f"by train.optimizer = {train.optimizer!r} on {backend}"
    by = ("quantum.backend", "train.optimizer")
    if "spsa" not in used and train.perturbation != FIELDS["train.perturbation"].default:
        fix = "remove train.perturbation or set train.optimizer=spsa"
        raise _ignored(s, "train.perturbation", why, "an optimizer that perturbs: spsa", fix, *by)
    if used == {"spsa"} and train.schedule == "inverse-time":
        accepted = "adam or parameter-shift; SPSA has gains of its own"
        raise _ignored(s, "train.schedule", why, accepted, "remove train.schedule", *by)
    # PennyLane's Qiskit simulators count shots unasked.
    counting = any(is_shot_based(one) or one.startswith("pennylane:qiskit.") for one in names)
    if s.stop.shots and not s.hardware.shots and not counting:
        why = f"because {backend} computes exact expectations"
        accepted = "hardware.shots above 0, or a backend that counts shots"
        fix, by = "set hardware.shots or remove stop.shots", ("quantum.backend", "hardware.shots")
        raise _ignored(s, "stop.shots", why, accepted, fix, *by)


def _check_privacy(s: Settings) -> None:
    if s.privacy.dp != "none" or s.privacy.moment_noise:
        return
    by, fix = ("privacy.dp", "privacy.moment_noise"), "set one of them, or remove it"
    for key in ("privacy.delta", "privacy.seeded"):
        if flatten(s)[key] != FIELDS[key].default:
            raise _ignored(s, key, "because nothing is noised", " or ".join(by), fix, *by)


# --- what extensions declare: checked where their code is, so not at a node ------------------


def _check_agent(s: Settings) -> None:
    """Check the settings against what the agent declares."""
    agent, kind, clients = s.agent, f"agent.kind = {s.agent.kind!r}", s.run.clients
    parse_options("agent.options", agent.options)
    uses, chosen = agent_declares(s, "uses", ()), selection_size(clients, agent.fraction)
    if "agent.fraction" in uses and s.run.min_replies > chosen:
        raise SettingsError(
            f"agent.fraction = {agent.fraction:g} of {clients} clients selects {chosen} "
            f"with run.min_replies = {s.run.min_replies}",
            "at least run.min_replies clients",
            "raise agent.fraction or lower run.min_replies",
        )
    if "agent.model" in uses and not agent.model:
        accepted = "a model's hub id or path (llm), or the server's name of it (endpoint)"
        raise SettingsError(f"{kind} without agent.model", accepted, "set agent.model")
    if s.llm.model == "none" and agent_declares(s, "needs_llm"):
        rule = f" with agent.rule = {agent.rule!r}" if "agent.rule" in uses else ""
        accepted = (
            "agent.rule = 'when-it-pays' or 'fixed', or a language model"
            if rule
            else "a language model"
        )
        fix = "change llm.model or agent.kind" + " or agent.rule" * bool(rule)
        raise SettingsError(f"{kind} with llm.model = 'none'{rule}", f"{accepted} ({TRAINED})", fix)
    if s.privacy.dp != "none" and agent_declares(s, "needs_credit"):
        given = f"{kind} with privacy.dp = {s.privacy.dp!r}"
        accepted = f"{NO_DP[0]} (credit is made of single clients' models)"
        raise SettingsError(given, accepted, "change privacy.dp or agent.kind")
    stop, key = s.stop, "stop.min_rounds"
    stops = stop.rule != "none" or stop.patience or stop.target_accuracy
    if flatten(s)[key] == FIELDS[key].default or stops or agent_declares(s, "may_stop", True):
        return
    by = ("stop.rule", "stop.patience", "stop.target_accuracy", "agent.kind")
    accepted = f"{', '.join(by[:3])}, or an agent that may stop the run"
    fix = "set one of them or remove stop.min_rounds"
    raise _ignored(s, key, "because nothing stops the run", accepted, fix, *by)


def _check_aggregation(s: Settings) -> None:
    """Check the settings against what the aggregation declares."""
    rule = s.aggregation.rule
    check_rule(rule)
    parse_options("aggregation.options", s.aggregation.options)
    given, ours = f"aggregation.rule = {rule!r}", registry.shipped("aggregation")
    equal = registry.declared("aggregation", rule, "equal_weights")
    whole = s.privacy.dp in ("central", "summed") and s.privacy.unit == "client"
    if s.privacy.unit == "row" and s.privacy.dp == "summed" and equal:
        raise SettingsError(
            f"privacy.dp = 'summed' with privacy.unit = 'row' and {given}",
            "a mean weighted by rows, such as 'weighted' or FedAdam: a row then counts alike at "
            "every site",
            "change aggregation.rule",
        )
    if whole and not equal:
        raise SettingsError(
            f"privacy.dp = {s.privacy.dp!r} with {given}",
            "aggregation.rule = 'uniform' (the noise is made for equal weights)",
            "change aggregation.rule or privacy.dp",
        )
    if s.llm.federated != "none" and rule not in ours:
        raise SettingsError(
            f"llm.federated = {s.llm.federated!r} with {given}",
            f"{', '.join(ours)} (adapters are averaged by it too)",
            "change aggregation.rule or llm.federated",
        )
