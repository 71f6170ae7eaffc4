"""What secure aggregation excludes, each refused in one line with what replaces it."""

from __future__ import annotations

import pytest

from core import UserError, parse_run
from core.settings.secure import quorum

SECURE = "privacy.secure_aggregation=true"


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (("run.clients=2",), r"run.clients = 2; accepted: run.clients is above 2 \(of two each"),
        (("aggregation.rule=median",), r"'median' with .*privacy.group_size of 3 or more any"),
        (("aggregation.rule=trimmed-mean",), r"weighted, .*; set privacy.group_size=3"),
        (("aggregation.rule=krum",), r"one that declares of_mean"),
        (("aggregation.rule=QFedAvg",), r"a mean of Flower's such as FedAdam"),
        (("aggregation.rule=FedMedian",), r"privacy.group_size of 3 or more"),
        (("aggregation.norm_ratio=4",), r"each site shortens its own update: aggregation.max_norm"),
        (("aggregation.clip_radius=3",), r"or privacy.group_size is 3 or more: it is of groups"),
        (("agent.fraction=0.5", "agent.stage=aggregation"), r"what was summed cannot be left out"),
        (("privacy.dp=central", "aggregation.rule=uniform"), r"noise of the sites, not central"),
        (("llm.federated=ffa",), r"adapters would reach the server one by one"),
        (("privacy.group_size=2",), r"0 \(one group of all\), or 3 and more"),
        (("privacy.threshold=0.5",), r"a number above 0.5 and at most 1"),
    ],
)
def test_what_needs_single_updates_is_refused(given: tuple[str, ...], match: str) -> None:
    with pytest.raises(UserError, match=match):
        parse_run([], [SECURE, *given])


@pytest.mark.parametrize(
    "given",
    [
        ("aggregation.rule=median", "privacy.group_size=3"),
        ("aggregation.norm_ratio=4", "privacy.group_size=3"),
        ("aggregation.rule=FedAdam",),
        ("aggregation.rule=uniform",),
        ("aggregation.max_norm=5",),
        ("privacy.dp=local",),
        ("train.proximal=0.1",),
    ],
)
def test_what_works_on_sums_is_accepted(given: tuple[str, ...]) -> None:
    assert parse_run([], [SECURE, *given])[0].privacy.secure_aggregation


@pytest.mark.parametrize("key", ["privacy.threshold=0.9", "privacy.group_size=3"])
def test_without_it_its_settings_are_refused(key: str) -> None:
    with pytest.raises(UserError, match=r"would be ignored because privacy.secure_aggregation"):
        parse_run([], [key])


@pytest.mark.parametrize(
    ("given", "least"),
    [
        ((), 1),
        ((SECURE,), 3),
        ((SECURE, "privacy.group_size=4"), 4),
        ((SECURE, "run.min_replies=4", "privacy.group_size=3"), 4),
    ],
)
def test_a_round_needs_enough_updates_for_a_sum(given: tuple[str, ...], least: int) -> None:
    assert quorum(parse_run([], [*given, "run.clients=6"])[0]) == least
