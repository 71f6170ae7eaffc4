"""What an honest-but-curious server sees, and whole runs with privacy settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message
from safetensors.numpy import load_file

from client_app.site import load_cache
from core import UserError, parse_run
from core.messages import PREPARE
from data import Projection
from llm_qfl.cli.formatting import result
from tests.conftest import NO_TEACHER, Federate
from tests.tables import TEXT, text_table

LONG = 12
"""Letters that no message may have in common with a row."""


def pieces(message: Message) -> Iterator[bytes]:
    """Yield everything that a message carries, as bytes; matrices by rows and by columns."""
    if message.has_error():
        yield str(message.error.reason).encode()
        return
    for record in message.content.array_records.values():
        for name, array in record.items():
            yield name.encode()
            yield array.data
            yield from (array.numpy().tobytes(order) for order in ("C", "F"))
    others = (message.content.config_records, message.content.metric_records)
    for name, values in (pair for part in others for pair in part.items()):
        yield name.encode()
        for key, item in values.items():
            yield key.encode()
            yield item if isinstance(item, bytes) else repr(item).encode()


def windows(text: bytes) -> np.ndarray:
    """Return a number for every `LONG` bytes in a row of a text: equal bytes, equal numbers."""
    bytes_ = np.frombuffer(text, np.uint8).astype(np.uint64)
    count = max(len(bytes_) - LONG + 1, 0)
    found = np.zeros(count, np.uint64)
    for place in range(LONG):
        found = found * np.uint64(0x9E3779B97F4A7C15) + bytes_[place : place + count]
    return found


def common(sent_bytes: bytes, texts: Sequence[str]) -> Iterator[str]:
    """Yield what a message has in common with texts, `LONG` letters at a time."""
    ours, theirs = np.concatenate([windows(t.encode()) for t in texts]), windows(sent_bytes)
    coarse = np.zeros(1 << 20, bool)  # sorts out most, since to sort them all takes seconds
    coarse[ours >> np.uint64(44)] = True
    places = np.flatnonzero(coarse[theirs >> np.uint64(44)])
    for place in places[np.isin(theirs[places], ours)]:
        cut = sent_bytes[place : place + LONG]
        if any(cut in text.encode() for text in texts):
            yield cut.decode()


class Curious:
    """Keeps every message in both directions."""

    def __init__(self) -> None:
        self.seen: list[Message] = []

    def __call__(self, order: Message, reply: Message) -> Message:
        self.seen += [order, reply]
        return reply

    def finds(self, site: Any) -> list[str]:
        """Say what of a site's rows, labels, features and soft labels is in the messages."""
        sent_bytes = b"\0".join(piece for message in self.seen for piece in pieces(message))
        held = {"train": site.site.train, "validation": site.site.validation}
        held |= {"test": site.site.test} if len(site.site.test) else {}
        texts = [text for part in held.values() for text in part.texts]
        found = [f"text {cut!r}" for cut in common(sent_bytes, texts)]
        for split, part in held.items():
            found += self.labels(sent_bytes, [int(label) for label in part.labels], split)
            for what, matrix in self.numbers(site, split).items():
                for row, kind in ((row, kind) for row in matrix for kind in ("<f4", "<f8")):
                    found += [f"a row of {what}"] * (row.astype(kind).tobytes() in sent_bytes)
        return found

    @staticmethod
    def labels(sent_bytes: bytes, labels: list[int], split: str) -> list[str]:
        as_numbers = (np.asarray(labels, kind) for kind in ("<i8", "<i4", "<f8", "<f4", "u1"))
        written = [repr(labels)[1:-1].encode(), *(array.tobytes() for array in as_numbers)]
        return [f"the {split} labels"] * any(text in sent_bytes for text in written)

    def numbers(self, site: Any, split: str) -> dict[str, np.ndarray]:
        """Return what is made of each row: features, angles, and the teacher's soft labels."""
        orders = (m for m in self.seen if m.metadata.message_type == "train" and m.has_content())
        sent = next(m for m in orders if "config" in m.content.config_records)
        packed: Any = sent.content.config_records["config"]["projection"]
        features = site.features(split)
        made = {"features": features, "angles": Projection.from_bytes(packed).apply(features)}
        if split == "train":
            soft = site.teacher()[0].soft_labels  # two rows at once: one is but a number or two
            made["soft labels"] = np.hstack([soft[:-1], soft[1:]])
        return made


CASES = [
    (),
    ("evaluation.mode=federated", "data.server_rows=0"),
    ("llm.federated=ffa", "llm.rounds=1", "features.encoder=shared"),
    ("privacy.dp=local", "privacy.moment_noise=1"),
    TEXT,
]


@pytest.mark.parametrize("given", CASES, ids=" ".join)
def test_no_message_holds_a_row_a_label_list_or_text(
    given: tuple[str, ...], federate: Federate, tmp_path: Path
) -> None:
    words = (*given, f"data.path={text_table(tmp_path)}") if given is TEXT else given
    curious = Curious()
    ran = federate(*words, spoil=curious)
    assert len(curious.seen) > 12
    for context in ran.grid.contexts.values():
        site = load_cache(context)
        assert len(site.site.train) > 8
        assert curious.finds(site) == []


def test_the_curious_server_would_find_what_is_told(federate: Federate) -> None:
    """The search itself: what a row holds, put into any message in any form, is found."""
    curious = Curious()
    ran = federate(spoil=curious)
    site = load_cache(next(iter(ran.grid.contexts.values())))
    train, soft = site.site.train, site.teacher()[0].soft_labels
    content = next(m.content for m in curious.seen if m.has_content() and m.content.config_records)
    about = next(iter(content.config_records.values()))
    reported = next(m.content for m in curious.seen if m.content.metric_records).metric_records
    numbers = next(iter(reported.values()))

    def leaked(record: Any, value: Any) -> set[str]:
        record["leak"] = value
        found = {one.split(" '")[0] for one in curious.finds(site)}
        del record["leak"]
        return found

    assert leaked(numbers, [int(label) for label in train.labels]) == {"the train labels"}
    assert leaked(about, train.texts[0][5 : 5 + LONG]) == {"text"}
    assert leaked(about, site.features("validation")[3].tobytes()) == {"a row of features"}
    columns = np.asfortranarray(soft, np.float64)
    assert leaked(content, ArrayRecord({"x": Array(columns)})) == {"a row of soft labels"}
    angles = curious.numbers(site, "train")["angles"]
    assert leaked(content, ArrayRecord({"x": Array(angles.T)})) == {"a row of angles"}


def test_the_words_of_an_unforeseen_error_stay_at_the_site(
    federate: Federate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library may quote the row that it could not take."""
    secret = "ACGTTGCAACGTACGTTTGA"

    def fail(*_: Any) -> None:
        raise ValueError(f"could not convert {secret}")

    monkeypatch.setattr("client_app.app.train_round", fail)
    replies: list[Message] = []

    def note(order: Message, reply: Message) -> Message:
        replies.append(reply)
        return reply

    with pytest.raises(UserError, match=r"ValueError in test_private_runs.py, line \d+; that no"):
        federate(spoil=note)
    errors = [str(reply.error.reason) for reply in replies if reply.has_error()]
    assert len(errors) == 3
    assert not any(secret in error for error in errors)


# --- noise ----------------------------------------------------------------------------------------

CENTRAL = ("privacy.dp=central", "aggregation.rule=uniform", "privacy.seeded=true")


def test_central_noise_moves_the_model_by_what_was_asked(federate: Federate) -> None:
    given = ("run.rounds=1", "evaluation.keep=last", "aggregation.rule=uniform")
    plain = load_file(federate(*given).folder / "model.safetensors")
    ran = federate(*given, *CENTRAL, "privacy.noise=0.3", "privacy.clip=50")
    moved = load_file(ran.folder / "model.safetensors")["angles"] - plain["angles"]
    assert moved.std() == pytest.approx(0.3 * 50 / 3, rel=0.25)
    stated = ran.summary["privacy"]["updates"]
    assert (stated["dp"], stated["releases"], stated["delta"]) == ("central", 1, 1e-5)
    assert any("privacy" in line and "epsilon" in line for line in result(ran.summary))
    from reporting import write_report

    write_report(ran.folder)
    bound = f"epsilon {stated['epsilon']:.3f} at delta 1e-05"
    assert f"a client&#39;s updates: {bound}" in (ran.folder / "report.html").read_text()


def test_an_update_is_clipped_before_it_is_averaged(federate: Federate) -> None:
    given = ("run.rounds=1", "evaluation.keep=last", "train.steps=20")
    ran = federate(*given, *CENTRAL, "privacy.noise=1e-9", "privacy.clip=0.01")
    first = load_file(ran.folder / "checkpoint" / "round-000" / "model.safetensors")
    last = load_file(ran.folder / "checkpoint" / "round-001" / "model.safetensors")
    moved = np.sqrt(sum(np.sum((last[k] - first[k]) ** 2) for k in first))
    assert 0.001 < moved <= 0.0101


def test_a_long_update_counts_and_is_clipped_under_central_privacy(federate: Federate) -> None:
    """Dropped, it would change how many the sum is divided by, for which no noise is made."""

    def far(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == "train" and order.metadata.dst_node_id == 1000:
            arrays = reply.content.array_records["arrays"]
            arrays["angles"] = Array(arrays["angles"].numpy() + np.float32(1000))
        return reply

    given = ("run.rounds=1", "evaluation.keep=last", "privacy.noise=1e-9", "privacy.clip=0.3")
    ran = federate(*CENTRAL, *given, spoil=far)
    assert ran.events("round")[0]["aggregated"] == [0, 1, 2]
    first = load_file(ran.folder / "checkpoint" / "round-000" / "model.safetensors")
    last = load_file(ran.folder / "checkpoint" / "round-001" / "model.safetensors")
    moved = np.sqrt(sum(np.sum((last[k] - first[k]) ** 2) for k in first))
    assert 0.01 < moved <= 0.3001


def test_local_noise_is_there_before_an_update_leaves(federate: Federate) -> None:
    sent: dict[str, np.ndarray] = {}

    def watch(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == "train" and order.metadata.dst_node_id == 1000:
            sent[str(len(sent))] = reply.content.array_records["arrays"]["angles"].numpy()
        return reply

    given = ("run.rounds=1", "agent.kind=all")
    federate(*given, spoil=watch)
    local = ("privacy.dp=local", "privacy.noise=0.5", "privacy.clip=5", "privacy.seeded=true")
    ran = federate(*given, *local, spoil=watch)
    assert (sent["1"] - sent["0"]).std() == pytest.approx(0.5 * 5, rel=0.25)
    assert ran.summary["privacy"]["updates"]["dp"] == "local"


def test_seeded_noise_repeats_and_other_noise_does_not(federate: Federate) -> None:
    def model(*given: str) -> np.ndarray:
        ran = federate("run.rounds=1", "aggregation.rule=uniform", "privacy.dp=central", *given)
        return np.asarray(load_file(ran.folder / "model.safetensors")["angles"])

    assert np.array_equal(model("privacy.seeded=true"), model("privacy.seeded=true"))
    assert not np.array_equal(model(), model())


def test_no_credit_is_made_of_single_models(federate: Federate) -> None:
    ran = federate(*CENTRAL, "agent.kind=greedy", "agent.price=0")
    views = ran.decisions()[1]["observation"]["clients"]
    assert {view["credit"] for view in views} == {None}


def test_moments_of_few_rows_of_a_class_stay_at_the_site(federate: Federate) -> None:
    """Of 16 rows a class, at a site that asks for 17: it sends none of its moments, and trains."""
    sent: dict[int, dict[str, np.ndarray]] = {}

    def watch(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == PREPARE:
            record = reply.content.array_records["arrays"]
            arrays = {name: array.numpy() for name, array in record.items()}
            sent[order.metadata.dst_node_id - 1000] = arrays
        return reply

    ran = federate("run.rounds=1", node_configs={1: {"privacy.min_rows": 17}}, spoil=watch)
    assert sent[0]["count"].tolist() == [16, 16]
    assert not any(array.any() for array in sent[1].values())
    prepared = ran.events("prepared")[0]
    assert prepared["clients"][1]["class_rows"] == [16, 16]
    (line,) = [line for line in prepared["warnings"] if "moments" in line]
    assert re.search(r"client 1: classes .*\(16\).* have fewer than privacy.min_rows", line)
    assert {e["client"] for e in ran.events("client") if e["aggregated"]} == {0, 1, 2}


def test_a_row_that_is_alone_in_its_class_is_in_no_message(federate: Federate) -> None:
    """One site's only row of a class is the class's sum; by default it does not leave the site."""
    skew = ("data.partition=dirichlet", "data.alpha=0.3", "run.seed=SEED", "run.rounds=1")
    few: dict[int, tuple[list[int], list[int]]] = {}

    def watch(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == PREPARE:
            record = reply.content.array_records["arrays"]
            rows: Any = reply.content.config_records["about"]["class_rows"]
            few[order.metadata.dst_node_id] = list(rows), record["count"].numpy().tolist()
        return reply

    for seed in range(20):
        few.clear()
        given = [word.replace("SEED", str(seed)) for word in (*skew, *NO_TEACHER)]
        try:
            federate(*given, "train.steps=1", spoil=watch)
        finally:
            assert all(
                sent == (rows if rows >= 5 else 0)
                for held, released in few.values()
                for rows, sent in zip(held, released, strict=True)
            )
        if any(0 < rows < 5 for held, _ in few.values() for rows in held):
            return
    raise AssertionError("no seed left a class with few rows at a site")


def test_moments_of_too_few_rows_everywhere_end_the_run_before_it_starts(
    federate: Federate,
) -> None:
    match = r"moments of 0 of 2 classes over all clients; accepted: 2 .*privacy.min_rows = 17"
    with pytest.raises(UserError, match=match):
        federate("privacy.min_rows=17")
    assert federate("privacy.min_rows=16", "run.rounds=1").summary["status"] == "completed"


def test_noisy_moments_still_give_a_projection(federate: Federate) -> None:
    ran = federate("privacy.moment_noise=0.5", "privacy.seeded=true", "run.rounds=1")
    assert ran.summary["status"] == "completed"
    assert ran.summary["privacy"]["moments"]["epsilon"] > 0


@pytest.mark.parametrize("encoder", ["base", "shared"])
def test_moments_of_features_are_told_once(encoder: str, federate: Federate) -> None:
    """Twice would be two releases, each with noise of its own, and epsilon is of one."""
    messages: list[tuple[str, int]] = []

    def watch(order: Message, reply: Message) -> Message:
        record = reply.content.array_records.get("arrays", ArrayRecord())
        if order.metadata.dst_node_id == 1000 and "second" in record:
            messages.append((order.metadata.message_type, record["second"].numpy().shape[0]))
        return reply

    given = ["llm.federated=ffa", "llm.rounds=1", "run.rounds=1", "privacy.moment_noise=0.1"]
    given += ["features.encoder=shared"] if encoder == "shared" else []
    federate(*given, "train.steps=1", spoil=watch)
    assert [kind for kind, _ in messages] == ["query.prepare", "query.adopt"]
    assert sorted(features > 0 for _, features in messages) == [False, True]


def test_a_round_counts_as_often_as_its_messages_went_out(tmp_path: Path) -> None:
    """Killed in rounds 1, 1 and 3 of 4: 7 releases, though 4 rounds are on record."""
    from core.accounting import epsilon
    from tests.server_app.test_resume import Killed, go_on, start

    def killed_in(number: str) -> Callable[[Message, Message], Message]:
        def spoil(order: Message, reply: Message) -> Message:
            if order.metadata.message_type == "train" and order.metadata.group_id == number:
                raise Killed
            return reply

        return spoil

    for step, number in ((start, "1"), (go_on, "1"), (go_on, "3")):
        with pytest.raises(Killed):
            step(tmp_path / "run", *CENTRAL, spoil=killed_in(number))
    spent = go_on(tmp_path / "run", *CENTRAL)["privacy"]["updates"]
    assert spent["releases"] == 7
    assert spent["epsilon"] == epsilon({1.0: 7}, 1e-5) > epsilon({1.0: 5}, 1e-5)
    assert spent["epsilon"] == pytest.approx(best_order(7 / 2, 1e-5), rel=0.02)


def best_order(rho: float, delta: float) -> float:
    """Return epsilon of zero-concentrated privacy, by the bound of Canonne et al. (2020)."""
    orders = np.linspace(1.01, 60, 6000)
    bound = orders * rho + np.log1p(-1 / orders) - np.log(delta * orders) / (orders - 1)
    return float(bound.min())


def test_without_its_count_of_releases_a_private_run_does_not_go_on(tmp_path: Path) -> None:
    from tests.server_app.test_resume import broken, go_on

    broken(tmp_path / "run", 9, *CENTRAL)
    (tmp_path / "run" / "checkpoint" / "releases.json").unlink()
    with pytest.raises(UserError, match=r"releases.json' is damaged or missing"):
        go_on(tmp_path / "run", *CENTRAL)


@pytest.mark.parametrize("dp", ["central", "local"])
def test_losses_may_not_choose_whose_noised_update_counts(dp: str) -> None:
    private = [f"privacy.dp={dp}", *(["aggregation.rule=uniform"] if dp == "central" else [])]
    late = [*private, "agent.stage=aggregation"]
    with pytest.raises(
        UserError, match=r"agent.stage = 'aggregation' with privacy.dp = .*no noise"
    ):
        parse_run([], [*late, "agent.fraction=0.5"])
    parse_run([], [*private, "agent.fraction=0.5"])
