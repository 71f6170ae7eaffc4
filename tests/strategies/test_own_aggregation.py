"""Flower's strategies by name and aggregations of a user's own: closed forms, mistakes, resume."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp import strategy
from flwr.serverapp.strategy import FedAvg

from core import FIELDS, SettingsError, UserError, parse_run, read_jsonl, registry
from core.flower_compat import set_task_identity
from core.messages import METRICS, TRAIN, pack_parameters, pack_report, unpack_parameters
from core.settings.aggregation import UNUSABLE, flower_rules
from strategies.aggregator_state import pack_state, unpack_state
from strategies.aggregators import (
    Aggregator,
    Contribution,
    TooFewError,
    build_aggregator,
    check_aggregator,
)
from tests.conftest import Federate
from tests.strategies.test_aggregation import ROWS, VALUES, by_numpy
from tests.strategies.test_state import trained

FIRST = {"angles": np.array([1.0, 2.0]), "scale": np.array(3.0)}
USABLE = [name for name in flower_rules() if not name.startswith(tuple(UNUSABLE))]


class Pair(NamedTuple):
    """A tuple with names."""

    one: Any
    other: Any


def parts_of(values: Any = VALUES, rows: Any = ROWS) -> list[Contribution]:
    set_task_identity()
    return [
        Contribution({"angles": np.array(v), "scale": np.array(v[0])}, int(n), trained(0.5, 0.5))
        for v, n in zip(values, rows, strict=True)
    ]


def of(rule: str, options: str = "") -> Aggregator:
    settings, _ = parse_run([], [f"aggregation.rule={rule}", f"aggregation.options={options}"])
    return build_aggregator(settings)


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})


def own(made: Any, options: str = "") -> Aggregator:
    registry.register("aggregation", "mine", made)
    return of("mine", options)


# --- Flower's, against closed forms ---


def test_flowers_names_are_those_that_flower_exports() -> None:
    exported = {
        name
        for name in strategy.__all__
        if inspect.isclass(getattr(strategy, name)) and name not in ("Result", "Strategy")
    }
    assert set(flower_rules()) == exported
    assert {"FedAdam", "Krum", "Bulyan", "QFedAvg", "FedAvgM"} <= set(USABLE)


@pytest.mark.parametrize(
    ("ours", "flowers", "options"),
    [
        ("weighted", "FedAvg", ""),
        ("median", "FedMedian", ""),
        ("trimmed-mean", "FedTrimmedAvg", "beta=0.2500000001"),
        ("krum", "MultiKrum", "num_malicious_nodes=1,num_nodes_to_select=1"),
    ],
)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_ours_are_flowers_to_the_last_digit(
    ours: str, flowers: str, options: str, kind: type
) -> None:
    values: Any = np.random.default_rng(1).normal(size=(4, 2)).astype(kind)
    one = of(ours).aggregate(1, parts_of(values), FIRST)
    other = of(flowers, options).aggregate(1, parts_of(values), FIRST)
    for name in FIRST:
        np.testing.assert_array_equal(one[name], other[name])
        assert one[name].dtype == kind


def test_fedadams_first_step_is_its_closed_form() -> None:
    delta = by_numpy("weighted") - FIRST["angles"]
    # Flower corrects the bias of round 1 as Adam does in step 2.
    rate = 0.5 * np.sqrt(1 - 0.99**2) / (1 - 0.9**2)
    wanted = FIRST["angles"] + rate * 0.1 * delta / (np.sqrt(0.01 * delta**2) + 0.001)
    found = of("FedAdam", "eta=0.5").aggregate(1, parts_of(), FIRST)
    np.testing.assert_allclose(found["angles"], wanted, rtol=1e-12)


def test_fedavgm_adds_its_momentum_in_the_second_round() -> None:
    rule = of("FedAvgM", "server-momentum=0.5,server-learning-rate=0.1")
    mean = by_numpy("weighted")
    first = rule.aggregate(1, parts_of(), FIRST)
    one = FIRST["angles"] + 0.1 * (mean - FIRST["angles"])
    np.testing.assert_allclose(first["angles"], one, rtol=1e-12)
    second = rule.aggregate(2, parts_of(), first)
    speed = 0.5 * (mean - FIRST["angles"]) + (mean - one)
    np.testing.assert_allclose(second["angles"], one + 0.1 * speed, rtol=1e-12)


@pytest.mark.parametrize("rule", ["krum", "Krum"])
def test_krum_takes_the_update_nearest_to_the_others(rule: str) -> None:
    """Of 0, 1, 3 and 100, one forged: sums to the nearest are 1, 1, 4 and 97^2; first of equal."""
    values = [[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [100.0, 0.0]]
    options = "num-malicious-nodes=1" if rule == "Krum" else ""
    found = of(rule, options).aggregate(1, parts_of(values, [5, 5, 5, 5]), FIRST)
    assert found["angles"].tolist() in ([0.0, 0.0], [1.0, 0.0])


def test_qfedavg_of_no_fairness_is_a_plain_mean() -> None:
    found = of("QFedAvg", "q=0").aggregate(1, parts_of(), FIRST)
    np.testing.assert_allclose(found["angles"], VALUES.mean(axis=0), rtol=1e-9)


@pytest.mark.parametrize("rule", USABLE)
def test_every_usable_strategy_gives_such_arrays_as_it_was_given(rule: str) -> None:
    found = of(rule).aggregate(1, parts_of(), FIRST)
    assert {name: array.shape for name, array in found.items()} == {"angles": (2,), "scale": ()}


def test_a_copy_learns_nothing_for_the_rule_itself() -> None:
    rule = of("FedAdam")
    rule.aggregate(1, parts_of(), FIRST)
    copied, twin = rule.copy(), rule.copy()
    copied.aggregate(2, parts_of(VALUES * 7), FIRST)
    one, other = rule.aggregate(2, parts_of(), FIRST), twin.aggregate(2, parts_of(), FIRST)
    np.testing.assert_array_equal(one["angles"], other["angles"])


# --- a user's own ---


def test_a_function_is_given_arrays_weights_and_the_global_ones() -> None:
    def halfway(updates: Any, weights: Any, reference: Any) -> Any:
        assert isinstance(updates, list)
        assert weights.tolist() == ROWS.tolist()
        mean = {k: np.average([u[k] for u in updates], axis=0, weights=weights) for k in reference}
        return {k: (mean[k] + reference[k]) / 2 for k in reference}

    found = own(halfway).aggregate(1, parts_of(), FIRST)
    np.testing.assert_allclose(found["angles"], (by_numpy("weighted") + FIRST["angles"]) / 2)


def test_a_subclass_of_flowers_takes_its_options() -> None:
    class Shorter(FedAvg):
        def __init__(self, share: float = 1.0) -> None:
            super().__init__()
            self.share = share

        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            arrays, metrics = super().aggregate_train(server_round, replies)
            assert arrays is not None
            found = unpack_parameters(arrays)
            return pack_parameters({k: self.share * v for k, v in found.items()}), metrics

    found = own(Shorter, "share=0.5").aggregate(1, parts_of(), FIRST)
    np.testing.assert_allclose(found["angles"], by_numpy("weighted") / 2)


NAN = {"angles": np.array([1.0, np.nan]), "scale": np.array(1.0)}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda: 1 / 0, "test_own_aggregation.py, line .* raises ZeroDivisionError"),
        (lambda: 3, "returns 3; accepted: arrays by name; correct the file"),
        (lambda: [1], "returns .1.; accepted: arrays by name"),
        (lambda: {"angles": 1}, "returns the arrays 'angles'; accepted: 'angles', 'scale'"),
        (lambda: {**FIRST, "angles": 1.0}, r"returns 'angles' of shape \(\); accepted: \(2,\)"),
        (lambda: {**FIRST, "angles": "a"}, "returns no numbers as 'angles'; accepted: an array"),
        (lambda: None, "returns None; accepted: arrays by name; correct the file"),
        (lambda: {**FIRST, "angles": np.array([1j, 2])}, "returns no numbers as 'angles'"),
        (lambda: NAN, "returns a 'angles' that is not finite; accepted: finite numbers"),
    ],
)
def test_what_is_no_such_arrays_is_one_line(answer: Callable[[], Any], message: str) -> None:
    rule = own(lambda updates, weights, reference: answer())
    with pytest.raises(SettingsError, match=message) as caught:
        rule.aggregate(1, parts_of(), FIRST)
    assert "aggregation.rule = 'mine'" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("aggregation.rule=FedAdm", "'FedAdm'; accepted: krum, .*FedAdam.*did you mean 'FedAdam'"),
        ("aggregation.rule=wieghted", "did you mean 'weighted'"),
        ("aggregation.rule=FedProx", r"'FedProx' \(its proximal term .*\); accepted: krum"),
        ("aggregation.rule=FedXgbBagging", r"\(it aggregates trees\)"),
        ("aggregation.rule=Strategy", "aggregation.rule = 'Strategy'; accepted"),
        (
            "aggregation.rule=DifferentialPrivacyServerSideFixedClipping",
            r"\(set privacy.dp for clipping and noise\)",
        ),
        ("aggregation.options=a=1", "aggregation.options = 'a=1' would be ignored because"),
        ("aggregation.rule=FedAdam aggregation.trim=0.3", "trim = 0.3 would be ignored because"),
        (
            "privacy.dp=central aggregation.rule=FedAdam",
            "'central' with aggregation.rule = 'FedAdam'; accepted: .*'uniform'",
        ),
        (
            "llm.federated=ffa aggregation.rule=FedAdam",
            "llm.federated = 'ffa' with aggregation.rule = 'FedAdam'; accepted: krum",
        ),
    ],
)
def test_a_rule_that_does_not_fit_is_refused_with_the_settings(given: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_run([], given.split())


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        (
            "FedAdam",
            "lr=1",
            "options with 'lr' for .*'FedAdam'; accepted: 'eta', 'eta_l', 'beta_1'",
        ),
        ("FedAvg", "fraction-train=0.5", "with 'fraction_train' .*; accepted: no options"),
        ("Krum", "weighted-by-key=x", "accepted: 'num_malicious_nodes'"),
    ],
)
def test_an_option_that_would_have_no_effect_is_refused(
    rule: str, options: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        of(rule, options)


@pytest.mark.parametrize(
    ("rule", "options", "more", "message"),
    [
        ("FedAdam", "eta=fast", "", "aggregation.rule = 'FedAdam': TypeError"),
        ("Bulyan", "", "", "aggregates nothing of 1 updates; .*raise run.min_replies"),
        ("Bulyan", "num-malicious-nodes=1", "run.min_replies=3", "nothing of 3 updates"),
    ],
)
def test_what_cannot_aggregate_shows_before_any_site_works(
    rule: str, options: str, more: str, message: str
) -> None:
    set_task_identity()
    given = [f"aggregation.rule={rule}", f"aggregation.options={options}", *more.split()]
    settings, _ = parse_run([], given)
    with pytest.raises(UserError, match=message):
        check_aggregator(settings, FIRST)


def test_credit_is_the_gain_where_a_rule_needs_all_updates() -> None:
    rule = of("Bulyan")
    with pytest.raises(TooFewError):
        rule.aggregate(1, parts_of(VALUES[:2], ROWS[:2]), FIRST)


# --- what lasts from round to round ---


def test_state_comes_back_as_it_was() -> None:
    record = pack_parameters({"a": np.arange(3.0)})
    kept = {
        "none": None,
        "rate": 0.1,
        "m_t": {"x": np.ones((2, 2), np.float32), "y": np.float32(2)},
        "speed": [np.zeros(2), np.ones(2)],
        "pair": (np.ones(1),),
        "current": record,
        "empty": {},
        "last": np.arange(2),
        "function": np.mean,
    }
    facts, arrays = pack_state(kept)
    assert facts["unsaved"] == []
    found = unpack_state(facts, arrays)
    assert set(found) == set(kept) - {"function"}
    assert (found["none"], found["rate"], found["empty"]) == (None, 0.1, {})
    assert found["m_t"]["x"].dtype == np.float32
    assert found["m_t"]["y"] == 2
    assert [one.tolist() for one in found["speed"]] == [[0, 0], [1, 1]]
    assert isinstance(found["pair"], tuple)
    assert found["last"].tolist() == [0, 1]
    assert unpack_parameters(found["current"])["a"].tolist() == [0, 1, 2]


def test_what_only_resembles_a_dict_or_list_is_not_saved_as_one() -> None:
    class Counter:
        def __call__(self) -> None: ...

    kept = {"a": OrderedDict(x=np.ones(1)), "b": Pair(np.ones(1), np.ones(1)), "c": Counter()}
    assert pack_state(kept)[0]["unsaved"] == ["a", "b", "c"]
    assert pack_state({"f": partial(np.mean, axis=0), "g": dict})[0]["unsaved"] == []


def test_an_object_takes_nothing_from_one_run_into_the_next() -> None:
    class Growing:
        def __init__(self) -> None:
            self.calls = 0

        def __call__(self, updates: Any, weights: Any, reference: Any) -> Any:
            self.calls += 1
            return {name: one * self.calls for name, one in updates[0].items()}

    given = Growing()
    registry.register("aggregation", "mine", given)
    ends = [[of("mine").aggregate(1, parts_of(), FIRST)["scale"] for _ in range(2)] for _ in "ab"]
    assert ends[0] == ends[1] == [VALUES[0][0]] * 2
    assert given.calls == 0


@pytest.mark.parametrize("rule", USABLE)
def test_a_restored_rule_goes_on_to_the_last_digit(rule: str) -> None:
    whole = of(rule)
    arrays = FIRST
    for server_round in (1, 2):
        arrays = whole.aggregate(server_round, parts_of(VALUES * server_round), arrays)
    again = of(rule)
    again.restore(*whole.state())
    one, other = (each.aggregate(3, parts_of(VALUES - 1), arrays) for each in (whole, again))
    for name in FIRST:
        np.testing.assert_array_equal(one[name], other[name])


def test_what_no_checkpoint_holds_is_one_line_when_a_run_goes_on() -> None:
    class Noisy:
        def __init__(self) -> None:
            self.rng = np.random.default_rng(0)

        def __call__(self, updates: Any, weights: Any, reference: Any) -> Any:
            return updates[0]

    rule = own(Noisy)
    rule.aggregate(1, parts_of(), FIRST)
    with pytest.raises(SettingsError, match=r"'mine' keeps 'rng' between rounds; .*start a new"):
        rule.restore(*rule.state())


NO_LLM = ("llm.model=none", f"llm.epochs={FIELDS['llm.epochs'].default}", "distill.weight=0")


@pytest.mark.parametrize("rule", ["FedAdam", "FedAvgM"])
def test_a_run_that_goes_on_is_the_uninterrupted_one(rule: str, tmp_path: Path) -> None:
    from tests.server_app.test_resume import Breaking, Killed, go_on, same_model, start, timeless

    options = "eta=0.5" if rule == "FedAdam" else "server-momentum=0.5"
    more = (f"aggregation.rule={rule}", f"aggregation.options={options}", "agent.kind=all", *NO_LLM)
    whole = start(tmp_path / "whole", *more)
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        start(folder, *more, journal=Breaking(folder, 20))
    assert timeless(go_on(folder, *more)) == timeless(whole)
    assert same_model(folder, tmp_path / "whole")


def test_a_run_aggregates_by_a_users_function(federate: Federate) -> None:
    def plain(updates: Any, weights: Any, reference: Any) -> Any:
        return {k: np.average([u[k] for u in updates], axis=0, weights=weights) for k in reference}

    registry.register("aggregation", "plain", plain)
    ours = federate(*NO_LLM, "agent.kind=all")
    found = federate(*NO_LLM, "agent.kind=all", "aggregation.rule=plain")
    losses = [
        [e["loss"] for e in read_jsonl(one.folder / "metrics.jsonl") if e["event"] == "round"]
        for one in (ours, found)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_message_of_flowers_carries_the_rows_under_the_strategys_own_key() -> None:
    seen: list[Any] = []

    class Watches(FedAvg):
        def __init__(self) -> None:
            super().__init__(weighted_by_key="my-rows")

        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            replies = list(replies)
            seen.extend(reply.content.metric_records[METRICS]["my-rows"] for reply in replies)
            return super().aggregate_train(server_round, replies)

    own(Watches).aggregate(1, parts_of(), FIRST)
    assert seen == ROWS.tolist()
    message = Message(pack_report(trained(0.5, 0.5)), dst_node_id=0, message_type=TRAIN)
    assert "my-rows" not in message.content.metric_records[METRICS]
