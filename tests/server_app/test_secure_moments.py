"""Moments under secure aggregation: the open run's projection, and no site's own moments."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message

from client_app import masked_moments
from client_app.app import app
from core import UserError
from core.messages import ABOUT, ARRAYS, CONFIG, PREPARE
from core.secure_messages import KEYS, MASKED, MOMENTS, UNMASK
from core.summed_moments import moment_vector
from data import Projection
from tests.conftest import Federate, Ran
from tests.server_app.test_private_runs import Curious, pieces
from tests.server_app.test_secure_runs import SECURE, SMALL, TWELVE, Between, client_of

ONE = (*SMALL, "run.rounds=1", "train.steps=1")
Spoil = Callable[[Message, Message], Message | None]


def seen_by(federate: Federate, *words: str, **more: Any) -> tuple[Ran, Curious]:
    curious = Curious()
    return federate(*words, spoil=curious, **more), curious


def projection(curious: Curious) -> Projection:
    """Return the projection that the first training message carries."""
    orders = (m for m in curious.seen if m.metadata.message_type == "train" and m.has_content())
    packed: Any = next(m.content.config_records[CONFIG]["projection"] for m in orders)
    return Projection.from_bytes(packed)


@pytest.mark.parametrize(
    "given",
    [
        (),
        ("features.kind=kmer", "features.k=4", "features.shrinkage=0.01"),
        ("features.projection=pca", "quantum.qubits=auto"),
        ("run.clients=5", "data.partition=dirichlet", "data.alpha=1", "aggregation.max_weight=1"),
        ("evaluation.mode=federated", "data.server_rows=0"),
        ("privacy.moment_noise=0.5", "privacy.moment_clip=0.2", "privacy.seeded=true"),
        ("data.partition=dirichlet", "data.alpha=2", "privacy.min_rows=15"),
    ],
    ids=" ".join,
)
def test_the_projection_is_that_of_the_open_run(given: tuple[str, ...], federate: Federate) -> None:
    """Kinds, shrinkage and qubits are chosen by the sum as by the sites' moments."""
    (_, plain), (_, secure) = (
        seen_by(federate, *ONE, *given),
        seen_by(federate, *ONE, *given, SECURE),
    )
    one, other = projection(plain), projection(secure)
    assert (one.kinds, one.shrinkage, one.qubits) == (other.kinds, other.shrinkage, other.qubits)
    for name in ("mean", "matrix", "scale"):
        first, second = np.asarray(getattr(one, name)), np.asarray(getattr(other, name))
        assert np.abs(first - second).max() < 1e-5 * max(1.0, np.abs(first).max())


def test_no_message_holds_a_sites_moments(
    federate: Federate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither as they are, nor weighted, nor in the ring; in an open run they are found."""
    from client_app import preparation

    made: list[np.ndarray] = []
    real, vector_of = preparation.site_moments, moment_vector

    def note(cache: Any, kind: str) -> Any:
        found = real(cache, kind)
        made.extend(part.ravel() for part in (found.sums, found.second))
        return found

    def note_vector(arrays: Any, factor: float) -> Any:
        vector = vector_of(arrays, factor)
        made.extend((vector[2:], np.rint(vector[2:] * 2.0**32).astype("i8")))
        return vector

    def found(curious: Curious) -> int:
        sent = b"\0".join(piece for message in curious.seen for piece in pieces(message))
        cuts = [array[place : place + 3] for array in made for place in (0, 8, 40)]
        assert len(cuts) > 12
        return sum(cut.tobytes() in sent or cut.astype("f4").tobytes() in sent for cut in cuts)

    monkeypatch.setattr(preparation, "site_moments", note)
    monkeypatch.setattr(masked_moments, "moment_vector", note_vector)
    _, secure = seen_by(federate, *ONE, SECURE)
    assert found(secure) == 0
    _, plain = seen_by(federate, *ONE)
    assert found(plain) >= 6
    prepared = [m for m in secure.seen if m.metadata.message_type == PREPARE and m.has_content()]
    assert not any(m.content.array_records for m in prepared)


def dropping(kind: str, *clients: int, number: str = "0") -> Spoil:
    """Drop what clients answer to messages of a kind before round 1."""

    def spoil(order: Message, reply: Message) -> Message | None:
        meta = order.metadata
        mine = (meta.message_type, meta.group_id) == (kind, number) and client_of(order) in clients
        return None if mine else reply

    return spoil


@pytest.mark.parametrize("kind", [MOMENTS, UNMASK])
def test_a_third_may_be_lost(kind: str, federate: Federate) -> None:
    """Before they are summed the projection does without them, afterwards they are in it."""
    ran = federate(*TWELVE, "run.rounds=1", SECURE, spoil=dropping(kind, 1, 4, 6, 11))
    (ready,), (first,) = ran.events("prepared"), ran.events("round")
    assert ready["moments_left_out"] == ([1, 4, 6, 11] if kind == MOMENTS else [])
    said = [line for line in ready["warnings"] if "not in the projection: no reply" in line]
    assert len(said) == len(ready["moments_left_out"])
    assert len(first["aggregated"]) == 12


def test_who_sends_no_keys_is_not_in_the_sum(federate: Federate) -> None:
    def spoil(order: Message, reply: Message) -> Message | None:
        return None if (order.metadata.message_type, client_of(order)) == (KEYS, 2) else reply

    ran = federate(*ONE, "run.clients=4", SECURE, spoil=spoil)
    assert ran.events("prepared")[0]["moments_left_out"] == [2]
    assert ran.events("round")[0]["aggregated"] == [0, 1, 3]


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        (
            MOMENTS,
            r"be opened: 7 of 12 masked moments came, of at least 8; client 0: no reply",
        ),
        (
            UNMASK,
            r"be opened: 7 of 12 members answered; at least 8 are needed; client 0: no answer",
        ),
    ],
)
def test_below_the_threshold_the_run_ends_with_the_reasons(
    kind: str, match: str, federate: Federate
) -> None:
    with pytest.raises(UserError, match=match):
        federate(*TWELVE, SECURE, spoil=dropping(kind, 0, 3, 5, 7, 8))


def garbled(data: np.ndarray) -> Callable[[Message], None]:
    def change(reply: Message) -> None:
        reply.content[ARRAYS] = ArrayRecord({MASKED: Array(data)})

    return change


def shorter(reply: Message) -> None:
    """A vector of one number less, its header too."""
    from dataclasses import replace

    from core.secagg import Masked

    data: Any = reply.content.array_records[ARRAYS][MASKED].numpy()
    sent = Masked.from_bytes(data.tobytes())
    made = replace(sent, vector=sent.vector[:-1]).to_bytes()
    reply.content[ARRAYS] = ArrayRecord({MASKED: Array(np.frombuffer(made, np.uint8))})


def with_more(reply: Message) -> None:
    reply.content[ABOUT] = ConfigRecord({"more": 1})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (garbled(np.zeros(10, np.uint8)), "masked update is too short"),
        (garbled(np.zeros(10, np.float64)), "of float64"),
        (shorter, "numbers instead of"),
        (with_more, "records ['about', 'arrays'] instead of ['arrays']"),
    ],
    ids=["bytes", "floats", "shorter", "more"],
)
def test_garbage_leaves_its_site_out(
    change: Callable[[Message], None], match: str, federate: Federate
) -> None:
    def spoil(order: Message, reply: Message) -> Message:
        if (order.metadata.message_type, client_of(order)) == (MOMENTS, 2):
            change(reply)
        return reply

    ran = federate(*ONE, "run.clients=4", SECURE, spoil=spoil)
    (ready,) = ran.events("prepared")
    assert ready["moments_left_out"] == [2]
    (said,) = [line for line in ready["warnings"] if "not in the projection" in line]
    assert said.startswith("client 2: its moments are not in the projection: moments dropped: ")
    assert match in said


def lying(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]) -> None:
    """Let client 1 add other moments than its rows have; nobody can look into what it sends."""
    real = masked_moments.weighted_moments

    def lie(cache: Any, kinds: Any, masking: Any) -> Any:
        vector = real(cache, kinds, masking)
        return change(vector) if cache.client == 1 else vector

    monkeypatch.setattr(masked_moments, "weighted_moments", lie)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda v: np.concatenate([50 * v[:2], v[2:]]),
            r"be used: it is of .* rows by class",
        ),
        (lambda v: np.concatenate([v[:2], -9 * v[2:]]), r"be used: no rows have such moments"),
        (lambda v: v * np.nan, r"number that is not finite"),
    ],
    ids=["rows", "sign", "nan"],
)
def test_a_sum_that_no_rows_have_is_refused(
    change: Callable[[Any], Any], match: str, federate: Federate, monkeypatch: pytest.MonkeyPatch
) -> None:
    lying(monkeypatch, change)
    with pytest.raises(UserError, match=match):
        federate(*ONE, SECURE)


def test_large_features_are_refused_at_their_site(
    federate: Federate, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = moment_vector
    monkeypatch.setattr(masked_moments, "moment_vector", lambda a, f: 1e7 * real(a, f))
    match = r"client 0: the weighted moments of kmer:4.* hold a number of .*at most 1,048,576"
    with pytest.raises(UserError, match=match):
        federate(*ONE, SECURE)


def with_kinds(*kinds: str) -> Callable[[Message, Context], Message]:
    """Request others of client 2; all members are sent one and the same content."""

    def between(message: Message, context: Context) -> Message:
        if message.metadata.message_type == MOMENTS and client_of(message) == 2:
            message = deepcopy(message)
            message.content.config_records[CONFIG]["kinds"] = list(kinds)
        return app(message, context)

    return between


@pytest.mark.parametrize(
    ("kinds", "match"),
    [
        (("kmer:4",), "are to train another model, or otherwise"),  # the others send more
        (
            ("kmer:4", "one-hot"),
            "moments of kmer:4, one-hot are requested; accepted: kmer:4, k",
        ),
        (("kmer:3", "kmer:4"), "moments of kmer:3, kmer:4 are requested"),
        (("kmer:4", "kmer:3", "kmer:3"), "are requested"),
    ],
)
def test_a_site_sends_moments_of_what_all_send_and_may_be_sent(
    kinds: tuple[str, ...], match: str, federate: Federate
) -> None:
    words = (*ONE, "run.clients=4", "data.train_rows=180", SECURE)
    ran = federate(*words, client_app=with_kinds(*kinds))
    (ready,) = ran.events("prepared")
    assert ready["moments_left_out"] == [2]
    assert any(match in line for line in ready["warnings"])


def test_rows_that_are_withheld_are_counted_together(federate: Federate) -> None:
    nodes = {1: {"privacy.min_rows": 50}}
    ran = federate(*ONE, "run.clients=4", SECURE, node_configs=nodes)
    (line,) = [one for one in ran.events("prepared")[0]["warnings"] if "privacy.min_rows" in one]
    assert line.startswith("rows whose moments are not in the projection: ")
    assert "client 1" not in line


def test_an_account_is_charged_before_masked_moments_leave(
    federate: Federate, own_jobs: Path
) -> None:
    from core import read_jsonl

    noise = ("privacy.moment_noise=4", "privacy.moment_clip=0.2", f"llm.store={own_jobs}")
    federate(*ONE, SECURE, *noise)
    lines = [line for path in (own_jobs / "privacy").iterdir() for line in read_jsonl(path)]
    assert len(lines) >= 3
    charged: list[bool] = []

    def between(message: Message, context: Context) -> None:
        if message.metadata.message_type == MOMENTS:
            files = (own_jobs / "privacy").iterdir()
            charged.append(sum(len(list(read_jsonl(path))) for path in files) > len(lines))

    federate(*ONE, SECURE, *noise, client_app=Between(between))
    assert charged == [False, True, True]  # each after the one before: none at PREPARE


def test_a_run_that_goes_on_sends_no_moments_again(tmp_path: Path) -> None:
    from tests.server_app.test_resume import Breaking, Killed, go_on, start

    words = (*SMALL, SECURE)
    with pytest.raises(Killed):
        start(tmp_path, *words, journal=Breaking(tmp_path, 6))
    assert go_on(tmp_path, *words)["status"] == "completed"
    log = (tmp_path / "log.jsonl").read_text()
    assert log.count("query.moments") == 2  # sent, and answered
