"""Whole runs that choose their features, or are given them; what the sites send for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, Message

import llm_qfl
from client_app.site import forget
from core import DataError, UserError, parse_run, read_jsonl
from core.messages import ABOUT, ARRAYS, METRICS, PREPARE, PROBE
from core.storage.checkpoints import last_checkpoint
from data import fit_probe, load_site, moments_of, one_hot
from llm_qfl.cli.formatting import header
from reporting import write_report
from server_app.probes import ProbeLosses
from tests.conftest import NO_TEACHER, SMALL, Federate
from tests.tables import TEXT, text_table

FEDERATED = ("evaluation.mode=federated", "data.server_rows=0")
AUTO_SET = ("features.shrinkage=auto", "features.k=auto", "quantum.qubits=auto")
Spoil = Callable[[Message, Message], Message]


def aligned(rng: np.random.Generator, label: int, length: int) -> str:
    """Return any letters, with a purine or a pyrimidine at one place: no k-mer tells the two."""
    letters = rng.choice(list("ACGT"), length)
    letters[5] = rng.choice(list("CT" if label else "AG"))
    return "".join(letters)


def by_content(rng: np.random.Generator, label: int, length: int) -> str:
    """Return letters that repeat, or that do not: at every place each of the four is as likely."""
    moves = rng.integers(1, 4, length) * (rng.random(length) < (0.9 if label else 0.5))
    return "".join(np.array(list("ACGT"))[np.cumsum(moves) % 4])


def table(
    path: Path, make: Any = aligned, lengths: tuple[int, ...] = (10,), rows: int = 280
) -> str:
    rng = np.random.default_rng(len(lengths))
    made = [make(rng, k % 2, lengths[k % 3 % len(lengths)]) for k in range(320)]
    path.write_text("\n".join(["text,label", *(f"{s},{k % 2}" for k, s in enumerate(made)), ""]))
    return f"data.path={path}"


WORDS = (
    *("data.source=csv", "data.kind=dna", "quantum.qubits=2", "features.k=2", "run.clients=2"),
    *("train.steps=1", "features.shrinkage=0.1", *NO_TEACHER),
)


@pytest.mark.parametrize("evaluation", [(), FEDERATED], ids=["central", "federated"])
@pytest.mark.parametrize(("make", "chosen"), [(aligned, "one-hot, 40"), (by_content, "kmer, 10")])
def test_the_probe_finds_the_features_that_tell_the_classes(
    make: Any, chosen: str, evaluation: tuple[str, ...], federate: Federate, tmp_path: Path
) -> None:
    path = table(tmp_path / "rows.csv", make)
    ran = federate(*WORDS, *evaluation, path)
    (prepared,) = ran.events("prepared")
    assert prepared["features"] == f"{chosen} -> 2 (lda)"
    other = ({"one-hot", "kmer"} - {chosen.partition(",")[0]}).pop()
    why = re.fullmatch(
        rf"probe loss (0\.\d{{3}}); {other} (\d\.\d{{3}})", prepared["feature_choice"]
    )
    assert why
    assert float(why[1]) < float(why[2])
    assert f"(lda); {prepared['feature_choice']}" in "\n".join(header(prepared))
    write_report(ran.folder)
    assert prepared["feature_choice"] in (ran.folder / "report.html").read_text()
    # The run is the one that has these features by name, to the last digit.
    named = federate(
        *WORDS,
        *evaluation,
        path,
        f"features.kind={chosen.partition(',')[0]}",
        *(["features.k=auto"] if chosen.startswith("one-hot") else []),
    )
    losses = [[e["loss"] for e in run.events("round")] for run in (ran, named)]
    assert losses[0] == losses[1]
    assert "feature_choice" not in named.events("prepared")[0]


def test_the_sites_losses_are_those_of_the_probe_of_all_rows(
    federate: Federate, tmp_path: Path
) -> None:
    path = table(tmp_path / "rows.csv")
    words = (*WORDS, *FEDERATED, "features.candidates=one-hot,kmer", path)
    replies: list[Message] = []

    def watch(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == PROBE:
            replies.append(reply)
        return reply

    ran = federate(*words, spoil=watch)
    settings, _ = parse_run([], [*SMALL, *words])
    sites = [load_site(settings, client, 2)[1] for client in range(2)]
    held = [(one_hot(s.train.texts), s.train.labels) for s in sites]
    pooled = moments_of(np.vstack([x for x, _ in held]), np.hstack([y for _, y in held]), 2)
    probe = fit_probe(pooled, (2,), (0.1,), np.ones(2), seed=0)
    rows = [(one_hot(s.validation.texts), s.validation.labels) for s in sites]
    for reply, (x, y) in zip(replies, rows, strict=True):
        sent: Any = reply.content.metric_records[METRICS]["losses"]
        assert len(sent) == 2  # kmer, then one-hot
        np.testing.assert_allclose(sent[1], probe.losses(x, y, np.ones(2), 3.0)[0], rtol=1e-6)
    x, y = np.vstack([x for x, _ in rows]), np.hstack([y for _, y in rows])
    best = probe.losses(x, y, np.ones(2), 3.0)[0].min()
    assert f"probe loss {best:.3f};" in ran.events("prepared")[0]["feature_choice"]


def test_texts_have_no_choice_and_cost_no_message(federate: Federate, tmp_path: Path) -> None:
    words = (*TEXT, f"data.path={text_table(tmp_path)}", *NO_TEACHER, "train.steps=1")
    ran = federate(*words, "features.shrinkage=0.5")
    assert "feature_choice" not in ran.events("prepared")[0]
    assert not [kind for kind, _ in ran.grid.log if kind == PROBE]


def test_sequences_of_several_lengths(federate: Federate, tmp_path: Path) -> None:
    path = table(tmp_path / "rows.csv", by_content, lengths=(10, 11, 9))
    (prepared,) = federate(*WORDS, path).events("prepared")
    assert prepared["features"] == "kmer, 10 -> 2 (lda)"
    assert prepared["feature_choice"] == "one-hot takes sequences of one length"
    with pytest.raises(UserError, match=r"sequences of 9 to 11 letters with one-hot feat"):
        federate(*WORDS, path, "features.kind=one-hot", "features.k=auto")


def test_sites_whose_sequences_differ_in_length(federate: Federate, tmp_path: Path) -> None:
    for client, length in enumerate((10, 11)):
        table(tmp_path / f"{client}.csv", by_content, (length,))
    words = (*WORDS, *FEDERATED, "data.per_site=true", "data.labels=0,1", "data.train_rows=0")
    path = f"data.path={tmp_path}/{{client}}.csv"
    (prepared,) = federate(*words, path).events("prepared")
    assert prepared["feature_choice"] == "one-hot takes sequences of one length"
    message = r"lengths with kmer .* one-hot features \(client 0: 10, client 1: 11 letters\)"
    with pytest.raises(DataError, match=message):
        federate(*words, path, "features.kind=kmer,one-hot")


def test_sites_of_few_rows_send_no_moments_that_would_give_them_away(
    federate: Federate, tmp_path: Path
) -> None:
    sent: list[list[str]] = []

    def watch(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == PREPARE:
            sent.append(sorted(reply.content.array_records[ARRAYS]))
        return reply

    ran = federate(*WORDS, table(tmp_path / "rows.csv"), "data.train_rows=90", spoil=watch)
    assert sent == [["count", "second", "sums"]] * 2
    why = ran.events("prepared")[0]["feature_choice"]
    assert why == "one-hot is tried with 40 training rows at every site"


def test_server_rows_of_another_length(federate: Federate, tmp_path: Path) -> None:
    path = table(tmp_path / "rows.csv")
    test = table(tmp_path / "test.csv", lengths=(11,)).replace("data.path", "data.test_path")
    (prepared,) = federate(*WORDS, path, test).events("prepared")
    assert prepared["feature_choice"] == "one-hot takes sequences of one length"
    with pytest.raises(DataError, match=r"client 1: 10, the server: several letters"):
        federate(*WORDS, path, test, "features.kind=one-hot", "features.k=auto")


def from_client_1(kind: str, change: Callable[[Message], None]) -> Spoil:
    def spoil(order: Message, reply: Message) -> Message:
        if (order.metadata.message_type, order.metadata.dst_node_id) == (kind, 1001):
            change(reply)
        return reply

    return spoil


def replaced(**arrays: np.ndarray) -> Callable[[Message], None]:
    def change(reply: Message) -> None:
        for name, array in arrays.items():
            reply.content.array_records[ARRAYS][name.replace("__", "one-hot.")] = Array(array)

    return change


def other_length(reply: Message) -> None:
    reply.content.config_records[ABOUT]["length"] = 9


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (replaced(__sums=np.zeros((2, 36)), __second=np.eye(36)), "36 features instead of 40"),
        (replaced(__second=np.eye(36)), r"one-hot.sums has shape \(2, 40\) instead of \(2, 36\)"),
        (other_length, r"moments of 40 features instead of 36 \(one-hot\)"),
        (replaced(sums=np.zeros((2, 11)), second=np.eye(11)), "11 features instead of 10"),
        (
            lambda reply: replaced(**{"x.sums": np.zeros((2, 1)), "x.second": np.eye(1)})(reply),
            r"moments of \['one-hot', 'x'\] instead of \['kmer', 'one-hot'\]",
        ),
        (replaced(__second=np.full((40, 40), np.nan)), "one-hot.second is not finite"),
    ],
)
def test_a_report_that_cannot_be_true_is_refused(
    change: Any, why: str, federate: Federate, tmp_path: Path
) -> None:
    path = table(tmp_path / "rows.csv")
    with pytest.raises(UserError, match=f"node 1001 sent a report that cannot be used: .*{why}"):
        federate(*WORDS, path, spoil=from_client_1(PREPARE, change))


def test_a_site_that_lies_in_a_candidates_moments_spoils_that_candidate_only(
    federate: Federate, tmp_path: Path
) -> None:
    def lie(reply: Message) -> None:
        record = reply.content.array_records[ARRAYS]
        record["one-hot.sums"] = Array(50 * record["one-hot.sums"].numpy())

    path = table(tmp_path / "rows.csv")
    ran = federate(*WORDS, path, spoil=from_client_1(PREPARE, lie))
    assert ran.summary["status"] == "completed"
    assert ran.events("prepared")[0]["features"].startswith("kmer, 10")


def losses(*values: float, rows: int = 0) -> Callable[[Message], None]:
    def change(reply: Message) -> None:
        record = reply.content.metric_records[METRICS]
        record["losses"] = list(values)
        record["spreads"] = [0.0] * len(values)
        record["rows"] = rows or record["rows"]

    return change


@pytest.mark.parametrize(
    "change",
    [losses(0.0), losses(0.0, 0.0, rows=10**6), losses(-1.0, -1.0), losses(1e9, 1e9)],
)
def test_losses_that_cannot_be_true_do_not_count(
    change: Any, federate: Federate, tmp_path: Path
) -> None:
    path = table(tmp_path / "rows.csv")
    ran = federate(*WORDS, *FEDERATED, path, spoil=from_client_1(PROBE, change))
    assert ran.events("prepared")[0]["features"].startswith("one-hot, 40")


def test_one_site_in_four_does_not_choose(federate: Federate, tmp_path: Path) -> None:
    words = (*WORDS, *FEDERATED, "run.clients=4", table(tmp_path / "rows.csv", lengths=(6,)))
    lie = losses(0.0, 28.0)  # of kmer, and of one-hot
    (prepared,) = federate(*words, spoil=from_client_1(PROBE, lie)).events("prepared")
    assert re.match(r"probe loss 0\.\d+; kmer", prepared["feature_choice"])
    assert prepared["features"].startswith("one-hot, 24")


def test_where_no_site_answers_the_first_candidate_is_taken(
    federate: Federate, tmp_path: Path
) -> None:
    def silent(order: Message, reply: Message) -> Message | None:
        return None if order.metadata.message_type == PROBE else reply

    ran = federate(*WORDS, *FEDERATED, table(tmp_path / "rows.csv"), spoil=silent)
    (prepared,) = ran.events("prepared")
    assert prepared["features"].startswith("kmer, 10")
    assert prepared["feature_choice"] == "no site evaluated the probes"


@pytest.mark.parametrize("private", ["privacy.moment_noise=1", "privacy.dp=local"])
def test_with_privacy_settings_nothing_is_sent_to_choose_by(
    private: str, federate: Federate, tmp_path: Path
) -> None:
    seen: list[tuple[str, list[str]]] = []

    def watch(order: Message, reply: Message) -> Message:
        records = reply.content.array_records
        seen.append((order.metadata.message_type, sorted(records[ARRAYS]) if records else []))
        return reply

    words = (*WORDS, *FEDERATED, private, table(tmp_path / "rows.csv"))
    (prepared,) = federate(*words, spoil=watch).events("prepared")
    assert prepared["features"].startswith("kmer, 10")
    assert prepared["feature_choice"] == "with privacy settings nothing is sent to choose by"
    kinds = [kind for kind, _ in seen]
    assert PROBE not in kinds
    assert seen[0] == (PREPARE, ["count", "second", "sums"])


@pytest.mark.parametrize("given", [(), AUTO_SET], ids=["features", "qubits"])
def test_a_process_for_each_message_and_a_resumed_run_use_what_was_chosen(
    tmp_path: Path, given: tuple[str, ...]
) -> None:
    from tests.server_app.test_resume import Killed, go_on, start

    path = table(tmp_path / "rows.csv")
    words = (*WORDS, *FEDERATED, path, *given, "run.rounds=2", "data.train_rows=120")

    def afresh(message: Message, reply: Message) -> Message:
        forget()
        return reply

    def killed(message: Message, reply: Message) -> Message:
        if message.metadata.message_type == "train" and message.metadata.group_id == "2":
            raise Killed
        return reply

    whole = start(tmp_path / "whole", *words)
    events = read_jsonl(tmp_path / "whole" / "metrics.jsonl")
    assert next(events)["features"].startswith("one-hot, 40")
    deployed = start(tmp_path / "deployed", *words, spoil=afresh)
    with pytest.raises(Killed):
        start(tmp_path / "broken", *words, spoil=killed)
    resumed = go_on(tmp_path / "broken", *words)
    assert deployed["test"] == resumed["test"] == whole["test"]


def found(losses: list[list[float]], spreads: list[list[float]], rows: float = 100) -> ProbeLosses:
    widths = tuple(range(2, 2 + len(losses[0])))
    one, other = np.array(losses), np.array([[9.0]])
    return ProbeLosses(
        {"a": one, "b": other},
        {"a": np.array(spreads), "b": other},
        (0.1, 0.9),
        {"a": widths, "b": (2,)},
        rows,
    )


@pytest.mark.parametrize(
    ("middle", "spread", "rows", "qubits", "shrinkage"),
    [
        (0.518, 0.19, 100, 3, 0.1),  # a standard error is 0.019: three are as good as four
        (0.518, 0.19, 400, 4, 0.9),  # and now half of that: they are not
        (0.521, 7.0, 100, 4, 0.9),  # 0.02 nats are lost at most
        (0.509, 0.0, 100, 3, 0.9),  # and 0.01 are no qubit's worth
        (0.511, 0.0, 100, 4, 0.9),
    ],
)
def test_the_fewest_qubits_within_a_standard_error(
    middle: float, spread: float, rows: float, qubits: int, shrinkage: float
) -> None:
    losses = [[1.0, 0.515, 0.515], [1.1, middle, 0.5]]
    spreads = [[spread, spread, 0.0]] * 2
    best = found(losses, spreads, rows).best()
    assert (best.kinds, best.qubits, best.shrinkage) == ("a", qubits, shrinkage)


def test_what_was_tried_is_said() -> None:
    told = found([[1.0, 0.6], [1.1, 0.5]], [[0.0, 0.0]] * 2)
    assert told.words(told.best()) == (
        "probe loss 0.500; b 9.000; shrinkage 0.9 of 0.1 0.600, 0.9 0.500; "
        "3 qubits of 2 1.100, 3 0.500"
    )


def prices(folder: Path) -> list[int]:
    checkpoint = last_checkpoint(folder)
    assert checkpoint is not None
    return [member["circuits_per_step"] for member in checkpoint.state["members"]]


@pytest.mark.parametrize("evaluation", [(), FEDERATED], ids=["central", "federated"])
def test_shrinkage_k_and_qubits_by_validation(
    evaluation: tuple[str, ...], federate: Federate, tmp_path: Path
) -> None:
    path, probes = table(tmp_path / "rows.csv"), []

    def watch(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == PROBE:
            probes.append(reply)
        return reply

    words = (*WORDS, *evaluation, path, *AUTO_SET, "train.optimizer=parameter-shift")
    ran = federate(*words, spoil=watch)
    (prepared,) = ran.events("prepared")
    choice = re.search(
        r"probe loss (\S+); kmer:4 .*; kmer:3 .*; shrinkage (\S+) of .*; (\d) qubits of 2 .*8 ",
        prepared["feature_choice"],
    )
    assert choice, prepared["feature_choice"]
    assert prepared["features"] == f"one-hot, 40 -> {choice[3]} (lda)"
    assert len(probes) == (2 if evaluation else 0)
    # The run is the one with these settings by name, to the last digit, and costs as much.
    named = federate(
        *(*WORDS, *evaluation, path, "features.kind=one-hot", "features.k=auto"),
        *(f"features.shrinkage={choice[2]}", f"quantum.qubits={choice[3]}"),
        "train.optimizer=parameter-shift",
    )
    losses = [[e["loss"] for e in run.events("round")] for run in (ran, named)]
    assert losses[0] == losses[1]
    assert ran.summary["ledger"]["circuits"] == named.summary["ledger"]["circuits"]
    assert prices(ran.folder) == prices(named.folder)
    kept = llm_qfl.load(ran.folder)
    assert kept.settings.quantum.qubits == int(choice[3])
    assert kept.settings.features.shrinkage == float(choice[2])
    rows = ["ACGTACGTAC", "TTTTTCTTTT"]
    np.testing.assert_allclose(
        kept.predict_proba(rows), llm_qfl.load(named.folder).predict_proba(rows)
    )
