"""The parts of a deployment: the program each one is, with its arguments and environment.

A SuperLink (with the gate in front of it) and each SuperNode is a program of its own, and so is the
SuperExec beside it, which starts its apps. TLS and node authentication are not options here: a part
that lacks its certificate or key is refused.
"""

from __future__ import annotations

import base64
import contextlib
import getpass
import os
import resource
import secrets
import shutil
import signal
import socket
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from core import (
    STORE_VARIABLE,
    DataError,
    SettingsError,
    UserError,
    parse_node,
    read_json,
    write_json,
    write_once,
    write_text,
)
from core.formatting import toml_value
from llm_qfl.cli.deploy.admission import sort_keys
from llm_qfl.cli.deploy.folder import need_files, read_endpoint, read_table
from llm_qfl.cli.deploy.keys import days_left
from llm_qfl.cli.deploy.peers import settings_of
from llm_qfl.cli.flower import Scalar, to_toml
from llm_qfl.cli.plan import FILE_KEYS, absolute_paths, find_programs
from llm_qfl.cli.processes import TAG
from llm_qfl.cli.processes import alive as is_alive
from llm_qfl.cli.superlink import environment, free_port, owner_only

SUPERLINK, GATE, NODE, EXEC = "superlink", "gate", "node", "exec"
"""Kinds of parts."""

SUPERLINK_FILES = ("superlink.toml", "ca.crt", "server.crt", "server.key")
NODE_FILES = ("connection.toml", "node.toml", "ca.crt", "node.key")

FLOWER_KEYS = ("partition-id", "num-partitions")
"""Flower's own keys in a node's config: its place among the nodes."""

DESCRIPTORS = 65536
"""Open files and connections that a part may have, if the system allows it."""

WARM = sys.platform.startswith("linux")
"""Whether client processes are forks of one that has imported torch: not all systems allow it."""

BESIDE = "LLM_QFL_BESIDE"
"""Environment variable by which `up` tells a node to call the SuperLink of its own folder."""


@dataclass(frozen=True)
class Command:
    """A part's program.

    Parameters
    ----------
    words : list of str
        The program and its arguments.
    environment : dict
        Of the process.
    port : int
        Where it listens; for a SuperExec, the port of its server.
    """

    words: list[str]
    environment: dict[str, str]
    port: int


def command(kind: str, folder: Path) -> Command:
    """Check a part's folder and return its program.

    Parameters
    ----------
    kind : str
        One of `SUPERLINK`, `GATE`, `NODE` and `EXEC`.
    folder : Path
        ``superlink/`` or ``node-K/`` of a deployment, absolute.

    Raises
    ------
    UserError
        If the folder lacks something, a certificate has expired, or data are missing.
    """
    return {SUPERLINK: _superlink, NODE: _node, GATE: _gate, EXEC: _exec}[kind](folder)


def check(kind: str, folder: Path) -> None:
    """Refuse a part that cannot start, as `command` does, before any part starts."""
    if kind == NODE:
        node_settings(folder)
    elif kind != EXEC:
        command(kind, folder)


def server_kind(folder: Path) -> str:
    """Return which server a folder is made for."""
    return SUPERLINK if (folder / "superlink.toml").is_file() else NODE


def _superlink(folder: Path) -> Command:
    need_files(folder, SUPERLINK_FILES, "superlink/")
    left = days_left(folder / "server.crt")
    if left <= 0:
        raise UserError(
            f"{str(folder / 'server.crt')!r} expired {-left:.0f} days ago",
            "a certificate that is good",
            "make a new one: llm-qfl deploy renew FOLDER",
        )
    port = read_endpoint(folder).control_port or _port(folder, SUPERLINK)
    words = owner_only(find_programs()["flower-superlink"])
    words += ["--host", "127.0.0.1", "--port", str(port), *exec_secret(folder)]
    words += ["--ssl-ca-certfile", str(folder / "ca.crt")]
    words += ["--ssl-certfile", str(folder / "server.crt")]
    words += ["--ssl-keyfile", str(folder / "server.key")]
    words += ["--database", str(folder / "state.db")]
    words += ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
    return Command(words, _environment(folder), port)


def _node(folder: Path) -> Command:
    own = {**settings_of(folder), **node_settings(folder)}
    write_text(home(folder) / "node.toml", to_toml(own))
    host, theirs = superlink_address(folder, beside=BESIDE in os.environ)
    port = _port(folder, NODE)
    words = [*owner_only(find_programs("flower-supernode")["flower-supernode"])]
    words += [*exec_secret(folder), "--superlink", f"{host}:{theirs}"]
    words += ["--host", "127.0.0.1", "--port", str(port)]
    words += ["--root-certificates", str(folder / "ca.crt")]
    words += ["--auth-supernode-private-key", str(folder / "node.key")]
    words += ["--node-config", str(home(folder) / "node.toml")]
    return Command(words, _environment(folder, int(own.get("quantum.threads", 1))), port)


def _exec(folder: Path) -> Command:
    """Return what asks a server for work, and starts it; only who knows the secret gets any."""
    kind = server_kind(folder)
    port = int(running(folder, kind).get("port", 0))
    threads = 1 if kind == SUPERLINK else int(node_settings(folder).get("quantum.threads", 1))
    if kind == NODE and WARM:
        words = [sys.executable, "-P", str(Path(__file__).with_name("warm.py"))]
    else:
        words = [find_programs("flower-superexec")["flower-superexec"]]
        trust = ["--root-certificates", str(folder / "ca.crt")]
        words += trust if kind == SUPERLINK else ["--insecure"]  # a node's own port has no TLS
    words += ["--runtime-api-address", f"127.0.0.1:{port}", *exec_secret(folder)[2:]]
    return Command(words, _environment(folder, threads), port)


def _gate(folder: Path) -> Command:
    endpoint = read_endpoint(folder)
    config = folder / "gate.conf"
    if not config.exists():
        write_gate(folder)
    listens, calls = f"{endpoint.bind}:{endpoint.port}", f"127.0.0.1:{endpoint.control_port}"
    text = config.read_text(encoding="utf-8")
    if f" {listens} " not in text or f" {calls};" not in text:
        raise UserError(
            f"{str(config)!r} does not listen on {listens} and call {calls}",
            "the addresses of superlink.toml",
            f"edit one of them, or delete {config}: it is written again",
        )
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise UserError(
            "the program 'nginx' is missing, which lets other machines reach the SuperLink",
            "nginx 1.20 or newer",
            "install it, for instance with `apt install nginx-light`",
        )
    write_gate_keys(folder)
    directives = "daemon off;" + f" user {getpass.getuser()};" * (os.geteuid() == 0)
    words = [program, "-e", "stderr", "-p", f"{folder}/", "-c", str(config), "-g", directives]
    return Command(words, _environment(folder), endpoint.port)


def write_gate(folder: Path) -> None:
    """Write nginx's configuration for the ports of a SuperLink's folder."""
    endpoint = read_endpoint(folder)
    facts = {"bind": endpoint.bind, "port": endpoint.port, "control_port": endpoint.control_port}
    _render("gate.conf", folder / "gate.conf", **facts)


def _render(template: str, path: Path, **facts: object) -> None:
    from jinja2 import Template

    text = Path(__file__).with_name(template).read_text(encoding="utf-8")
    write_text(path, Template(text, keep_trailing_newline=True).render(**facts))


def write_gate_keys(folder: Path) -> None:
    """Tell the gate whose calls to pass on, also one that runs."""
    keys = (base64.b64encode(key).decode() for key in sort_keys(folder)[0])
    (home(folder) / "gate").mkdir(mode=0o700, exist_ok=True)
    write_text(home(folder) / "gate" / "keys.conf", "".join(f'"{key}" 1;\n' for key in keys))
    if gate := running(folder, GATE):
        os.kill(gate["pid"], signal.SIGHUP)


def write_unit(name: str, kind: str, folder: Path, server: str = "") -> Path:
    """Write systemd's unit file of a part, for its folder where it lies now.

    Parameters
    ----------
    name, kind, folder
        Of the part.
    server : str, optional
        Name of the part that it starts and ends with.
    """
    path = folder / "systemd" / f"llm-qfl-{name}.service"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    register = _call("register", str(folder)) if kind == SUPERLINK else ""
    facts = {"name": name, "folder": folder, "server": server and f"llm-qfl-{server}.service"}
    facts |= {"start": _call("start", kind, str(folder)), "register": register}
    _render("part.service", path, user=getpass.getuser(), descriptors=DESCRIPTORS, **facts)
    return path


def _call(*words: str) -> str:
    """Write a command of `llm-qfl deploy` as systemd reads it."""
    whole = (sys.executable, "-P", "-m", "llm_qfl.cli", "deploy", *words)
    escaped = (word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") for word in whole)
    return " ".join(f'"{word}"' for word in escaped).replace("$", "$$")


def start_part(kind: str, folder: Path) -> None:
    """Become a part: this process goes on as its program.

    Raises
    ------
    UserError
        As `command`.
    """
    made = command(kind, folder)
    note_running(folder, kind, made.port)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = DESCRIPTORS if most == resource.RLIM_INFINITY else min(DESCRIPTORS, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    os.chdir(home(folder) / "empty")
    os.execve(made.words[0], made.words, made.environment)


def note_running(folder: Path, kind: str, port: int) -> None:
    """Record this process as a part, for its SuperExec, `deploy status` and `run --on`."""
    record = {"pid": os.getpid(), "start": psutil.Process().create_time(), "port": port}
    write_json(home(folder) / f"{kind}.json", record)


def running(folder: Path, kind: str) -> dict[str, Any]:
    """Return the record of a part; empty if it does not run."""
    return alive(read_json(folder / "home" / f"{kind}.json"))


def alive(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record of a process if that very process still runs, else nothing."""
    try:
        process = psutil.Process(int(record.get("pid") or -1))
        same = process.create_time() == record.get("start")
    except (psutil.Error, ValueError):
        return {}
    return record if same and is_alive(process) else {}


def home(folder: Path) -> Path:
    """Return a part's own Flower home, made if need be."""
    path = folder / "home"
    (path / "empty").mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _port(folder: Path, kind: str) -> int:
    """Return the port that a part had before, where others still call it, or a free one."""
    port = int(read_json(folder / "home" / f"{kind}.json").get("port", 0))
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return port or free_port()
    return free_port()


def exec_secret(folder: Path) -> list[str]:
    """Return Flower's options by which only a SuperExec that knows a secret is given work."""
    secret = home(folder) / "exec.secret"
    if not secret.exists():
        write_once(secret, secrets.token_bytes(32))
    return ["--isolation", "process", "--superexec-auth-secret-file", str(secret)]


def _environment(folder: Path, threads: int = 1) -> dict[str, str]:
    # Each part has a store of its own, also on one machine.
    made = environment(os.environ, home(folder), os.environ.get(TAG) or uuid.uuid4().hex, threads)
    return {**made, STORE_VARIABLE: str(folder / "store")}


def superlink_address(folder: Path, *, beside: bool = False) -> tuple[str, int]:
    """Return the host and the port at which a node calls its SuperLink.

    Parameters
    ----------
    folder : Path
        The node's.
    beside : bool
        Whether that is the SuperLink of the same folder, called on loopback and not by its gate.

    Raises
    ------
    UserError
        If its port is only known while it runs, and it does not run.
    """
    address = read_table(folder / "connection.toml", {"host": str, "port": int})
    if address["port"] and not beside:
        return address["host"], address["port"]
    port = running(folder.parent / SUPERLINK, SUPERLINK).get("port")
    if not port:
        raise UserError(
            f"{str(folder / 'connection.toml')!r} has port = 0: a deployment on one machine",
            "the SuperLink's port",
            "make the deployment with --host, or start the whole with `llm-qfl deploy up`",
        )
    return "127.0.0.1", int(port)


def node_settings(folder: Path) -> dict[str, Scalar]:
    """Check a node's folder and read its ``node.toml``, which its site may have edited.

    Returns
    -------
    dict
        Flat keys; relative paths are taken from the node's folder.

    Raises
    ------
    UserError
        For what is no setting of a node, or no place among the nodes; if a file is missing.
    """
    need_files(folder, NODE_FILES, "node-K/")
    file = folder / "node.toml"
    flat = _flat(read_table(file, {}))
    for key in FLOWER_KEYS:
        if type(flat.get(key)) is not int:
            found = f"{key} = {flat[key]!r}" if key in flat else f"no {key}"
            raise UserError(f"{found} in {str(file)!r}", "a whole number", "restore it")
    place = {key: flat.pop(key) for key in FLOWER_KEYS}
    for key, value in flat.items():
        if not isinstance(value, bool | int | float | str):
            raise UserError(
                f"{key} = {value!r} in {str(file)!r}", "text or a number", "correct that line"
            )
    try:
        parse_node(f"{key}={toml_value(value)}" for key, value in flat.items())
        own = {**place, **absolute_paths(flat, folder.absolute())}
    except SettingsError as error:
        raise SettingsError(f"{str(file)!r}: {error}") from None
    for key in FILE_KEYS:
        path = str(own.get(key, "")).replace("{client}", str(own["partition-id"]))
        if path and not os.path.exists(path):
            raise DataError(
                f"{key} = {path!r} of {folder.name} does not exist",
                "a file or folder of this machine",
                f"put the data there, or change {file}",
            )
    return own


def _flat(table: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        nested = isinstance(value, dict)
        flat |= _flat(value, f"{above}{key}.") if nested else {f"{above}{key}": value}
    return flat
