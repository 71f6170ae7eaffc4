"""The words of `llm-qfl deploy`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_qfl.cli.deploy.folder import Options

Commands = Any
"""What `add_subparsers` returns, which argparse does not name."""


def add_deploy(commands: Commands) -> None:
    """Describe `deploy` and its own commands."""
    deploy = commands.add_parser(
        "deploy",
        help="run a federation as separate processes, over TLS",
        description="A SuperLink and SuperNodes as separate processes with TLS and node "
        "authentication: all on this machine (up, stop), or each part on its own machine (init, "
        "superlink, node). docs/deployment.md says more.",
    )
    steps = deploy.add_subparsers(dest="step", metavar="step", required=True)
    up = _step(steps, "up", "make it if need be, start all of it here, and keep it running")
    _add_options(up)
    up.add_argument("--detach", action="store_true", help="return once all nodes have joined")
    init = _step(steps, "init", "make certificates, keys and a folder for each part; start nothing")
    _add_options(init)
    _step(steps, "superlink", "run the SuperLink here", "its superlink/")
    _step(steps, "node", "run one SuperNode here", "its node-K/")
    _step(
        steps,
        "status",
        "say what runs; exit code 0 only if all is well",
        "the folder of up, superlink or node",
    )
    _step(steps, "stop", "end what runs", "the folder of up, superlink or node")
    _step(steps, "renew", "make a new server certificate")
    revoke = _step(
        steps,
        "revoke",
        "throw out a node's key for good, and make it a new one",
        "the deployment's folder, or superlink/ alone",
    )
    revoke.add_argument("node", metavar="NODE", help="its name, for instance node-1")


def _step(
    steps: Commands, name: str, text: str, folder: str = "the deployment's folder"
) -> argparse.ArgumentParser:
    step: argparse.ArgumentParser = steps.add_parser(name, help=text)
    step.add_argument("folder", type=Path, metavar="FOLDER", help=folder)
    step.set_defaults(call=_call)
    return step


def _add_options(step: argparse.ArgumentParser) -> None:
    step.add_argument("--nodes", type=int, metavar="N", help="number of SuperNodes")
    step.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="name or address of the SuperLink's machine as the sites know it; may be repeated. "
        "Without one only this machine can reach it",
    )
    step.add_argument(
        "--port",
        type=int,
        default=0,
        metavar="N",
        help="of the SuperLink; 8000 with --host, else free",
    )
    step.add_argument(
        "--node-set",
        action="append",
        default=[],
        metavar="[K:]KEY=VALUE",
        help="a setting of node K alone, or of every node, for instance 0:quantum.backend=aer",
    )


def _call(chosen: argparse.Namespace) -> int:
    from llm_qfl.cli.deploy import commands as deploy

    step = chosen.step
    if step in ("up", "init"):
        options = read_options(chosen)
        if step == "init":
            return deploy.init(chosen.folder, options)
        return deploy.up(chosen.folder, options, detach=chosen.detach)
    if step == "revoke":
        return deploy.revoke(chosen.folder, chosen.node)
    call = {
        "superlink": deploy.superlink,
        "node": deploy.node,
        "status": deploy.status,
        "stop": deploy.stop,
        "renew": deploy.renew,
    }[step]
    return call(chosen.folder)


def read_options(chosen: argparse.Namespace) -> Options | None:
    """Return what `up` or `init` is asked to make; None if nothing is said of it.

    Raises
    ------
    UserError
        If options of a new deployment come without their number of nodes.
    """
    from core import UserError
    from llm_qfl.cli.deploy.folder import Options

    if chosen.nodes is None:
        if chosen.host or chosen.port or chosen.node_set:
            raise UserError(
                "--host, --port or --node-set without --nodes", "all or none", "add --nodes"
            )
        return None
    return Options(chosen.nodes, tuple(chosen.host), chosen.port, tuple(chosen.node_set))
