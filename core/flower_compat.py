"""All that we use of Flower 1.41 and its Ray, undocumented: it may move in any release.

`tests/core/test_flower_compat.py` says in a line what has moved. Flower is imported when a
function needs it, so that the launcher can read the constants without it.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import sys
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


def close_ray() -> None:
    """Close the Ray that plain `flwr run` is about to start in this process.

    Flower 1.41 loads the ClientApp before it imports ray. A cluster of the user's own
    (``RAY_ADDRESS``) and a token that he chose (``RAY_AUTH_MODE=token``) are left alone.
    """
    starts_ray = Path(sys.argv[0]).stem == SIMULATION_PROGRAM and "RAY_ADDRESS" not in os.environ
    if starts_ray and os.environ.get("RAY_AUTH_MODE") != "token":
        os.environ.update(private_ray())
