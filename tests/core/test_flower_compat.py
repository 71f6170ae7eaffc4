"""What Flower does not document is still where `core.flower_compat` looks for it."""

import ast
import importlib
import logging
import re
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from core import flower_compat
from tests.command import ROOT

MOVED = "Flower moved or changed this; adapt core/flower_compat.py: {}"

PUBLIC = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.serverapp.strategy"}
PUBLIC |= {"flwr.common.logger"}  # its documentation imports `log` from there


def installed(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@pytest.fixture(scope="module")
def flower_source() -> str:
    files = installed("flwr").rglob("*.py")
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


@pytest.mark.parametrize(
    "text",
    [
        "Successfully started run ",
        flower_compat.SIMULATION_FAILED,
        flower_compat.NO_HEARTBEAT,
        *flower_compat.ENVIRONMENT,
    ],
)
def test_texts_and_switches_are_in_flowers_source(text: str, flower_source: str) -> None:
    assert text in flower_source, MOVED.format(text)


def test_the_started_line_gives_the_run_id() -> None:
    found = flower_compat.RUN_STARTED.search("Successfully started run 123")
    assert found is not None
    assert found.group(1) == "123"


def test_the_program_of_a_simulation() -> None:
    names = {script.name for script in entry_points(group="console_scripts")}
    assert flower_compat.SIMULATION_PROGRAM in names, MOVED.format("SIMULATION_PROGRAM")


def test_error_codes() -> None:
    from flwr.common.constant import ErrorCode

    ours = flower_compat.UNKNOWN_ERROR, flower_compat.CLIENT_RAISED, flower_compat.CLIENT_CRASHED
    theirs = (
        ErrorCode.UNKNOWN,
        ErrorCode.CLIENT_APP_RAISED_EXCEPTION,
        ErrorCode.CLIENT_APP_CRASHED,
    )
    assert ours == theirs, MOVED.format("error codes")
    errors = (installed("ray") / "exceptions.py").read_text(encoding="utf-8")
    assert f"class {flower_compat.ACTOR_DIED}(" in errors, MOVED.format("ACTOR_DIED, Ray's name")


def test_clipping_and_noise() -> None:
    arrays = [np.array([3.0]), np.array([4.0])]
    assert flower_compat.norm(arrays) == pytest.approx(5), MOVED.format("norm")
    flower_compat.clip_in_place(arrays, 1.0)
    assert np.concatenate(arrays) == pytest.approx([0.6, 0.8]), MOVED.format("clip_in_place")
    assert flower_compat.noise_deviation(2.0, 3.0, 4) == pytest.approx(1.5)
    state = np.random.get_state()  # noqa: NPY002 - Flower draws from the global generator
    flower_compat.add_noise_in_place(arrays, 1.0)
    np.random.set_state(state)  # noqa: NPY002
    drawn = np.random.normal(0, 1.0, 1)  # noqa: NPY002
    assert arrays[0] == pytest.approx(0.6 + drawn), MOVED.format("add_noise_in_place")


def test_the_logger_can_be_kept_to_warnings() -> None:
    from flwr.common.logger import log

    logger, seen = flower_compat.flower_logger(), list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        with flower_compat.only_warnings():
            log(logging.INFO, "a note")
            log(logging.WARNING, "a warning")
    finally:
        logger.removeHandler(handler)
    assert seen == ["a warning"], MOVED.format("flower_logger")


def test_messages_outside_flowers_runtime() -> None:
    from flwr.app import Error, Message, RecordDict

    flower_compat.set_task_identity(run=4, node=5)
    try:
        message = Message(RecordDict(), 7, "train")
        assert (message.metadata.run_id, message.metadata.src_node_id) == (4, 5), MOVED.format(
            "set_task_identity"
        )
    finally:
        flower_compat.set_task_identity()
    flower_compat.set_message_id(message, "m1")
    assert message.metadata.message_id == "m1", MOVED.format("set_message_id")
    reply = Message(Error(flower_compat.UNKNOWN_ERROR, "lost"), reply_to=message)
    assert reply.metadata.reply_to_message_id == "m1", MOVED.format("set_message_id")
    flower_compat.set_sender(reply, 9)
    assert reply.metadata.src_node_id == 9, MOVED.format("set_sender")


def test_ray_takes_the_app_s_folder_and_flower_a_ray_that_is_there() -> None:
    from ray.job_config import JobConfig

    job = JobConfig.from_json({"py_driver_sys_path": ["/app"]})  # type: ignore[no-untyped-call]
    assert job._py_driver_sys_path == ["/app"], MOVED.format("py_driver_sys_path, Ray's name")
    backend = installed("flwr") / "server/superlink/fleet/vce/backend/raybackend.py"
    assert "if not ray.is_initialized():" in backend.read_text(encoding="utf-8"), MOVED.format(
        "RayBackend, which takes a Ray that is there"
    )
    raylet = (installed("ray") / "core/src/ray/raylet/raylet").read_bytes()
    for name in flower_compat.EARLY_RAY:
        assert name.removeprefix("RAY_").encode() in raylet, MOVED.format(name)


def test_the_registry_of_nodes() -> None:
    from flwr.proto.node_pb2 import NodeInfo
    from flwr.supercore.control import ControlHttpClient

    for name in ("ListNodes", "RegisterNode", "UnregisterNode", "close"):
        assert hasattr(ControlHttpClient, name), MOVED.format(name)
    fields = set(NodeInfo.DESCRIPTOR.fields_by_name)
    assert {"public_key", "node_id", "status"} <= fields, MOVED.format("NodeInfo")


WARM = ROOT / "llm_qfl/cli/deploy/warm.py"
"""Forks take our packages from a run's bundle, so it cannot import `core.flower_compat`."""


def test_what_client_processes_are_forked_with() -> None:
    imports = [n for n in ast.walk(ast.parse(WARM.read_text())) if isinstance(n, ast.ImportFrom)]
    ours = [node for node in imports if (node.module or "").startswith("flwr.")]
    assert len(ours) >= 9
    for node in ours:
        module = importlib.import_module(node.module or "")
        for name in node.names:
            assert hasattr(module, name.name), MOVED.format(f"{node.module}.{name.name}")


def test_no_other_module_reaches_into_flower() -> None:
    imported = re.compile(r"^\s*(?:from|import) (flwr[\w.]*)", re.MULTILINE)
    private = re.compile(r"__dict__\[\"_|FLOWER_LOGGER|from flwr\.\S+ import _")
    folders = "bench client_app core data llm llm_qfl quantum reporting server_app strategies"
    for folder in folders.split():
        for path in (ROOT / folder).rglob("*.py"):
            if path.name != "flower_compat.py" and path != WARM:
                text = path.read_text(encoding="utf-8")
                assert set(imported.findall(text)) <= PUBLIC, path
                assert not private.search(text), path
