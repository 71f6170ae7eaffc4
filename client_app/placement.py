"""Which node of a Ray cluster a client runs on (`llm-qfl run --ray-resource`).

Flower's actors take any client on any node. Where a client needs a node that declares a resource,
its data for instance, an actor elsewhere hands the message on to a worker there, which stays for
the run with what it has cached.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from typing import TYPE_CHECKING, Any

from core import UserError
from core.flower_compat import RAY_RESOURCE

if TYPE_CHECKING:
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp

SHARE = 0.001
"""Of a resource, what a worker takes: it says where, not how much."""


def node_name() -> str:
    """Name this node in an error, where clients run on several; else empty."""
    if RAY_RESOURCE not in os.environ:
        return ""
    import ray

    address: Any = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return f" [on the Ray node {socket.gethostname()}, {address}]"


def handled_elsewhere(app: ClientApp, message: Message, context: Context) -> Message | None:
    """Let another node answer a message, if its client belongs there; None if it belongs here.

    Parameters
    ----------
    app : ClientApp
        What answers.
    message, context
        The message, and Flower's context of its client: takes over what the client stores.

    Raises
    ------
    UserError
        If no node that lives has the client's resource.
    """
    template = os.environ.get(RAY_RESOURCE, "")
    if not template:
        return None
    name = template.format(client=context.node_config.get("partition-id", ""))
    if _is_here(name):
        return None
    import ray

    there: Any = ray.cluster_resources()  # type: ignore[no-untyped-call]
    if not there.get(name):
        raise UserError(
            f"the Ray resource {name!r}, which no node of the cluster has any more",
            "a node that declares it",
            f"start one again: ray start --resources '{{\"{name}\": 1}}'",
        )
    reply, state = ray.get(_worker(name).answer.remote(app, message, context))
    context.state.clear()
    context.state.update(state)
    found: Message = reply
    return found


@cache
def _is_here(name: str) -> bool:
    import ray

    here = ray.get_runtime_context().get_node_id()
    nodes: Any = ray.nodes()  # type: ignore[no-untyped-call]
    return any(node["Resources"].get(name) for node in nodes if node["NodeID"] == here)


@cache
def _worker(name: str) -> Any:
    import ray

    placed = ray.remote(num_cpus=0, resources={name: SHARE})(Worker)
    return placed.options(name=f"llm-qfl {name}", get_if_exists=True).remote()


class Worker:
    """Answers the messages of clients that belong on its node."""

    def answer(self, app: ClientApp, message: Message, context: Context) -> tuple[Message, Any]:
        """Return the reply, and what the client stores of the run."""
        return app(message, context), context.state
