"""What an honest-but-curious server sees, and whole runs with privacy settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from safetensors.numpy import load_file

from cli.words import result
from client_app.memory import recall
from federation import UserError

Federate = Callable[..., Any]
LONG = 12
"""Letters that no message may have in common with a row."""

TEXT = ("data.source=csv", "data.server_rows=0", "data.train_rows=60", "data.test_rows=20")


def table(folder: Path) -> str:
    good, bad = ("splendid", "wonderful", "delightful"), ("dreadful", "miserable", "abominable")
    rows = [
        f"patient {k * 7919} had a {(good if k % 2 else bad)[k % 3]} week,{k % 2}"
        for k in range(120)
    ]
    path = folder / "rows.csv"
    path.write_text("\n".join(["text,label", *rows, ""]))
    return str(path)


def pieces(value: Any) -> Iterator[bytes]:
    """Yield everything that a message carries, as bytes; arrays as numbers of four kinds."""
    for record in value.content.array_records.values():
        for name, array in record.items():
            yield name.encode()
            yield array.data
    for records in (value.content.config_records, value.content.metric_records):
        for name, record in records.items():
            yield name.encode()
            for key, item in record.items():
                yield key.encode()
                yield item if isinstance(item, bytes) else repr(item).encode()


class Curious:
    """Keeps every message in both directions."""

    def __init__(self) -> None:
        self.seen: list[Message] = []

    def __call__(self, order: Message, reply: Message) -> Message:
        self.seen += [order, reply]
        return reply

    def finds(self, site: Any) -> list[str]:
        """Say what of a site's rows, labels and features is in the messages."""
        told = b"\0".join(piece for message in self.seen for piece in pieces(message))
        found = []
        for split in (site.site.train, site.site.validation, site.site.test):
            for text in split.texts:
                cuts = (text[at : at + LONG] for at in range(0, max(1, len(text) - LONG), LONG))
                found += [f"text {cut!r}" for cut in cuts if cut.encode() in told]
        labels = [int(label) for label in site.site.train.labels]
        found += ["the labels"] * (repr(labels)[1:-1].encode() in told)
        for kind in ("<i8", "<i4", "<f8", "<f4", "u1"):
            found += [f"labels as {kind}"] * (np.asarray(labels, kind).tobytes() in told)
        for row in site.features("train"):
            for kind in ("<f4", "<f8"):
                found += [f"a row of features as {kind}"] * (row.astype(kind).tobytes() in told)
        return found


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
    words = (*given, f"data.path={table(tmp_path)}") if given is TEXT else given
    curious = Curious()
    ran = federate(*words, f"llm.store={tmp_path / 'store'}", spoil=curious)
    assert len(curious.seen) > 12
    for context in ran.grid.contexts.values():
        site = recall(context)
        assert len(site.site.train) > 8
        assert curious.finds(site) == []


def test_the_curious_server_would_find_what_is_told(federate: Federate) -> None:
    """The search itself: a row, labels or features put into a message are found."""
    curious = Curious()
    ran = federate(spoil=curious)
    site = recall(next(iter(ran.grid.contexts.values())))
    record = next(m for m in curious.seen if m.content.metric_records).content.metric_records
    numbers = next(iter(record.values()))
    numbers["leak"] = [int(label) for label in site.site.train.labels]
    assert curious.finds(site) == ["the labels"]
    del numbers["leak"]
    about = next(m for m in curious.seen if m.content.config_records).content.config_records
    told = next(iter(about.values()))
    told["leak"] = site.site.train.texts[0]
    assert any(one.startswith("text") for one in curious.finds(site))
    told["leak"] = site.features("train")[3].tobytes()
    assert curious.finds(site) == ["a row of features as <f4"]


# --- noise ----------------------------------------------------------------------------------------

CENTRAL = ("privacy.dp=central", "aggregation.rule=uniform", "privacy.seeded=true")


def test_central_noise_moves_the_model_by_what_was_asked(federate: Federate) -> None:
    given = ("run.rounds=1", "evaluation.keep=last", "aggregation.rule=uniform")
    plain = load_file(federate(*given).folder / "model.safetensors")
    ran = federate(*given, *CENTRAL, "privacy.noise=0.3", "privacy.clip=50")
    moved = load_file(ran.folder / "model.safetensors")["angles"] - plain["angles"]
    assert moved.std() == pytest.approx(0.3 * 50 / 3, rel=0.25)
    told = ran.summary["privacy"]["updates"]
    assert (told["dp"], told["releases"], told["delta"]) == ("central", 1, 1e-5)
    assert any("privacy" in line and "epsilon" in line for line in result(ran.summary))
    from server_app.report import write_report

    write_report(ran.folder)
    bound = f"epsilon {told['epsilon']:.3f} at delta 1e-05"
    assert f"a client&#39;s updates: {bound}" in (ran.folder / "report.html").read_text()


def test_an_update_is_clipped_before_it_is_averaged(federate: Federate) -> None:
    given = ("run.rounds=1", "evaluation.keep=last", "train.steps=20")
    ran = federate(*given, *CENTRAL, "privacy.noise=1e-9", "privacy.clip=0.01")
    first = load_file(ran.folder / "checkpoint" / "round-000" / "model.safetensors")
    last = load_file(ran.folder / "checkpoint" / "round-001" / "model.safetensors")
    moved = np.sqrt(sum(np.sum((last[k] - first[k]) ** 2) for k in first))
    assert 0.001 < moved <= 0.0101


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
        return load_file(ran.folder / "model.safetensors")["angles"]

    assert np.array_equal(model("privacy.seeded=true"), model("privacy.seeded=true"))
    assert not np.array_equal(model(), model())


def test_no_credit_is_made_of_single_models(federate: Federate) -> None:
    ran = federate(*CENTRAL, "agent.kind=greedy", "agent.price=0")
    views = ran.decisions()[1]["observation"]["clients"]
    assert {view["credit"] for view in views} == {None}


def test_a_site_with_few_rows_of_a_class_does_not_take_part(federate: Federate) -> None:
    with pytest.raises(UserError, match=r"3 of 3 clients cannot start: .*privacy.min_rows = 17"):
        federate("privacy.min_rows=17")
    assert federate("privacy.min_rows=16", "run.rounds=1").summary["status"] == "completed"


def test_noisy_moments_still_give_a_projection(federate: Federate) -> None:
    ran = federate("privacy.moment_noise=0.5", "privacy.seeded=true", "run.rounds=1")
    assert ran.summary["status"] == "completed"
    assert ran.summary["privacy"]["moments"]["epsilon"] > 0
