"""The rule by which a run aggregates: a function of ours or a user's, or a strategy of Flower's."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid, strategy
from flwr.serverapp.strategy import FedAvg, Strategy

from core import Settings, SettingsError, UserError, parse_options, registry
from core.errors import short_message
from core.flower_compat import only_warnings
from core.formatting import printable
from core.messages import (
    METRICS,
    TRAIN,
    AdaptReport,
    TrainReport,
    pack_parameters,
    pack_report,
    unpack_parameters,
)
from core.settings.aggregation import flower_rules
from core.settings.secure import quorum
from strategies.aggregator_state import pack_state, unpack_state
from strategies.layerwise import by_coverage
from strategies.updates import Arrays, Parameters, is_partial

POINT = registry.POINTS["aggregation"]
OUR_SETTINGS = frozenset(inspect.signature(FedAvg).parameters)
"""Arguments of Flower's strategies that have no effect here: who trains is the agent's decision."""


class TooFewError(UserError):
    """A rule aggregates nothing of so few updates."""


@dataclass(frozen=True)
class Contribution:
    """A checked model, what it weighs (rows, or a part of them), and the numbers with it."""

    arrays: Parameters
    weight: float
    report: AdaptReport | TrainReport


@dataclass(frozen=True)
class Aggregator:
    """Turns a round's updates into the next global parameters.

    Attributes
    ----------
    rule : str
        `aggregation.rule`.
    made : callable or FedAvg
        A function of updates, weights and the global arrays, an object called like one, or a
        strategy of Flower's.
    """

    rule: str
    made: Any

    def aggregate(
        self, server_round: int, parts: Sequence[Contribution], reference: Arrays
    ) -> Parameters:
        """Aggregate; what the rule keeps between rounds changes.

        Raises
        ------
        SettingsError
            If the rule raises, or returns other arrays than the global ones: other names or
            shapes, or numbers that are not finite. One line that names the file.
        TooFewError
            If it is a strategy of Flower's that needs more updates.
        """
        weights = np.array([one.weight for one in parts], np.float64)
        try:
            if isinstance(self.made, FedAvg):
                found = _by_flower(self.made, server_round, parts, reference)
            else:
                updates = [dict(one.arrays) for one in parts]
                if any(map(is_partial, updates)):
                    found = by_coverage(self.made, updates, weights, reference)
                else:
                    found = self.made(updates, weights, dict(reference))
        except Exception as error:
            raise _raised(self.rule, error) from error
        if found is None and not isinstance(self.made, FedAvg):
            raise self._wrong("returns None", "arrays by name")
        if found is None:
            given = f"aggregation.rule = {self.rule!r} aggregates nothing of {len(parts)} updates"
            fix = "raise run.min_replies and run.clients, or change aggregation.options"
            raise TooFewError(given, "as many updates as the rule needs", fix)
        return self._checked(found, parts[0].arrays)

    def _checked(self, found: Any, like: Parameters) -> Parameters:
        """Return the arrays in the data types of the updates; refuse any but such arrays."""
        if not isinstance(found, Mapping):
            raise self._wrong(f"returns {printable(repr(found), 60)}", "arrays by name")
        if set(found) != set(like):
            raise self._wrong(f"returns the arrays {_listed(found)}", _listed(like))
        arrays = {}
        for name, update in like.items():
            try:
                array = np.asarray(found[name]).astype(update.dtype, casting="same_kind")
            except (TypeError, ValueError):
                what = f"returns no numbers as {name!r}"
                raise self._wrong(what, f"an array of shape {update.shape}") from None
            if array.shape != update.shape:
                raise self._wrong(f"returns {name!r} of shape {array.shape}", f"{update.shape}")
            if not np.isfinite(array).all():
                raise self._wrong(f"returns a {name!r} that is not finite", "finite numbers")
            arrays[name] = array
        return arrays

    def _wrong(self, what: str, accepted: str) -> SettingsError:
        given = f"aggregation.rule = {self.rule!r} {what}"
        return SettingsError(given, accepted, "correct the file or change aggregation.rule")

    def copy(self) -> Aggregator:
        """Return the rule with what it keeps at present: the copy's rounds do not change it."""
        try:
            return Aggregator(self.rule, copy.deepcopy(self.made))
        except Exception as error:
            raise _raised(self.rule, error) from error

    def state(self) -> tuple[dict[str, Any], Parameters]:
        """Return what the rule keeps between rounds: JSON values, and arrays by name."""
        return pack_state(getattr(self.made, "__dict__", {}) if self._keeps else {})

    def restore(self, facts: Mapping[str, Any], arrays: Parameters) -> None:
        """Take back what `state` has returned.

        Raises
        ------
        SettingsError
            If it keeps something that no checkpoint holds: going on would give other numbers.
        """
        if unsaved := facts.get("unsaved"):
            given = f"aggregation.rule = {self.rule!r} keeps {_listed(unsaved)} between rounds"
            accepted = "numbers, texts and numpy arrays, also in lists and dicts"
            raise SettingsError(given, f"{accepted}: a checkpoint holds these", "start a new run")
        if self._keeps and (found := unpack_state(facts, arrays)):
            vars(self.made).update(found)

    @property
    def _keeps(self) -> bool:
        """Whether the rule is an object, which may keep something between rounds."""
        return not inspect.isroutine(self.made)


def _by_flower(
    made: FedAvg, server_round: int, parts: Sequence[Contribution], reference: Arrays
) -> Parameters | None:
    """Let a strategy of Flower's aggregate; None if it aggregates nothing."""
    messages = []
    for one in parts:
        content = pack_report(one.report, one.arrays)
        content.metric_records[METRICS][made.weighted_by_key] = one.weight
        messages.append(Message(content, dst_node_id=0, message_type=TRAIN))
    with only_warnings():
        # It notes the global arrays here. Without a share of nodes to train it makes no message.
        nobody = cast(Grid, None)
        made.configure_train(server_round, pack_parameters(reference), ConfigRecord(), nobody)
        arrays, _ = made.aggregate_train(server_round, messages)
    return None if arrays is None else unpack_parameters(arrays)


def build_aggregator(settings: Settings) -> Aggregator:
    """Build the rule that the settings name.

    Raises
    ------
    SettingsError
        If it is not there, does not take its options, or is nothing that aggregates: one line.
    """
    rule, text = settings.aggregation.rule, settings.aggregation.options
    options = parse_options("aggregation.options", text)
    if rule in flower_rules() and rule not in registry.names(POINT.name):
        return Aggregator(rule, _flowers(rule, getattr(strategy, rule), options, settings))
    found = registry.find(POINT.name, rule)
    if isinstance(found, type) and issubclass(found, FedAvg):
        return Aggregator(rule, _flowers(rule, found, options, settings))
    made = registry.build(POINT.name, rule, settings, options)
    if isinstance(made, FedAvg):
        vars(made)["fraction_train"] = 0.0
    elif isinstance(made, Strategy) or not callable(made):
        what = f"aggregation.rule = {rule!r}, which is neither a function nor a FedAvg of Flower's"
        raise SettingsError(what, POINT.expected, "correct the file")
    built = Aggregator(rule, made)
    # An object is as it was given in each run: what one has learned is not the next one's.
    return built.copy() if made is found else built


def _flowers(rule: str, kind: type[FedAvg], options: dict[str, Any], settings: Settings) -> FedAvg:
    """Build a strategy of Flower's, or a user's subclass of one, with its options."""
    own = [name for name in inspect.signature(kind).parameters if name not in OUR_SETTINGS]
    if unknown := sorted(set(options) - set(own)):
        given = f"aggregation.options with {_listed(unknown)} for aggregation.rule = {rule!r}"
        accepted = _listed(own) or "no options"
        raise SettingsError(given, accepted, "correct aggregation.options")
    if "client_learning_rate" in own:
        options = {"client_learning_rate": settings.train.learning_rate, **options}
    try:
        made = kind(**options)
    except Exception as error:
        raise _raised(rule, error) from error
    vars(made)["fraction_train"] = 0.0  # nobody is drawn: who trains is the agent's decision
    return made


def check_aggregator(settings: Settings, first: Parameters) -> None:
    """Try the rule on updates that are made up: what is wrong with it shows before any site works.

    Parameters
    ----------
    settings : Settings
        The run's settings.
    first : dict of arrays
        The first global parameters; the updates are near them.

    Raises
    ------
    UserError
        As `Aggregator.aggregate`.
    """
    if settings.aggregation.rule in registry.shipped(POINT.name):
        return
    draw = np.random.default_rng(0)
    report = TrainReport(**dict.fromkeys(TrainReport.__dataclass_fields__, 1))
    for count in sorted({quorum(settings), settings.run.clients}):
        parts = [
            Contribution(
                {k: (v + draw.normal(0, 0.1, v.shape)).astype(v.dtype) for k, v in first.items()},
                100 + number,
                report,
            )
            for number in range(count)
        ]
        aggregator = build_aggregator(settings).copy()
        for server_round in (1, 2):
            aggregator.aggregate(server_round, parts, first)


def _raised(rule: str, error: Exception) -> SettingsError:
    """Describe what a rule raised in one line."""
    if rule in registry.names(POINT.name) or registry.OWN_FILE.fullmatch(rule):
        return registry.bad_extension(POINT.name, rule, error)
    given = f"aggregation.rule = {rule!r}: {type(error).__name__}: {short_message(error)}"
    return SettingsError(
        given, "options that Flower's strategy takes", "change aggregation.options"
    )


def _listed(names: Any) -> str:
    return ", ".join(repr(str(name)) for name in names)
