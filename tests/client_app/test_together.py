"""Participants of one process train together: nothing but the time differs from one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message

import quantum
from bench.grid import InProcessGrid
from client_app.app import app
from client_app.process_cache import MOST_SITES
from client_app.site import forget, load_cache
from core import Settings, UserError, flatten, parse_run
from core.messages import TRAIN, TrainIns, pack_instruction, unpack_parameters
from data import loading
from llm_qfl.process import FIRST_NODE
from quantum.engines.pauli.compiled import kernels
from tests.conftest import SMALL, Federate

TIMES = ("seconds", "idle", "time", "folder")


def alone(message: Message, context: Context) -> Message:
    """Answer as our app; the grid does not know that it is ours."""
    return app(message, context)


def untimed(value: Any) -> Any:
    """Return a value without what is measured by a clock."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not any(word in k for word in TIMES)}
        return {key: untimed(one) for key, one in kept.items()}
    return [untimed(one) for one in value] if isinstance(value, list) else value


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note how many clients each launch trains that trains several."""
    seen: list[int] = []
    real = quantum.train_together

    def note(tasks: Any) -> Any:
        seen.extend([len(tasks)] * (len(tasks) > 1))
        return real(tasks)

    monkeypatch.setattr(quantum, "train_together", note)
    return seen


def test_loading_compiled_functions_is_no_training(
    federate: Federate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first client of a process would else have trained hundreds of times as long."""
    loaded: list[bool] = []
    real = quantum.train_together

    def note(tasks: Any) -> Any:
        module = kernels()
        loaded.append(bool(module.train_lanes.signatures and module.evaluate_lanes.signatures))
        return real(tasks)

    monkeypatch.setattr(quantum, "train_together", note)
    kernels.cache_clear()  # as a new process
    federate("distill.weight=0", "agent.kind=all", "run.rounds=1")
    assert loaded == [True]


@pytest.mark.parametrize(
    ("given", "together"),
    [
        (("llm.model=tfidf",), [3, 3]),
        (("train.batch_rows=8", "train.proximal=0.1", "train.class_weights=balanced"), [3, 3]),
        (("quantum.backend=exact,pennylane:default.qubit,exact",), [2, 2]),
        (("quantum.backend=aer,exact,exact", "train.warm_rounds=1", "hardware.shots=64"), [3, 2]),
        (
            (
                "evaluation.mode=federated",
                "data.server_rows=0",
                "privacy.dp=local",
                "privacy.seeded=true",
            ),
            [3, 3],
        ),
        (("train.optimizer=spsa",), [3, 3]),
    ],
)
def test_a_run_is_the_same_to_the_last_digit(
    federate: Federate, launches: list[int], given: tuple[str, ...], together: list[int]
) -> None:
    settings = ("distill.weight=0", "agent.kind=all", *given)
    if "llm.model=tfidf" in given:
        settings = ("agent.kind=all", *given, "llm.reuse=false", "llm.epochs=3")
    first, second = federate(*settings), federate(*settings, client_app=alone)
    assert launches == together  # of the first run only
    for name in ("metrics.jsonl", "agent.jsonl"):
        lines = [
            [untimed(json.loads(line)) for line in (ran.folder / name).read_text().splitlines()]
            for ran in (first, second)
        ]
        assert lines[0] == lines[1]
    assert untimed(first.summary) == untimed(second.summary)
    models = [(ran.folder / "model.safetensors").read_bytes() for ran in (first, second)]
    assert models[0] == models[1]


def instructions(grid: InProcessGrid, settings: Settings, steps: list[int]) -> list[Message]:
    """Return a training message for each client."""
    from data import fit_projection, load_federation, moments_of, raw_features

    server, sites = load_federation(settings)
    rows = sites[0].train
    features = raw_features(
        rows.texts, "dna", settings.features, lambda texts: np.zeros((0, 0), np.float32)
    )
    projection = fit_projection(moments_of(features, rows.labels, 2), 4, "lda", 0.1, 3.0, 0)
    start = quantum.build_classifier(settings.quantum, len(server.classes)).initial(0)
    return [
        Message(
            pack_instruction(
                dict(start),
                TrainIns(1, count, 0, [1.0, 1.0], projection.to_bytes(), "none", "none", False),
            ),
            FIRST_NODE + client,
            TRAIN,
        )
        for client, count in enumerate(steps)
    ]


def small_grid(*given: str, **more: Any) -> tuple[InProcessGrid, Settings]:
    forget()
    settings, _ = parse_run([], [*SMALL, "distill.weight=0", "agent.kind=all", *given])
    return InProcessGrid(app, flatten(settings), settings.run.clients, **more), settings


def test_one_clients_error_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its training, and before: client 0 is told of features that nobody has."""
    grid, settings = small_grid()
    messages = instructions(grid, settings, [2, 3, 4])
    expected = list(grid.send_and_receive(messages))
    config = messages[0].content.config_records["config"]
    config["projection"] = b"no projection"
    real = quantum.train_together

    def failing(tasks: Any) -> Any:
        return [UserError("a loss that is not finite"), *real(tasks)[1:]]

    monkeypatch.setattr(quantum, "train_together", failing)
    replies = list(grid.send_and_receive(messages))
    assert [reply.has_error() for reply in replies] == [True, True, False]
    by_itself = grid.ask(messages[0])
    assert by_itself is not None
    assert replies[0].error.reason == by_itself.error.reason
    assert "a loss that is not finite" in str(replies[1].error.reason)
    found, wanted = (
        unpack_parameters(one.content.array_records["arrays"]) for one in (replies[2], expected[2])
    )
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_seconds_are_shared_out_by_steps_and_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    from client_app import work

    grid, settings = small_grid()
    shares: list[float] = []
    real: Callable[..., Any] = work.train_round

    def note(cache: Any, begun: Any, instruction: Any, outcome: Any) -> Any:
        shares.append(outcome.seconds)
        return real(cache, begun, instruction, outcome)

    monkeypatch.setattr("client_app.app.train_round", note)
    list(grid.send_and_receive(instructions(grid, settings, [1, 2, 4])))
    assert np.allclose(np.array(shares) / shares[0], [1, 2, 4])


def test_a_reply_can_be_spoiled_and_nothing_waits_for_the_next_round(launches: list[int]) -> None:
    from client_app.together import _waiting

    class Lossy(InProcessGrid):
        def ask(self, message: Message) -> Message | None:
            gone = message.metadata.dst_node_id == FIRST_NODE  # before it has arrived
            return None if gone else super().ask(message)

    def lost(message: Message, reply: Message) -> Message | None:
        return None if message.metadata.dst_node_id == FIRST_NODE + 1 else reply

    grid, settings = small_grid()
    lossy = Lossy(app, flatten(settings), 3, spoil=lost)
    assert len(list(lossy.send_and_receive(instructions(grid, settings, [1, 1, 1])))) == 1
    assert launches == [3]
    assert not _waiting
    assert [client for kind, client in lossy.log if kind == TRAIN] == [1, 2]


def test_a_process_reads_a_shared_data_set_once_and_forgets_no_site(
    federate: Federate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A 33rd client used to push the first one out, which then fine-tuned again."""
    reads: list[int] = []
    real = loading._share_out

    def note(settings: Settings, clients: int) -> Any:
        reads.append(clients)
        return real(settings, clients)

    monkeypatch.setattr(loading, "_share_out", note)
    clients = MOST_SITES + 4
    ran = federate(
        f"run.clients={clients}",
        f"data.train_rows={20 * clients}",
        "llm.model=tfidf",
        "agent.kind=all",
        "llm.reuse=false",
        "llm.epochs=3",
        f"llm.store={tmp_path / 'store'}",
    )
    assert reads == [clients] * 3  # for all sites, and for the server's choice and evaluations
    rounds = [
        [event["llm_tokens"] or event["llm_seconds"] > 1e-4 for event in ran.events("client")][
            part * clients : (part + 1) * clients
        ]
        for part in (0, 1)
    ]
    assert all(rounds[0])
    assert not any(rounds[1])
    assert not (tmp_path / "store" / "rounds").exists()  # no other process will look for it


def test_settings_of_a_site_are_its_own() -> None:
    """What all nodes have alike is parsed once; 1 and True are not alike."""
    grid, _ = small_grid(node_configs={1: {"llm.device": "cpu"}})
    found = [load_cache(context).settings for context in grid.contexts.values()]
    assert [one.llm.device for one in found] == ["auto", "cpu", "auto"]
    assert found[0] is found[2]


def test_only_who_trains_fine_tunes_a_teacher(federate: Federate, tmp_path: Path) -> None:
    ran = federate(
        "run.rounds=1",
        "llm.model=tfidf",
        "llm.epochs=3",
        "agent.kind=random",
        "agent.fraction=0.3",
        f"llm.store={tmp_path / 'store'}",
    )
    assert len(ran.events("client")) == 1
    assert len([*(tmp_path / "store" / "teachers").glob("[!.]*")]) == 1
