"""All that we use of Flower 1.41 and its Ray, undocumented: it may move in any release.

`tests/core/test_flower_compat.py` says in a line what has moved. Flower is imported when a
function needs it, so that the launcher can read the constants without it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt
    from flwr.app import Message

    Arrays = Sequence[npt.NDArray[Any]]

UNKNOWN_ERROR, CLIENT_RAISED, CLIENT_CRASHED = 0, 2, 8
"""Codes of error replies (``flwr.common.constant.ErrorCode``).

A client app that raised is another matter than one whose process ended.
"""

ACTOR_DIED = "ActorDiedError"
"""Ray's error in the reply of a simulated client whose process has ended."""

SIMULATION_PROGRAM = "flwr-simulation"
"""The program that a SuperLink starts for a simulation; it imports ray after the ClientApp."""

RUN_STARTED = re.compile(r"Successfully started run (\d+)")
"""What ``flwr run`` prints when the SuperLink has taken a run, with the run's id."""

SIMULATION_FAILED = "Simulation failed with exception: "
"""How the details of a failed simulation begin."""

NO_HEARTBEAT = "No heartbeat received"
"""In the details of a run whose server process ended without a word, a minute later."""

ENVIRONMENT = {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    # How often a part looks for work, seconds; by itself Flower looks once a second.
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
}
"""Switches of Flower's programs: offline, quiet, and without a second's wait for each message."""


def norm(arrays: Arrays) -> float:
    """Return the 2-norm of all arrays together."""
    from flwr.supercore.differential_privacy import get_norm

    return get_norm(list(arrays))


def clip_in_place(arrays: Arrays, bound: float) -> None:
    """Shorten arrays, all together, to a 2-norm of at most `bound`; their norm must not be 0."""
    from flwr.supercore.differential_privacy import clip_inputs_inplace

    clip_inputs_inplace(list(arrays), bound)


def add_noise_in_place(arrays: Arrays, deviation: float) -> None:
    """Add Gaussian noise, drawn from numpy's global generator, to every number."""
    from flwr.supercore.differential_privacy import add_gaussian_noise_inplace

    add_gaussian_noise_inplace(list(arrays), deviation)


def noise_deviation(multiplier: float, bound: float, updates: int) -> float:
    """Return the standard deviation of the noise on a mean of clipped updates."""
    from flwr.supercore.differential_privacy import compute_stdv

    return compute_stdv(multiplier, bound, updates)


def flower_logger() -> logging.Logger:
    """Return the logger that Flower writes all its lines to, and our apps theirs."""
    from flwr.common.logger import FLOWER_LOGGER

    return FLOWER_LOGGER


@contextmanager
def only_warnings() -> Iterator[None]:
    """Keep Flower's notes, though not its warnings, out of the log."""
    logger = flower_logger()
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def set_task_identity(run: int = 1, node: int = 1, task: int = 1) -> None:
    """Say whose messages this process builds, outside Flower's runtime: tests and benchmarks."""
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run, node, task


def set_message_id(message: Message, name: str) -> None:
    """Give a message the id that Flower's runtime would give it."""
    message.metadata.__dict__["_message_id"] = name


def set_sender(message: Message, node: int) -> None:
    """Name the node that an error reply is about: Flower may name the SuperLink instead."""
    message.metadata.__dict__["_src_node_id"] = node


def message_digest(message: Message) -> str:
    """Return the sha256 of what a message carries, the same on both sides of the connection.

    By Flower's own digests of its records, in the order of their names; of an error reply by its
    code and reason.
    """
    if message.has_error():
        carried = {"code": message.error.code, "reason": message.error.reason or ""}
    else:
        carried = {name: record.object_id for name, record in message.content.items()}
    return hashlib.sha256(json.dumps(carried, sort_keys=True).encode()).hexdigest()


class NodeRegistry:
    """The nodes that a SuperLink admits, through its Control API over TLS.

    Parameters
    ----------
    address : str
        ``host:port`` of the SuperLink.
    authority : bytes
        Certificate of the authority that signed the SuperLink's, in PEM.
    """

    def __init__(self, address: str, authority: bytes) -> None:
        from flwr.supercore.control import ControlHttpClient
        from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

        version = RuntimeVersionHttpInterceptor(component_name="flwr CLI")
        self._client = ControlHttpClient.from_server_address(
            address, insecure=False, root_certificates=authority, interceptors=[version]
        )

    def nodes(self) -> dict[bytes, int]:
        """Return the registered nodes: public key in PEM, and id.

        Raises
        ------
        ConnectionError
            If the SuperLink refuses, as the other methods too.
        """
        from flwr.proto.control_pb2 import ListNodesRequest

        listed = _call_control(self._client.ListNodes, ListNodesRequest()).nodes_info
        return {node.public_key: node.node_id for node in listed if node.status != "unregistered"}

    def register(self, key: bytes, name: str) -> None:
        """Admit the node with a public key."""
        from flwr.proto.control_pb2 import RegisterNodeRequest

        _call_control(self._client.RegisterNode, RegisterNodeRequest(public_key=key, name=name))

    def unregister(self, node_id: int) -> None:
        """Throw a node out; its key is refused from now on."""
        from flwr.proto.control_pb2 import UnregisterNodeRequest

        _call_control(self._client.UnregisterNode, UnregisterNodeRequest(node_id=node_id))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _call_control(call: Callable[[Any], Any], request: object) -> Any:
    import httpx

    try:
        return call(request)
    except httpx.HTTPStatusError as error:
        raise ConnectionError(error.response.text or str(error)) from None
    except httpx.HTTPError as error:
        raise ConnectionError(str(error)) from None


def private_ray() -> dict[str, str]:
    """Return the environment that closes one run's Ray to other users and machines.

    By itself Ray listens on every interface, and whoever reaches a port may run code as the user
    who started it. The token is fresh for each call; Ray hands it on by the environment alone.

    Returns
    -------
    dict
        Must be set before a process imports ray.
    """
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # Despite its name it also says on Linux whether Ray serves other machines.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


RAY_FILE = "LLM_QFL_RAY"
"""Environment variable: the file in which a launcher says where its Ray is, once it is up."""

RAY_RESOURCE = "LLM_QFL_RAY_RESOURCE"
"""Environment variable of a run on a cluster of the user's own; what a node must have for a client.

Empty: any node will do.
"""

RAY_SECONDS = 120.0
"""Longest wait for that file; then Flower starts a Ray of its own."""

EARLY_RAY = {
    # Workers start with Ray, not with the first message, and import what each message needs.
    "RAY_enable_worker_prestart": "1",
    "RAY_preload_python_modules": "flwr.simulation.app,torch",
}
"""Environment of a Ray that is to be ready when Flower is."""

WITH_THE_RUN = (
    *("PYTHONHASHSEED", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("MPLBACKEND", "TRANSFORMERS_VERBOSITY", "TOKENIZERS_PARALLELISM", "LLM_QFL_COMMIT"),
    *("HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_TELEMETRY", RAY_RESOURCE),
)
"""Environment that a run takes to the nodes of a cluster: its figures are those of one machine."""


def prepare_ray(app: Path) -> None:
    """Join the launcher's Ray, or close the one that plain `flwr run` is about to start here.

    Flower 1.41 loads the ClientApp before it imports ray, and starts no Ray where there is one. A
    cluster of the user's own (``RAY_ADDRESS``) and a token that he chose (``RAY_AUTH_MODE=token``)
    are left alone.

    Parameters
    ----------
    app : Path
        The app's folder, from which the workers are to import it.
    """
    if Path(sys.argv[0]).stem != SIMULATION_PROGRAM or "RAY_ADDRESS" in os.environ:
        return
    if address := _launcher_s_ray():
        _join_ray(address, app)
    elif os.environ.get("RAY_AUTH_MODE") != "token":
        os.environ.update(private_ray())


def _join_ray(address: str, app: Path) -> None:
    import ray
    from ray.job_config import JobConfig

    from_json: Any = JobConfig.from_json
    if RAY_RESOURCE in os.environ:  # other machines: the app and its environment travel
        own = {name: os.environ[name] for name in WITH_THE_RUN if name in os.environ}
        job = from_json({"runtime_env": {"working_dir": str(app), "env_vars": own}})
    else:
        job = from_json({"py_driver_sys_path": [str(app)]})
    ray.init(address, job_config=job, logging_level=logging.WARNING)


def _launcher_s_ray() -> str:
    """Return the address of the launcher's Ray when it is up; empty if there is none."""
    if RAY_FILE not in os.environ:
        return ""
    file, deadline = Path(os.environ[RAY_FILE]), time.monotonic() + RAY_SECONDS
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return file.read_text(encoding="ascii") if file.exists() else ""
