"""A server, or sites, that break secure aggregation: refused with a reason, and the run goes on."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message

from client_app.app import app
from core import UserError
from core.messages import ABOUT, ARRAYS, CONFIG, TRAIN
from core.secagg import Group, make_table
from core.secure_messages import ANSWER, KEYS, MASKED, MOMENTS, UNMASK
from core.summed import summand
from tests.conftest import Federate, Ran
from tests.server_app.test_secure_runs import SECURE, SMALL, Between, client_of, model

WORDS = (*SMALL, "run.clients=4", SECURE, "run.rounds=2")
Values = dict[str, Any]


def group_of(message: Message) -> Group:
    return Group.from_bytes(message.content.config_records[CONFIG]["group"])  # type: ignore[arg-type]


def in_round_one(
    kind: str, change: Callable[[Message, Context], None]
) -> Callable[[Message, Context], None]:
    """Change what the server sends in round 1."""

    def between(message: Message, context: Context) -> None:
        if message.metadata.message_type == kind and message.metadata.group_id == "1":
            change(message, context)

    return between


def with_group(make: Callable[[Group, int], Group]) -> Callable[[Message, Context], None]:
    def change(message: Message, context: Context) -> None:
        made = make(group_of(message), client_of(message))
        message.content.config_records[CONFIG]["group"] = made.to_bytes()

    return in_round_one(TRAIN, change)


def swapped_keys(group: Group, client: int) -> Group:
    """The server puts itself in the middle: keys of its own in a member's place."""
    from core.secagg import new_identity

    victim = next(m for m in group.members if m.client != client)
    _, table = make_table(new_identity(), group.run, victim.client, [group.round])
    forged = replace(victim, keys=table.keys[group.round])
    return replace(
        group, members=tuple(forged if m.client == victim.client else m for m in group.members)
    )


def other_round(group: Group, client: int) -> Group:
    return replace(group, round=group.round + 1)


def pair(group: Group, client: int) -> Group:
    other = next(m.client for m in group.members if m.client != client)
    kept = tuple(m for m in group.members if m.client in (client, other))
    return replace(group, members=kept, threshold=2)


def low_threshold(group: Group, client: int) -> Group:
    return replace(group, threshold=2)


def without_me(group: Group, client: int) -> Group:
    return replace(group, members=tuple(m for m in group.members if m.client != client))


def isolating(group: Group, client: int) -> Group:
    """One weighs so much that the sum is its update."""
    heavy = tuple(replace(m, weight=1e6 if m.client == 0 else 1.0) for m in group.members)
    return replace(group, members=heavy)


def twice(group: Group, client: int) -> Group:
    return replace(group, members=(group.members[0], *group.members))


@pytest.mark.parametrize(
    "make",
    [swapped_keys, other_round, pair, low_threshold, without_me, isolating, twice],
    ids=lambda make: make.__name__,
)
def test_a_false_group_is_refused_by_every_site_and_the_run_goes_on(
    make: Callable[[Group, int], Group], federate: Federate
) -> None:
    ran = federate(*WORDS, client_app=Between(with_group(make)))
    lost, second = ran.events("round")
    assert lost["aggregated"] == []
    assert np.array_equal(model(ran, 0), model(ran, 1))
    refused = [line for line in lost["failures"] if ": refused: " in line]
    assert len(refused) == 4
    assert second["aggregated"] == [0, 1, 2, 3]


def test_weights_for_which_the_noise_of_a_sum_is_not_made_are_refused(federate: Federate) -> None:
    def heavier(group: Group, client: int) -> Group:
        members = (replace(m, weight=2.0 if m.client == 0 else 1.0) for m in group.members)
        return replace(group, members=tuple(members))

    words = (*WORDS, "privacy.dp=summed", "aggregation.rule=uniform")
    lost, second = federate(*words, client_app=Between(with_group(heavier))).events("round")
    assert lost["aggregated"] == []
    assert sum("the members' weights differ; accepted: equal" in x for x in lost["failures"]) == 4
    assert second["aggregated"] == [0, 1, 2, 3]


def test_a_floor_of_the_sites_own_is_kept(federate: Federate) -> None:
    nodes = {1: {"privacy.threshold": 0.9}, 2: {"privacy.group_size": 5}}
    ran = federate(*WORDS, "run.clients=5", "privacy.threshold=0.6", node_configs=nodes)
    first, _ = ran.events("round")
    assert first["aggregated"] == [0, 2, 3, 4]
    (line,) = first["failures"]
    assert "threshold is 3 of 5; accepted: at least 5, by this site's" in line
    nodes = {2: {"privacy.group_size": 5}}
    first, _ = federate(*WORDS, node_configs=nodes).events("round")
    assert "has 4 members; accepted: at least privacy.group_size = 5" in first["failures"][0]


def test_two_halves_that_are_shown_different_groups_open_nothing(federate: Federate) -> None:
    """Each site accepts its list, but shares made for one list do not open under the other."""

    def split(group: Group, client: int) -> Group:
        return replace(group, threshold=4) if client % 2 else group

    ran = federate(*WORDS, client_app=Between(with_group(split)))
    lost, second = ran.events("round")
    assert lost["aggregated"] == []
    assert lost["groups"][0]["lost"]
    assert second["aggregated"] == [0, 1, 2, 3]


def test_a_second_question_of_a_round_is_not_answered(federate: Federate) -> None:
    seen: list[str] = []

    def between(message: Message, context: Context) -> Message:
        reply = app(message, context)
        if message.metadata.message_type in (UNMASK, MOMENTS):
            again = app(message, context)
            seen.append(str(again.error.reason) if again.has_error() else "answered")
        return reply

    ran = federate(*WORDS, client_app=between)
    assert [e["aggregated"] for e in ran.events("round")] == [[0, 1, 2, 3]] * 2
    assert sum("has nothing to be unmasked" in line for line in seen) == 12
    assert sum("round 0 is requested again" in line for line in seen) == 4  # the moments
    assert len(seen) == 16


def test_a_round_is_not_trained_twice_and_keys_are_not_renewed_for_it(federate: Federate) -> None:
    """A site that masks two updates for one round lets the server see their difference."""
    seen: list[str] = []
    asked: dict[int, Message] = {}

    def between(message: Message, context: Context) -> Message:
        if message.metadata.message_type == KEYS:
            asked[client_of(message)] = message
        replies = [app(message, context)]
        if message.metadata.message_type == TRAIN:
            replies += [app(message, context), app(asked[client_of(message)], context)]
        seen.extend(str(r.error.reason) for r in replies[1:] if r.has_error())
        return replies[0]

    ran = federate(*WORDS, client_app=between)
    assert [e["aggregated"] for e in ran.events("round")] == [[0, 1, 2, 3]] * 2
    assert sum("round" in line and "is requested again" in line for line in seen) == 8
    assert sum("keys are requested for rounds 0 to 2 after round" in line for line in seen) == 8


@pytest.mark.parametrize(("kind", "times"), [(TRAIN, 8), (UNMASK, 12), (MOMENTS, 4)])
def test_of_two_messages_at_the_same_time_one_is_answered(
    kind: str, times: int, federate: Federate
) -> None:
    """Each message has a process of its own, and both were given what the site kept before."""
    seen: list[str] = []

    def between(message: Message, context: Context) -> Message:
        before = deepcopy(context)
        reply = app(message, context)
        if message.metadata.message_type == kind:
            again = app(message, before)
            seen.append(str(again.error.reason) if again.has_error() else "answered")
        return reply

    ran = federate(*WORDS, client_app=between)
    assert [e["aggregated"] for e in ran.events("round")] == [[0, 1, 2, 3]] * 2
    why = "has nothing to be unmasked" if kind == UNMASK else "is requested again"
    assert len(seen) == times
    assert all(why in line for line in seen)


def test_without_a_note_of_it_nothing_is_masked(federate: Federate, own_jobs: Path) -> None:
    (own_jobs / "secure").write_text("in the way")
    with pytest.raises(
        UserError, match=r"what must be done once cannot be noted in .* set llm.store"
    ):
        federate(*WORDS, f"llm.store={own_jobs}")


def values(message: Message) -> Values:
    return message.content.config_records[CONFIG]  # type: ignore[return-value]


def too_few(message: Message, context: Context) -> None:
    record = values(message)
    record["survivors"] = record["survivors"][:2]


def without_receiver(message: Message, context: Context) -> None:
    record = values(message)
    record["survivors"] = [k for k in record["survivors"] if k != client_of(message)]


def strangers(message: Message, context: Context) -> None:
    record = values(message)
    record["survivors"] = [*record["survivors"], 77]


def other_shares(message: Message, context: Context) -> None:
    record = values(message)
    record["shares"] = [bytes(len(one)) for one in record["shares"]]


@pytest.mark.parametrize(
    "change", [too_few, without_receiver, strangers, other_shares], ids=lambda c: c.__name__
)
def test_a_false_list_of_survivors_is_not_answered(
    change: Callable[[Message, Context], None], federate: Federate
) -> None:
    ran = federate(*WORDS, client_app=Between(in_round_one(UNMASK, change)))
    lost, second = ran.events("round")
    assert lost["aggregated"] == []
    assert sum(": refused: " in line for line in lost["failures"]) == 4
    assert second["aggregated"] == [0, 1, 2, 3]


def test_shares_of_an_earlier_round_open_nothing(federate: Federate) -> None:
    old: dict[int, list[bytes]] = {}

    def replay(message: Message, context: Context) -> None:
        if message.metadata.message_type != UNMASK:
            return
        record, client = values(message), client_of(message)
        if message.metadata.group_id == "1":
            old[client] = list(record["shares"])
        elif message.metadata.group_id == "2":
            record["shares"] = old[client]

    ran = federate(*WORDS, "run.rounds=3", client_app=Between(replay))
    first, lost, third = ran.events("round")
    assert lost["aggregated"] == []
    assert sum("were not made for this site, round and group" in f for f in lost["failures"]) == 4
    assert first["aggregated"] == third["aggregated"] == [0, 1, 2, 3]


# --- sites -----------------------------------------------------------------------------------


def spoiled(kind: str, client: int, change: Callable[[Message], None]) -> Any:
    """Change what one site answers in round 1."""

    def spoil(order: Message, reply: Message) -> Message:
        about = order.metadata
        if (about.message_type, about.group_id, client_of(order)) == (kind, "1", client):
            change(reply)
        return reply

    return spoil


def as_masked(data: np.ndarray) -> Callable[[Message], None]:
    def change(reply: Message) -> None:
        reply.content[ARRAYS] = ArrayRecord({MASKED: Array(data)})

    return change


def shorter(reply: Message) -> None:
    data = reply.content.array_records[ARRAYS][MASKED].numpy()
    as_masked(data[:-8].copy())(reply)


def in_the_clear(reply: Message) -> None:
    reply.content[ARRAYS] = ArrayRecord({"angles": Array(np.zeros(3, np.float32))})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (as_masked(np.zeros(10, np.uint8)), "masked update"),
        (as_masked(np.zeros(2**10, np.float64)), "float64"),
        (as_masked(np.zeros((4, 4), np.uint8)), "instead of bytes"),
        (shorter, ""),
        (in_the_clear, r"arrays ['angles'] instead of ['masked']"),
    ],
)
def test_a_site_that_sends_garbage_is_left_out(
    change: Callable[[Message], None], match: str, federate: Federate
) -> None:
    ran = federate(*WORDS, spoil=spoiled(TRAIN, 2, change))
    first, second = ran.events("round")
    assert first["aggregated"] == [0, 1, 3]
    (line,) = first["failures"]
    assert line.startswith("client 2: update dropped: ")
    assert match in line
    assert second["aggregated"] == [0, 1, 2, 3]


def answered(data: bytes) -> Callable[[Message], None]:
    def change(reply: Message) -> None:
        reply.content[ABOUT] = ConfigRecord({ANSWER: data})

    return change


def flipped(reply: Message, bit: int = 1) -> None:
    """The last share is another number."""
    data = bytearray(reply.content.config_records[ABOUT][ANSWER])  # type: ignore[arg-type]
    data[-1] ^= bit
    reply.content[ABOUT] = ConfigRecord({ANSWER: bytes(data)})


@pytest.mark.parametrize("change", [answered(b"nonsense"), flipped], ids=["garbage", "shares"])
def test_a_site_that_gives_wrong_shares_is_named_and_the_sum_is_right(
    change: Callable[[Message], None], federate: Federate
) -> None:
    words = (*WORDS, "run.clients=6")
    honest, ran = federate(*words), federate(*words, spoil=spoiled(UNMASK, 2, change))
    first, _ = ran.events("round")
    assert first["aggregated"] == [0, 1, 2, 3, 4, 5]
    assert [line.split(":")[0] for line in first["failures"]] == ["client 2"]
    assert np.array_equal(model(honest, 1), model(ran, 1))


def test_too_many_wrong_shares_lose_the_round(federate: Federate) -> None:
    """Each by another number: all by the same would be shares of a seed, and name its dealer."""

    def all_wrong(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == UNMASK and order.metadata.group_id == "1":
            flipped(reply, 1 << client_of(order))
        return reply

    ran = federate(*WORDS, spoil=all_wrong)
    lost, second = ran.events("round")
    assert lost["aggregated"] == []
    assert lost["groups"][0]["lost"]
    assert second["aggregated"] == [0, 1, 2, 3]


def test_a_site_that_weighs_more_than_it_may_costs_its_group_the_round(
    federate: Federate, monkeypatch: pytest.MonkeyPatch
) -> None:
    from client_app import masking

    real = summand

    def heavy(trained: Any, reference: Any, weight: float) -> Any:
        return real(trained, reference, 50 * weight)

    monkeypatch.setattr(masking, "summand", heavy)
    words = (*WORDS, "run.rounds=1")
    from core import UserError

    with pytest.raises(UserError, match=r"weights add up to 200 instead of 4"):
        federate(*words)


def test_a_group_whose_sum_is_too_long_is_dropped(
    federate: Federate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of three members of a group does not shorten its update; the other group counts."""
    from client_app import masking

    real = masking.Masking.masked

    def far(self: Any, context: Context, leaving: Any) -> bytes:
        if self.client == 1:
            moved = {k: v + np.float32(1000) for k, v in leaving.parameters.items()}
            leaving = replace(leaving, parameters=moved)
        return real(self, context, leaving)

    monkeypatch.setattr(masking.Masking, "masked", far)
    ran = federate(*WORDS, "run.clients=6", "privacy.group_size=3", "aggregation.max_norm=10")
    first, _ = ran.events("round")
    bad = next(g for g in first["groups"] if 1 in g["clients"])
    assert "longer than updates of norm 10 can make it" in bad["lost"]
    assert first["aggregated"] == [k for k in range(6) if k not in bad["clients"]]


def test_keys_that_a_site_did_not_sign_are_not_taken(federate: Federate) -> None:
    def forge(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == KEYS and client_of(order) == 3:
            flipped(reply)
        return reply

    ran = federate(*WORDS, spoil=forge)
    for event in ran.events("round"):
        assert event["participants"] == event["aggregated"] == [0, 1, 2]


def state_of(ran: Ran) -> Any:
    return next(iter(ran.grid.contexts.values())).state


def test_nothing_is_kept_that_would_take_old_masks_off(federate: Federate) -> None:
    record = state_of(federate(*WORDS)).config_records["llm-qfl.secure"]
    assert record["held"] == b""
    assert record["keys"] == record["rounds"] == []


def test_a_site_whose_budget_is_spent_leaves_and_the_others_are_summed(
    federate: Federate, own_jobs: Path
) -> None:
    device = ("quantum.backend=aer", "hardware.shots=64", "train.steps=1", f"llm.store={own_jobs}")
    nodes = {3: {"hardware.budget_jobs": 3}}
    ran = federate(*WORDS, *device, "run.rounds=3", "train.batch_rows=4", node_configs=nodes)
    aggregated = [event["aggregated"] for event in ran.events("round")]
    assert aggregated[0] == [0, 1, 2, 3]
    assert aggregated[-1] == [0, 1, 2]
    assert ran.summary["rounds"] == 3
    in_rounds = sum(3 in clients for clients in aggregated)
    assert ran.grid.log.count((UNMASK, 3)) == 1 + in_rounds  # and for the moments


def test_too_few_sites_that_can_pay_end_the_run_with_its_model(
    federate: Federate, own_jobs: Path
) -> None:
    device = ("quantum.backend=aer", "hardware.shots=64", "train.steps=1", f"llm.store={own_jobs}")
    nodes = {client: {"hardware.budget_jobs": 3} for client in (2, 3)}
    ran = federate(*WORDS, *device, "run.rounds=4", "train.batch_rows=4", node_configs=nodes)
    assert [event["aggregated"] for event in ran.events("round")] == [[0, 1, 2, 3]]
    assert ran.summary["stop_reason"] == "the budget of client 2, 3 does not pay for round 2"
