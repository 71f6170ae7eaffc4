"""Whole runs whose server sees sums of updates only: the same model, and no single update."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from safetensors.numpy import load_file

from client_app import masking
from client_app.app import app
from core import UserError
from core.messages import TRAIN
from core.secure_messages import KEYS, UNMASK
from core.summed import summand
from tests.conftest import NO_TEACHER, Federate, Ran
from tests.server_app.test_private_runs import Curious, pieces

SECURE = "privacy.secure_aggregation=true"
SMALL = (*NO_TEACHER, "evaluation.keep=last", "train.steps=2")
UNBOUNDED = ("aggregation.clip_radius=1000", "aggregation.norm_ratio=1000")
"""Updates are held against each other in open runs, which a server of sums cannot do."""
TWELVE = (*SMALL, "run.clients=12", "data.train_rows=240")


def model(ran: Ran, number: int) -> np.ndarray:
    found = load_file(ran.folder / "checkpoint" / f"round-{number:03d}" / "model.safetensors")
    return np.concatenate([found[name] for name in sorted(found)], axis=None)


def client_of(message: Message) -> int:
    return message.metadata.dst_node_id - 1000


def silent(kind: str, *clients: int) -> Callable[[Message, Message], Message | None]:
    """Drop what these clients answer to messages of a kind in round 1."""

    def spoil(order: Message, reply: Message) -> Message | None:
        mine = order.metadata.message_type == kind and order.metadata.group_id == "1"
        return None if mine and client_of(order) in clients else reply

    return spoil


@pytest.mark.parametrize(
    "given",
    [
        (),
        ("aggregation.rule=uniform",),
        ("aggregation.rule=FedAdam",),
        ("train.proximal=0.5",),
        ("aggregation.weighting=noise",),
        ("privacy.dp=local", "privacy.seeded=true", "privacy.clip=0.3"),
        ("evaluation.mode=federated", "data.server_rows=0"),
        ("quantum.backend=aer", "hardware.shots=64", "run.rounds=1"),
    ],
    ids=" ".join,
)
def test_a_secure_run_has_the_model_of_an_open_one(
    given: tuple[str, ...], federate: Federate
) -> None:
    """Float32 parameters of size 1: what they are rounded to is far above 3 * 2**-33."""
    words = (*SMALL, *given)
    plain, secure = federate(*words, *UNBOUNDED), federate(*words, SECURE)
    exact = "quantum.backend=aer" not in given  # a count may tip where angles differ by rounding
    assert np.abs(model(plain, 1) - model(secure, 1)).max() < (5e-7 if exact else 0.02)
    pairs = zip(plain.events("round"), secure.events("round"), strict=True)
    for one, other in pairs:
        near = 1e-4 if exact else 0.01  # FedAdam divides by roots
        assert one["loss"] == pytest.approx(other["loss"], abs=near)
        assert one["aggregated"] == other["aggregated"]
        assert one["circuits"] == other["circuits"]
    assert not np.array_equal(model(plain, 0), model(secure, 1))


@pytest.mark.parametrize("rule", ["weighted", "uniform", "FedAdam"])
def test_groups_of_three_have_the_same_mean_as_all(rule: str, federate: Federate) -> None:
    """One group is of four: it counts for four, whatever the rule."""
    words = (*SMALL, "run.clients=7", "run.rounds=1", f"aggregation.rule={rule}", *UNBOUNDED)
    plain, secure = federate(*words), federate(*words, SECURE, "privacy.group_size=3")
    # FedAdam divides by roots of small numbers.
    assert np.abs(model(plain, 1) - model(secure, 1)).max() < (1e-4 if rule == "FedAdam" else 5e-7)
    groups = [group["clients"] for group in secure.events("round")[0]["groups"]]
    assert sorted(map(len, groups)) == [3, 4]
    assert sorted(client for group in groups for client in group) == list(range(7))
    assert secure.summary["privacy"]["secure_aggregation"]["smallest_sum"] == 3


def test_robust_rules_take_the_means_of_groups(federate: Federate) -> None:
    words = (*SMALL, "run.clients=9", "aggregation.rule=median", SECURE, "privacy.group_size=3")
    (first, *_) = federate(*words).events("round")
    assert [len(group["summed"]) for group in first["groups"]] == [3, 3, 3]
    assert first["aggregated"] == list(range(9))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", [TRAIN, UNMASK])
def test_a_third_of_twelve_may_be_lost_before_or_after_it_is_summed(
    kind: str, seed: int, federate: Federate
) -> None:
    gone = np.random.default_rng(seed).choice(12, 4, replace=False).tolist()
    words = (*TWELVE, "run.rounds=1")
    secure = federate(*words, SECURE, spoil=silent(kind, *gone))
    heard = silent(TRAIN, *(gone if kind == TRAIN else ()))
    plain = federate(*words, *UNBOUNDED, spoil=heard)
    assert np.abs(model(plain, 1) - model(secure, 1)).max() < 1e-6
    (event,) = secure.events("round")
    expected = [k for k in range(12) if kind == UNMASK or k not in gone]
    assert event["aggregated"] == expected
    assert sorted(line.split(":")[0] for line in event["failures"]) == sorted(
        f"client {k}" for k in gone
    )


def test_more_than_a_third_lost_loses_the_round_and_not_the_run(federate: Federate) -> None:
    ran = federate(*TWELVE, SECURE, spoil=silent(TRAIN, 0, 3, 5, 7, 8))
    lost, second = ran.events("round")
    assert lost["aggregated"] == []
    why = "7 of 12 masked updates came, of at least 8"
    assert lost["groups"][0]["lost"] == why
    assert f"group 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11: {why}" in lost["failures"]
    assert np.array_equal(model(ran, 0), model(ran, 1))
    assert len(second["aggregated"]) == 7  # who failed rests
    stated = ran.summary["privacy"]["secure_aggregation"]
    assert (stated["groups"], stated["lost_groups"]) == (1, 1)


class Between:
    """Stands between the server and the sites: changes what a site is sent, or its state."""

    def __init__(self, change: Callable[[Message, Context], None]) -> None:
        self.change = change

    def __call__(self, message: Message, context: Context) -> Message:
        self.change(message, context)
        return app(message, context)


def test_a_restarted_site_loses_one_round_and_comes_back(federate: Federate) -> None:
    def restart(message: Message, context: Context) -> None:
        meta = message.metadata
        if (meta.message_type, meta.group_id, client_of(message)) == (TRAIN, "2", 1):
            context.state.clear()

    words = (*SMALL, "run.clients=4", "run.rounds=3", SECURE)
    ran = federate(*words, client_app=Between(restart))
    first, second, third = ran.events("round")
    assert first["aggregated"] == third["aggregated"] == [0, 1, 2, 3]
    assert second["aggregated"] == [0, 2, 3]
    (line,) = second["failures"]
    assert line.startswith("client 1: this site has no keys for round 2")
    assert ran.grid.log.count((KEYS, 1)) == 2
    assert ran.grid.log.count((KEYS, 0)) == 1


@pytest.mark.parametrize("more", [(), ("run.clients=6", "privacy.group_size=3")], ids=" ".join)
def test_a_run_that_goes_on_ends_with_the_same_model(more: tuple[str, ...], tmp_path: Path) -> None:
    """With new keys, and the same groups."""
    from core import read_jsonl
    from tests.server_app.test_resume import Breaking, Killed, go_on, start

    def groups(folder: Path) -> list[Any]:
        events = read_jsonl(folder / "metrics.jsonl")
        return [[one["clients"] for one in e["groups"]] for e in events if e["event"] == "round"]

    words = (*NO_TEACHER, "evaluation.keep=last", SECURE, *more)
    start(tmp_path / "whole", *words)
    for at in (6, 12):
        folder = tmp_path / f"broken-{at}"
        with pytest.raises(Killed):
            start(folder, *words, journal=Breaking(folder, at))
        assert go_on(folder, *words)["status"] == "completed"
        ends = [load_file(f / "model.safetensors") for f in (tmp_path / "whole", folder)]
        assert max(np.abs(ends[0][k] - ends[1][k]).max() for k in ends[0]) < 1e-5
        assert groups(folder) == groups(tmp_path / "whole")


def test_a_long_run_renews_its_keys_in_parts(
    federate: Federate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strategies.secure_exchange.MOST_KEYS", 2)
    ran = federate(*SMALL, SECURE, "run.rounds=5", "train.steps=1")
    assert [event["aggregated"] for event in ran.events("round")] == [[0, 1, 2]] * 5
    assert ran.grid.log.count((KEYS, 0)) == 3


def test_no_message_holds_a_single_update(
    federate: Federate, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[np.ndarray] = []
    real = summand

    def note(trained: Any, reference: Any, weight: float) -> Any:
        made.extend(trained.values())
        made.extend(trained[k].astype("f8") - reference[k] for k in trained)
        made.append(real(trained, reference, weight)[:-1])
        return real(trained, reference, weight)

    def found(curious: Curious) -> int:
        sent = b"\0".join(piece for message in curious.seen for piece in pieces(message))
        cuts = [array.ravel()[:3] for array in made if array.size >= 3]
        assert len(cuts) > 12
        kinds = ("<f4", "<f8", ">f8")
        return sum(cut.astype(kind).tobytes() in sent for cut in cuts for kind in kinds)

    monkeypatch.setattr(masking, "summand", note)
    secure, plain = Curious(), Curious()
    federate(*SMALL, SECURE, spoil=secure)
    assert found(secure) == 0
    federate(*SMALL, spoil=plain)  # the search itself: in an open run it finds them all
    assert found(plain) >= 6


def test_twelve_clients_send_at_most_64_kilobytes_a_round(federate: Federate) -> None:
    ran = federate(*TWELVE, SECURE)
    clients = ran.events("client")
    assert len(clients) == 24
    assert max(e["bytes_up"] + e["bytes_down"] for e in clients) < 64 * 1024
    plain = federate(*TWELVE).events("client")
    assert min(e["bytes_up"] for e in clients) > max(e["bytes_up"] for e in plain)


def test_a_hundred_clients_complete(federate: Federate) -> None:
    ran = federate(*SMALL, "run.clients=100", "data.train_rows=2000", "run.rounds=1", SECURE)
    (event,) = ran.events("round")
    assert len(event["aggregated"]) == 100
    assert event["failures"] == []


@pytest.mark.parametrize(
    ("insists", "given", "what"),
    [(True, (), "moments without"), (False, (SECURE,), "a sum of moments with")],
)
def test_a_run_does_not_start_with_a_node_that_wants_it_otherwise(
    insists: bool, given: tuple[str, ...], what: str, federate: Federate
) -> None:
    """Its moments must not leave it: neither in the clear nor, unasked, at all."""
    nodes, curious = {1: {"privacy.secure_aggregation": insists}}, Curious()
    with pytest.raises(UserError, match=f"1 of 4 clients cannot start: {what} masks is requested"):
        federate(*SMALL, *given, "run.clients=4", node_configs=nodes, spoil=curious)
    assert sum(message.has_error() for message in curious.seen) == 1


@pytest.mark.parametrize(("insists", "given"), [(True, ()), (False, (SECURE,))])
def test_a_node_that_changes_its_mind_answers_no_round(
    insists: bool, given: tuple[str, ...], federate: Federate
) -> None:
    """It would send in the clear, or what it masks unshortened."""

    def change(message: Message, context: Context) -> None:
        if message.metadata.message_type == TRAIN and client_of(message) == 1:
            context.node_config["privacy.secure_aggregation"] = insists

    words = (*SMALL, *given, "run.clients=4", "run.rounds=1")
    (event,) = federate(*words, client_app=Between(change)).events("round")
    assert event["aggregated"] == [0, 2, 3]
    masks = "without" if insists else "with"
    assert event["failures"][0].startswith(f"client 1: an update {masks} masks is requested")


@pytest.mark.parametrize(
    ("given", "nodes", "match"),
    [
        ("privacy.site_key=/nowhere", range(0), "0 clients have keys .*'/nowhere' cannot be read"),
        ("privacy.group_size=4", (1,), "3 clients have keys .*at least privacy.group_size = 4"),
        ("privacy.group_size=0", (1, 2), "2 clients have keys .*at least 3, which a sum"),
        ("run.min_replies=4", (1,), "3 clients have keys .*at least run.min_replies = 4"),
    ],
)
def test_too_few_clients_with_keys_end_the_run_with_their_reasons(
    given: str, nodes: Iterable[int], match: str, federate: Federate
) -> None:
    own = {client: {"privacy.site_key": "/nowhere"} for client in nodes}
    with pytest.raises(UserError, match=match):
        federate(*SMALL, SECURE, "run.clients=4", given, node_configs=own)


def test_a_client_whose_keys_differ_from_those_the_server_has_is_requested_new_ones(
    federate: Federate,
) -> None:
    """A process of the site that ended later than another has put its older keys back."""
    older: dict[int, Any] = {}

    def between(message: Message, context: Context) -> Message:
        kind, first = message.metadata.message_type, client_of(message) == 1
        if kind == KEYS and first and not older:
            app(message, context)
            older[1] = deepcopy(context.state[masking.STATE_KEY])
            return app(message, context)
        if kind == TRAIN and first and message.metadata.group_id == "1":
            context.state[masking.STATE_KEY] = older[1]
        return app(message, context)

    ran = federate(*SMALL, SECURE, "run.clients=4", "run.rounds=2", client_app=between)
    first, second = ran.events("round")
    assert "client 1: the group holds other keys of this site" in first["failures"][0]
    assert (first["aggregated"], second["aggregated"]) == ([0, 2, 3], [0, 1, 2, 3])


def test_an_agent_that_chooses_two_is_given_a_third(federate: Federate) -> None:
    from tests.server_app.test_lost_rounds import Names

    ran = federate(*SMALL, SECURE, "run.clients=4", agent=Names([[0, 1], [2, 3]]))
    assert [len(e["participants"]) for e in ran.events("round")] == [3, 3]
    assert "clients added up to the 3 that sums of groups need: 2" in ran.decisions()[0]["guard"]


def test_a_long_update_is_shortened_by_its_site(federate: Federate) -> None:
    words = (*SMALL, SECURE, "aggregation.max_norm=0.01", "train.steps=10", "run.rounds=1")
    ran = federate(*words)
    moved = np.linalg.norm(model(ran, 1) - model(ran, 0))
    assert 0.002 < moved <= 0.0101


def test_the_python_call_says_what_was_summed(tmp_path: Path) -> None:
    found = summed(tmp_path)
    assert found["privacy"]["secure_aggregation"]["groups"] == 2


@pytest.mark.slow
@pytest.mark.skipif("LLM_QFL_REAL" not in os.environ, reason="starts Flower's simulation")
def test_flowers_simulation_sums_to_the_same(tmp_path: Path) -> None:
    here, there = summed(tmp_path / "a"), summed(tmp_path / "b", runtime="flower")
    assert there["privacy"] == here["privacy"]
    assert there["validation"]["loss"] == pytest.approx(here["validation"]["loss"], abs=1e-5)
    assert there["ledger"]["circuits"] == here["ledger"]["circuits"]


def summed(folder: Path, **more: Any) -> dict[str, Any]:
    import llm_qfl
    from tests.conftest import SMALL as FEW_ROWS

    words = dict(word.split("=", 1) for word in (*FEW_ROWS, *SMALL, "run.clients=4", SECURE))
    words |= {"run.output": str(folder), "run.name": "secure"}
    given = {key: parsed(value) for key, value in words.items()}
    return dict(llm_qfl.run(given, quiet=True, **more).summary)


def parsed(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text
