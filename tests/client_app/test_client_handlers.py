"""The ClientApp's handlers: who am I, what is remembered, how a mistake is answered."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from client_app.app import app
from client_app.preparation import rows_digest
from client_app.site import STATE_KEY, forget, load_cache, note
from client_app.site_store import site_digest
from core import SettingsError, flatten, parse_run
from core.flower_compat import set_task_identity
from core.messages import (
    PREPARE,
    USER_ERROR_CODE,
)
from core.received import (
    read_site_report,
)
from data.rows import without_labels
from tests.conftest import SMALL, Federate


def context(**node: Any) -> Context:
    set_task_identity()
    settings, _ = parse_run([], list(SMALL))
    return Context(1, 1000, node, RecordDict(), dict(flatten(settings)))


def test_a_node_without_an_index_is_told_how_to_start() -> None:
    with pytest.raises(SettingsError, match=r"without partition-id.*--node-config 'partition-id=0"):
        load_cache(context())


@pytest.mark.parametrize("index", [3, -1])
def test_an_index_beyond_the_clients(index: int) -> None:
    with pytest.raises(SettingsError, match=rf"partition-id = {index} with run.clients = 3"):
        load_cache(context(**{"partition-id": index}))


def test_a_mistake_is_answered_in_one_line() -> None:
    reply = app(Message(RecordDict(), 1000, PREPARE), context(**{"partition-id": 7}))
    assert reply.has_error()
    assert reply.error.code == USER_ERROR_CODE
    assert reply.error.reason is not None
    assert "\n" not in reply.error.reason


def test_a_report_says_what_a_step_costs() -> None:
    forget()
    reply = app(Message(RecordDict(), 1000, PREPARE), context(**{"partition-id": 1, "site": "x"}))
    about, moments = read_site_report(reply)
    assert (about.client, about.site, about.train_rows, about.val_rows) == (1, "x", 32, 8)
    assert about.circuits_per_step == 32 * (1 + 2 * 60)
    assert about.circuits_fixed == 8
    assert moments["count"].tolist() == about.class_rows == [16, 16]
    assert moments["second"].shape == (136, 136)


def test_fine_tuning_is_told_in_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LLM_QFL_HOME", str(tmp_path))
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    forget()
    with caplog.at_level(logging.INFO, logger="flwr"):
        load_cache(context(**{"partition-id": 2})).teacher()
        told = list(caplog.messages)
        forget()
        caplog.clear()
        load_cache(context(**{"partition-id": 2})).teacher()
    assert re.fullmatch(r"client 2: dna-tiny: training .* \(lora on cpu, .*", told[0])
    assert re.match(r"client 2: dna-tiny: epoch 1/\d+: training loss ", told[1])
    assert len(caplog.messages) == 1
    assert "not fine-tuned again" in caplog.messages[0]


def test_memory_is_kept_within_a_run_and_not_beyond_it() -> None:
    forget()
    one = context(**{"partition-id": 0})
    assert load_cache(one) is load_cache(one)
    other_run = context(**{"partition-id": 0})
    other_run.run_id = 2
    assert load_cache(other_run) is not load_cache(one)
    load_cache(one).fresh = False
    note(one, load_cache(one))
    forget()
    assert not load_cache(one).fresh
    assert load_cache(other_run).fresh


def test_what_another_process_has_stored_since_is_used() -> None:
    """In a simulation a client's messages may meet several processes, each with a memory."""
    forget()
    node = context(**{"partition-id": 0})
    load_cache(node).stored_digest = "old"
    node.state[STATE_KEY] = ConfigRecord({"fine-tuned": True, "stored": "new", "rows": "r"})
    assert (load_cache(node).stored_digest, load_cache(node).rows) == ("new", "r")
    note(node, load_cache(node))
    assert node.state[STATE_KEY]["stored"] == "new"
    forget()


@pytest.mark.parametrize("folds", [0, 2])
def test_folds_reach_the_teacher(folds: int, tmp_path: Path) -> None:
    """Two models for two folds, each on half of the 32 rows; one on all of them without."""
    forget()
    settings, _ = parse_run([], [*SMALL, f"distill.folds={folds}", f"llm.store={tmp_path}"])
    node = context(**{"partition-id": 0})
    node.run_config = dict(flatten(settings))
    memory = load_cache(node)
    teacher, _ = memory.teacher()
    texts, tokens = memory.site.train.texts, teacher.metrics["tokens"]
    assert len(texts) == 32
    assert (teacher.folder is None) == bool(folds)
    assert tokens == sum(len(text) - 2 for text in texts)  # one epoch of overlapping 3-mers
    forget()


def test_a_round_trains_with_its_own_lambda_and_the_hidden_states(
    monkeypatch: pytest.MonkeyPatch, federate: Federate
) -> None:
    import quantum

    seen: list[tuple[float, tuple[int, ...]]] = []
    real = quantum.train_together

    def note(tasks: Any) -> Any:
        seen.extend((task.distill.weight, task.data.hidden.shape) for task in tasks)
        return real(tasks)

    monkeypatch.setattr(quantum, "train_together", note)
    given = ("distill.weight=0.5", "distill.decay=0.5", "distill.features=100")
    federate(*given, "data.train_rows=60")
    assert seen == [(0.5, (16, 128))] * 3 + [(0.25, (16, 128))] * 3


def test_an_order_says_whose_jobs_and_which_adapter() -> None:
    """A node that was started again has forgotten, and a resumed run has another id."""
    node = context(**{"partition-id": 1})
    assert load_cache(node).run == f"{node.run_id}/1"
    memory = load_cache(node, "77", "abc")
    assert (memory.run, memory.adapter_digest) == ("77/1", "abc")
    assert load_cache(node, "77") is memory


def test_other_rows_without_labels_are_other_rows() -> None:
    memory = load_cache(context(**{"partition-id": 1}))
    info, site = memory._loaded
    found = []
    for texts in ((), ("ACGT",), ("TTTT",)):
        memory.__dict__["_loaded"] = info, replace(site, unlabelled=without_labels(texts))
        found.append((rows_digest(memory), site_digest(memory.site)))
    assert len({one for one, _ in found}) == len({other for _, other in found}) == 3


def test_a_digest_of_rows_is_keyed_with_the_stores_own_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the secret nobody can test a guess of the rows against it."""
    memory, found = load_cache(context(**{"partition-id": 1})), []
    for store in ("one", "one", "other"):
        monkeypatch.setenv("LLM_QFL_HOME", str(tmp_path / store))
        found.append(rows_digest(memory).split("-"))
    assert found[0] == found[1]
    assert found[0][0] != found[2][0]
    assert found[0][1] != found[2][1]
    key = tmp_path / "one" / "rows.key"
    assert key.stat().st_mode & 0o077 == 0
