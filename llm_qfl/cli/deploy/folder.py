"""A deployment's folder: what each machine of it needs, in a folder of its own.

``ca/`` signs and stays where it was made; ``superlink/`` goes to the machine of the SuperLink,
``node-K/`` to site K, ``control/`` to whoever submits runs. Each can be copied away alone.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import SettingsError, UserError, parse_node, real_path, write_bytes, write_text
from llm_qfl.cli.deploy.keys import LOOPBACK, check_host, make_authority, make_node_key, make_server
from llm_qfl.cli.deploy.peers import FEWEST, MOST, distribute
from llm_qfl.cli.flower import to_toml
from llm_qfl.cli.plan import absolute_paths
from llm_qfl.cli.shipped import PACKAGES

Scalar = bool | int | float | str

PORT = 8000
"""Port of a SuperLink that other machines are to reach; Flower's own default."""

FACTS = Path("control") / "deployment.toml"
"""What makes a folder a deployment; written last."""

_OWN = re.compile(r"(?:(\d+):)?(.*)", re.DOTALL)


@dataclass(frozen=True)
class Options:
    """What a user asks of a deployment.

    Parameters
    ----------
    nodes : int
        SuperNodes.
    hosts : sequence of str
        Names of the SuperLink's machine as the sites know it, the first one used; empty: only
        this machine is to reach it.
    port : int
        Of the SuperLink; 0: a free one whenever it starts, or `PORT` if there are hosts.
    node_sets : sequence of str
        ``[K:]key=value``: settings of node K, or of every node.
    """

    nodes: int
    hosts: Sequence[str] = ()
    port: int = 0
    node_sets: Sequence[str] = ()


@dataclass(frozen=True)
class Facts:
    """A deployment as ``control/`` describes it.

    Parameters
    ----------
    control : Path
        The folder with ``deployment.toml`` and ``ca.crt``.
    nodes, host, port
        Number of SuperNodes, and the address that they call.
    control_port : int
        On the SuperLink's machine, for whoever submits runs; 0: see the running deployment.
    """

    control: Path
    nodes: int
    host: str
    port: int
    control_port: int

    @property
    def authority(self) -> Path:
        """Certificate by which the SuperLink is known."""
        return self.control / "ca.crt"


def make_deployment(folder: Path, options: Options) -> bool:
    """Make certificates, keys and the files of every part.

    Returns
    -------
    bool
        False if the folder holds this very deployment already; nothing is touched then.

    Raises
    ------
    UserError
        For impossible options, or a folder that holds another deployment or a half of one.
    """
    texts = _texts(folder, options)
    _refuse_bundled(folder)
    if (folder / FACTS).exists():
        _refuse_other(folder, texts)
        return False
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in texts:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "ca").mkdir(mode=0o700, exist_ok=True)
    (folder / "superlink" / "nodes").mkdir(mode=0o700, exist_ok=True)
    authority = folder / "ca" / "ca.crt", folder / "ca" / "ca.key"
    server = folder / "superlink" / "server.crt", folder / "superlink" / "server.key"
    try:
        make_authority(*authority)
        make_server(authority, *server, map(check_host, options.hosts))
        for node in range(options.nodes):
            public = folder / "superlink" / "nodes" / f"node-{node}.pub"
            make_node_key(folder / f"node-{node}" / "node.key", public)
    except FileExistsError as error:
        raise UserError(
            f"{error.filename!r} is there, but no whole deployment",
            "a new or empty folder",
            "remove what is left of the old one, or name another folder",
        ) from None
    if FEWEST <= options.nodes <= MOST:
        distribute(folder)
    for path, text in texts.items():  # the facts, which come last, make it whole
        write_bytes(path.parent / "ca.crt", authority[0].read_bytes())
        write_text(path, text)
    return True


def _refuse_bundled(folder: Path) -> None:
    """Refuse a folder in the app's checkout, with which keys would be committed or copied away.

    Raises
    ------
    SettingsError
        If the folder is inside.
    """
    if real_path(folder).is_relative_to(PACKAGES):
        raise SettingsError(
            f"{str(folder)!r} is in the app's checkout, with which its keys would travel",
            f"a folder outside {str(PACKAGES)!r}",
            "name another, for instance ~/fed",
        )


def _texts(folder: Path, options: Options) -> dict[Path, str]:
    """Return the text of every plain file of a deployment."""
    if not 1 <= options.nodes <= 1000:
        raise SettingsError(f"--nodes {options.nodes}", "1 to 1000", "choose one")
    if not 0 <= options.port <= 65534:
        raise SettingsError(
            f"--port {options.port}", "1 to 65534, or 0 for a free one", "choose one"
        )
    hosts = [check_host(host) for host in options.hosts]
    port = options.port or (PORT if hosts else 0)
    # Nodes call the first name that leads here from elsewhere, if there is one: through the gate.
    beyond = [host for host in hosts if host not in LOOPBACK]
    address: dict[str, Scalar] = {"host": [*beyond, *hosts, "127.0.0.1"][0], "port": port}
    own = _own_settings(options)
    texts: dict[Path, str] = {}
    for node in range(options.nodes):
        place = folder / f"node-{node}"
        texts[place / "connection.toml"] = to_toml(address)
        here: dict[str, Scalar] = {"partition-id": node, "num-partitions": options.nodes}
        texts[place / "node.toml"] = to_toml({**here, "site": f"node-{node}", **own[node]})
    bind = "0.0.0.0" if beyond else "127.0.0.1"
    texts[folder / "superlink" / "superlink.toml"] = to_toml({"bind": bind, "port": port})
    texts[folder / FACTS] = to_toml({"nodes": options.nodes, **address})
    return texts


def _own_settings(options: Options) -> list[dict[str, Scalar]]:
    """Sort ``[K:]key=value`` by node, later ones winning; relative paths become absolute."""
    sets: list[list[str]] = [[] for _ in range(options.nodes)]
    for text in options.node_sets:
        match = _OWN.fullmatch(text)
        index, assignment = match.groups() if match else (None, text)
        if index is not None and int(index) >= options.nodes:
            raise SettingsError(
                f"--node-set {text!r} with {options.nodes} nodes",
                f"a node from 0 to {options.nodes - 1}",
                "count the nodes from 0",
            )
        for node in range(options.nodes) if index is None else [int(index)]:
            sets[node].append(assignment)
    return [absolute_paths(parse_node(own), Path.cwd()) for own in sets]


def _refuse_other(folder: Path, texts: dict[Path, str]) -> None:
    # A machine that has one part only is held against that part only.
    for path, text in texts.items():
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise UserError(
                f"{str(folder)!r} holds another deployment: {path.relative_to(folder)} differs",
                "the options it was made with, or a new folder",
                "edit that file, or name another folder",
            )


def read_facts(folder: Path) -> Facts:
    """Read a deployment from its folder, or from a copy of its ``control/`` alone.

    Raises
    ------
    UserError
        If there is none.
    """
    for control in (folder / FACTS.parent, folder):
        if (control / FACTS.name).is_file():
            table = read_table(control / FACTS.name, {"nodes": int, "host": str, "port": int})
            control = control.absolute()
            beside = control.parent / "superlink"
            if (beside / "superlink.toml").is_file():
                port = read_endpoint(beside).control_port  # what will really be there
            else:
                port = control_port(table, table["host"] not in LOOPBACK)
            return Facts(control, table["nodes"], table["host"], table["port"], port)
    raise UserError(
        f"no deployment in {str(folder)!r}",
        "a folder made by `llm-qfl deploy init`, or its control/",
        f"make one: llm-qfl deploy init {folder} --nodes 3",
    )


@dataclass(frozen=True)
class Endpoint:
    """Where a SuperLink is reached.

    Parameters
    ----------
    bind, port
        Where nodes call: its own port, or the gate's.
    control_port : int
        On loopback, for whoever submits runs; 0: a free one whenever it starts.
    """

    bind: str
    port: int
    control_port: int

    @property
    def gated(self) -> bool:
        """Whether other machines are to reach it, through a gate."""
        return self.bind not in LOOPBACK

    @property
    def here(self) -> str:
        """Address at which this machine asks the gate."""
        return "127.0.0.1" if self.bind == "0.0.0.0" else self.bind


def read_endpoint(folder: Path) -> Endpoint:
    """Read ``superlink.toml``.

    Raises
    ------
    UserError
        If it is damaged.
    """
    table = read_table(folder / "superlink.toml", {"bind": str, "port": int})
    control = control_port(table, table["bind"] not in LOOPBACK)
    return Endpoint(table["bind"], table["port"], control)


def control_port(table: Mapping[str, Any], gated: bool) -> int:
    """Return the port on loopback for whoever submits runs.

    By itself it is the one after the gate's port, or the SuperLink's where there is no gate.
    """
    port = table.get("control_port", table["port"] + 1 if gated else table["port"])
    if type(port) is not int or not 0 <= port <= 65535:
        raise UserError(f"control_port = {port!r}", "0 to 65535", "choose a free port")
    if not gated and port != table["port"]:
        raise UserError(
            f"control_port = {port} where only this machine reaches the SuperLink",
            f"no control_port, or {table['port']} as port",
            "remove it, or bind to an address that others reach",
        )
    return port


def read_table(path: Path, wanted: dict[str, type]) -> dict[str, Any]:
    """Read a flat TOML file of ours.

    Raises
    ------
    UserError
        If it is missing or damaged, or lacks one of the wanted keys.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        wrong = [key for key, kind in wanted.items() if type(table.get(key)) is not kind]
        reason = f"{wrong[0]} = {table.get(wrong[0])!r}" if wrong else ""
    except OSError as error:
        reason = error.strerror or str(error)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = str(error)
    if reason:
        keys = ", ".join(wanted) or "TOML"
        raise UserError(f"{str(path)!r} ({reason})", f"TOML with {keys}", "restore it")
    return table


def need_files(folder: Path, names: Sequence[str], part: str) -> None:
    """Refuse a folder that is not that of a part, naming what it lacks.

    Raises
    ------
    UserError
        If a file is missing.
    """
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{str(folder)!r} lacks {', '.join(missing)}",
            f"the folder {part} of a deployment",
            "copy the whole folder that `llm-qfl deploy init` made",
        )
