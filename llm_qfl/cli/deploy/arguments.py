"""The steps of `llm-qfl deploy` and their options."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_qfl.cli.deploy.folder import Options

DEPLOYMENT, PART = "the deployment's folder", "superlink/ or node-K/ of a deployment"
RUNNING = "the folder of up, superlink or node"
STEPS = (
    ("up", "make it if need be, start all of it here, and keep it running", DEPLOYMENT),
    ("init", "make certificates, keys and a folder for each part; start nothing", DEPLOYMENT),
    ("superlink", "run the SuperLink here", "its superlink/"),
    ("node", "run one SuperNode here", "its node-K/"),
    ("status", "say what runs; exit code 0 only if all is well", RUNNING),
    ("stop", "end what up, superlink or node started", RUNNING),
    ("units", "write systemd's units for the folder where it lies now", PART),
    ("start", "become one part, as a unit of systemd starts it", PART),
    ("register", "have the SuperLink that runs here admit the keys in nodes/", "its superlink/"),
    ("revoke", "throw out a node's key for good, and make it a new one", "or superlink/ alone"),
    ("renew", "make a new server certificate", DEPLOYMENT),
)
HOST = (
    "name or address of the SuperLink's machine as the sites know it; may be repeated. Without one "
    "only this machine can reach it"
)


def add_deploy(commands: Any) -> None:
    """Describe `deploy` and its steps to argparse."""
    deploy = commands.add_parser(
        "deploy",
        help="run a federation as separate processes, over TLS",
        description="A SuperLink and SuperNodes as separate processes with TLS and node "
        "authentication: all on this machine (up, stop), or each part on its own machine (init, "
        "superlink, node, units). docs/deployment.md says more.",
    )
    steps = deploy.add_subparsers(dest="step", metavar="step", required=True)
    for name, text, folder in STEPS:
        step = steps.add_parser(name, help=text)
        step.set_defaults(call=_call)
        if name == "start":
            step.add_argument("part", choices=("superlink", "node", "exec", "gate"))
        step.add_argument("folder", type=Path, metavar="FOLDER", help=folder)
        if name in ("up", "init"):
            _add_options(step)
        if name == "up":
            step.add_argument("--detach", action="store_true", help="return once all have joined")
        if name == "revoke":
            step.add_argument("node", metavar="NODE", help="its name, for instance node-1")


def _add_options(step: argparse.ArgumentParser) -> None:
    port = "of the SuperLink; 8000 with --host, else free"
    own = "a setting of node K alone, or of every node, for instance 0:quantum.backend=aer"
    step.add_argument("--nodes", type=int, metavar="N", help="number of SuperNodes")
    step.add_argument("--host", action="append", default=[], metavar="NAME", help=HOST)
    step.add_argument("--port", type=int, default=0, metavar="N", help=port)
    step.add_argument("--node-set", action="append", default=[], metavar="[K:]KEY=VALUE", help=own)


def _call(chosen: argparse.Namespace) -> int:
    from llm_qfl.cli.deploy import commands

    folder, step = chosen.folder.absolute(), getattr(commands, chosen.step)
    if chosen.step == "up":
        return int(step(folder, read_options(chosen), detach=chosen.detach))
    if chosen.step == "init":
        return int(step(folder, read_options(chosen)))
    more = {"start": ("part",), "revoke": ("node",)}.get(chosen.step, ())
    return int(step(folder, *(getattr(chosen, name) for name in more)))


def read_options(chosen: argparse.Namespace) -> Options | None:
    """Return what `up` or `init` is to make; None if no option describes it.

    Raises
    ------
    UserError
        If options of a new deployment come without their number of nodes.
    """
    from core import UserError
    from llm_qfl.cli.deploy.folder import Options

    if chosen.nodes is not None:
        return Options(chosen.nodes, tuple(chosen.host), chosen.port, tuple(chosen.node_set))
    if chosen.host or chosen.port or chosen.node_set:
        given = "--host, --port or --node-set without --nodes"
        raise UserError(given, "all or none", "add --nodes")
    return None
