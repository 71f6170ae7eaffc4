"""A deployed client may be a new process for each message: training imports what it needs."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from core import read_jsonl
from core.messages import TRAIN, TrainIns, read_instruction
from tests.command import ROOT
from tests.tables import TEXT, text_table

HEAVY = (
    "transformers",
    "peft",
    "datasets",
    "pennylane",
    "sklearn",
    "bitsandbytes",
    "ray",
    "qiskit",
)

HANDLE = """
import base64, json, sys
import numpy as np
from flwr.app import Context, Message, RecordDict
from core.flower_compat import set_message_id, set_task_identity
from client_app.app import app, preload
from core.messages import (
    TRAIN,
    TrainIns,
    pack_instruction,
    TrainReport,
)
from core.received import (
    read_report,
)

given = json.loads(sys.stdin.read())
if given["spare"]:
    preload()
set_task_identity()
config = given["instruction"]
config["projection"] = base64.b64decode(config["projection"])
parameters = {name: np.asarray(value, "f4") for name, value in given["parameters"].items()}
message = Message(pack_instruction(parameters, TrainIns(**config)), 1000, TRAIN)
set_message_id(message, "m")
node = {"partition-id": 0, "num-partitions": 3}
before = set(sys.modules)
reply = app(message, Context(1, 1000, node, RecordDict(), given["settings"]))
report = read_report(reply, TrainReport)
heavy = [name for name in given["heavy"] if name in sys.modules]
added = sorted(set(sys.modules) - before)
facts = {"heavy": heavy, "added": added, "loss": report.loss, "tokens": report.llm_tokens}
print(json.dumps(facts))
"""


@pytest.mark.parametrize("spare", [False, True], ids=["new", "spare"])
@pytest.mark.parametrize("text", [False, True], ids=["dna", "text"])
def test_a_round_with_kept_teacher_and_features_loads_no_language_model(
    text: bool, spare: bool, federate: Callable[..., Any], tmp_path: Path
) -> None:
    caught: dict[str, Any] = {}

    def watch(message: Message, reply: Message) -> Message:
        if message.metadata.message_type == TRAIN and message.metadata.dst_node_id == 1000:
            parameters, instruction = read_instruction(message, TrainIns)
            caught["instruction"] = {
                **{k: v for k, v in vars(instruction).items() if k != "group"},
                "projection": base64.b64encode(instruction.projection).decode(),
            }
            caught["parameters"] = {name: array.tolist() for name, array in parameters.items()}
        return reply

    given = (*TEXT, f"data.path={text_table(tmp_path)}") if text else ()
    ran = federate(*given, "run.rounds=2", "agent.kind=all", spoil=watch)
    from core import flatten, parse_run
    from tests.conftest import SMALL

    settings, _ = parse_run([], [*SMALL, *given, "run.rounds=2", "agent.kind=all"])
    sent = json.dumps({**caught, "settings": flatten(settings), "heavy": HEAVY, "spare": spare})
    done = subprocess.run(
        [sys.executable, "-c", HANDLE],
        input=sent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["heavy"] == []
    assert found["tokens"] == 0
    if spare:  # what trains had been imported while it waited
        added = [name for name in found["added"] if name.startswith("quantum.")]
        assert added == []
    events = read_jsonl(ran.folder / "metrics.jsonl")
    last = [e["loss"] for e in events if e["event"] == "client" and e["client"] == 0][-1]
    assert found["loss"] == last  # a process of its own trains to the same numbers
