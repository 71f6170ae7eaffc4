"""The processes of a deployment: a SuperLink and SuperNodes, how each is started and seen.

TLS and node authentication are not options here: a part that lacks its certificate or key is
refused.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from core import (
    STORE_VARIABLE,
    DataError,
    SettingsError,
    UserError,
    atomic_write,
    parse_node,
    toml_value,
    write_once,
    write_text,
)
from llm_qfl.cli.deploy.folder import need_files, read_door, read_table
from llm_qfl.cli.deploy.keys import days_left
from llm_qfl.cli.deploy.probe import probe
from llm_qfl.cli.flower import Scalar, to_toml
from llm_qfl.cli.follow import last_words, read_log
from llm_qfl.cli.formatting import one_line
from llm_qfl.cli.plan import FILE_KEYS, absolute_paths
from llm_qfl.cli.processes import die_with_parent
from llm_qfl.cli.superlink import environment, free_port, healthy, owner_only

SUPERLINK_FILES = ("superlink.toml", "ca.crt", "server.crt", "server.key")
NODE_FILES = ("connection.toml", "node.toml", "ca.crt", "node.key")

SUPERLINK, GATE = "superlink", "gate"
"""Names of the parts that are no nodes."""

FLOWER_KEYS = ("partition-id", "num-partitions")
"""Flower's own keys in a node's config: its place among the nodes."""

MOST_LOG = 20_000_000
"""Bytes of a part's log before it begins anew: each node's questions add a line every 3 s."""

_REFUSED = "Failed to activate SuperNode"
_EXIT = re.compile(r"Exit Code: \d+\n(.+?)(?:\n\s*\n|\Z)", re.DOTALL)
_JOINED = re.compile(r"SuperNode ID: (\d+)")


@dataclass
class Part:
    """One process of a deployment, which can be started again.

    Parameters
    ----------
    name : str
        ``superlink`` or a node's.
    folder : Path
        Its folder.
    command : list of str
        Flower's program with its arguments.
    environment : Mapping
        Of the process.
    log : Path
        File that its output is added to.
    port : int
        Where it answers on this machine.
    answers : callable
        Whether it answers on a port.
    probe : callable
        Says what keeps it from the SuperLink, if that can be seen; empty otherwise.
    follows : Part, optional
        The SuperLink or SuperNode whose work it starts (`superexec`), on whatever port.
    """

    name: str
    folder: Path
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    port: int
    answers: Callable[[int], bool]
    probe: Callable[[], str] = str
    follows: Part | None = None
    process: subprocess.Popen[bytes] | None = field(init=False, default=None)
    _began: int = field(init=False, default=0)
    _node_id: str = field(init=False, default="")

    @property
    def is_node(self) -> bool:
        """Whether it is a SuperNode."""
        return self.follows is None and self.name not in (SUPERLINK, GATE)

    @property
    def of_node(self) -> bool:
        """Whether it is a SuperNode or starts a SuperNode's work."""
        return (self.follows or self).is_node

    def start(self) -> None:
        """Start the process, its output added to its log."""
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._node_id = ""
        if self.follows is not None and self.port != self.follows.port:
            self.aim(self.follows.port)
        with self.log.open("ab") as log:
            self._began = log.tell()
            self.process = subprocess.Popen(
                self.command,
                cwd=Path(self.environment["FLWR_HOME"]) / "empty",
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )

    def dead(self) -> bool:
        """Whether it does not run."""
        return self.process is None or self.process.poll() is not None

    def said(self) -> str:
        """Return its log since it was last started."""
        return read_log(self.log, self._began)

    def node_id(self) -> str:
        """Return the id under which the SuperLink has admitted this node; empty before."""
        if not self._node_id and (match := _JOINED.search(self.said())):
            self._node_id = match.group(1)
        return self._node_id

    def trim_log(self, most: int = MOST_LOG) -> None:
        """Begin the log anew when it is long, keeping the old one beside it."""
        try:
            size = self.log.stat().st_size
            if size < self._began:
                self._began = 0  # whoever shares it began it anew
            if size <= most:
                return
            older = self.log.with_name(f"{self.log.name}.1")
            atomic_write(older, lambda draft: shutil.copyfile(self.log, draft), mode=0o600)
            os.truncate(self.log, 0)  # the process adds to its end, wherever that is
        except OSError:
            return  # a full disk: the processes themselves must go on
        self._began = 0

    def aim(self, port: int) -> None:
        """Follow its server to another port."""
        where = self.command.index(f"127.0.0.1:{self.port}")
        self.port, self.command[where] = port, f"127.0.0.1:{port}"

    def ready(self) -> bool:
        """Whether it answers and, if it is a node, has been admitted."""
        return (
            not self.dead() and bool(not self.is_node or self.node_id()) and self.answers(self.port)
        )

    def port_taken(self) -> bool:
        """Whether it ended because another process listens on its port."""
        return self.dead() and "address already in use" in self.said().lower()

    def move(self) -> None:
        """Take another free port; a node's own concerns nobody else."""
        self.port = free_port()
        self.command[self.command.index("--port") + 1] = str(self.port)

    def refused(self) -> bool:
        """Whether it ended because the SuperLink did not let it in."""
        return self.dead() and _REFUSED in self.said()

    def why(self) -> str:
        """Say in one line why it ended, as far as it is known."""
        code = 0 if self.process is None else self.process.returncode or 0
        if code < 0:
            return f"killed by signal {-code}"
        if self.follows is not None and self.follows.dead():
            return f"{self.follows.name} has ended"
        if self.port_taken():
            return (
                f"port {self.port} of this machine is in use: end what uses it, or choose another"
            )
        if seen := self.probe():
            return seen
        if self.refused():
            return (
                "the SuperLink did not admit it: its key is not registered there, or it was "
                "killed within the last minute and is still thought to be running"
            )
        match = _EXIT.search(self.said())
        if self.is_node and self.dead() and not match and not self.node_id():
            return (
                "it ended before it was admitted, and Flower gives no reason: so it does when its "
                "clock is more than 5 seconds ahead of the SuperLink's or 5 minutes behind"
            )
        return one_line(match.group(1)) if match else last_words(self.said()) or "it says nothing"


def superlink_part(
    folder: Path, programs: Mapping[str, str], tag: str, port: int, log: Path
) -> Part:
    """Describe the SuperLink of a folder.

    Parameters
    ----------
    folder : Path
        ``superlink/`` of a deployment.
    programs : Mapping
        Flower's programs.
    tag : str
        Mark of the launch.
    port : int
        Port to take on loopback; 0: the folder's own, else a free one.
    log : Path
        Its log.

    Raises
    ------
    UserError
        If the folder lacks something, or its certificate has expired.
    """
    need_files(folder, SUPERLINK_FILES, "superlink/")
    _refuse_expired(folder / "server.crt")
    port = port or read_door(folder).control_port or free_port()
    command = owner_only(programs["flower-superlink"])
    command += ["--host", "127.0.0.1", "--port", str(port), *outside_work(folder)]
    for option, name in (
        ("--ssl-ca-certfile", "ca.crt"),
        ("--ssl-certfile", "server.crt"),
        ("--ssl-keyfile", "server.key"),
        ("--database", "state.db"),
    ):
        command += [option, str(folder / name)]
    command += ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
    env = environment(os.environ, flower_home(folder), tag, 1)
    env[STORE_VARIABLE] = str(folder / "store")  # ServerApps run here; home may be read-only
    authority = folder / "ca.crt"

    def answers(at: int) -> bool:
        return healthy(at, authority=authority)

    return Part(SUPERLINK, folder, command, env, log, port, answers)


def node_part(folder: Path, programs: Mapping[str, str], tag: str, address: str, log: Path) -> Part:
    """Describe the SuperNode of a folder.

    Parameters
    ----------
    folder : Path
        ``node-K/`` of a deployment.
    programs, tag, log
        As for `superlink_part`.
    address : str
        ``host:port`` of the SuperLink; empty: the folder's own.

    Raises
    ------
    UserError
        If the folder lacks something, or a data file that it names is not there.
    """
    need_files(folder, NODE_FILES, "node-K/")
    told = read_table(folder / "connection.toml", {"host": str, "port": int})
    if not address and not told["port"]:
        raise UserError(
            f"{str(folder / 'connection.toml')!r} has port = 0: a deployment on one machine",
            "the SuperLink's port",
            "make the deployment with --host, or start the whole with `llm-qfl deploy up`",
        )
    own = own_settings(folder)
    check_data(folder, own)
    resolved = flower_home(folder) / "node.toml"
    write_text(resolved, to_toml(own))
    port = free_port()
    command = [*owner_only(programs["flower-supernode"]), *outside_work(folder), "--superlink"]
    command += [address or f"{told['host']}:{told['port']}", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--root-certificates", str(folder / "ca.crt")]
    command += ["--auth-supernode-private-key", str(folder / "node.key")]
    command += ["--node-config", str(resolved)]
    threads = int(own.get("quantum.threads", 1))
    env = environment(os.environ, flower_home(folder), tag, threads)
    env[STORE_VARIABLE] = str(folder / "store")  # a site's memory is its own, also on one machine
    host, _, theirs = (address or f"{told['host']}:{told['port']}").rpartition(":")
    seen = partial(probe, host, int(theirs), folder / "ca.crt")
    return Part(folder.name, folder, command, env, log, port, healthy, seen)


def flower_home(folder: Path) -> Path:
    """Return a part's own Flower home, made if need be."""
    home = folder / "home"
    (home / "empty").mkdir(mode=0o700, parents=True, exist_ok=True)
    return home


def outside_work(folder: Path) -> list[str]:
    """Return Flower's options by which a process of ours starts the apps of a server.

    Only whoever knows the secret, a file for its owner alone, is given work; with Flower's own
    subprocesses anybody on the machine is, and one that dies is not started again.
    """
    secret = flower_home(folder) / "exec.secret"
    if not secret.exists():
        write_once(secret, secrets.token_bytes(32))
    return ["--isolation", "process", "--superexec-auth-secret-file", str(secret)]


def own_settings(folder: Path) -> dict[str, Scalar]:
    """Read a node's ``node.toml``, which its site may have edited.

    Returns
    -------
    dict
        Flat keys; relative paths are taken from the node's folder.

    Raises
    ------
    UserError
        For what is no setting of a node, or no place among the nodes.
    """
    file = folder / "node.toml"
    flat = _flat(read_table(file, {}))
    for key in FLOWER_KEYS:
        if type(flat.get(key)) is not int:
            said = f"{key} = {flat[key]!r}" if key in flat else f"no {key}"
            raise UserError(f"{said} in {str(file)!r}", "a whole number", "restore it")
    own = {key: value for key, value in flat.items() if key not in FLOWER_KEYS}
    for key, value in own.items():
        if not isinstance(value, bool | int | float | str):
            raise UserError(
                f"{key} = {value!r} in {str(file)!r}", "text or a number", "mend that line"
            )
    try:
        parse_node(f"{key}={toml_value(value)}" for key, value in own.items())
        resolved = absolute_paths(own, folder.absolute())
    except SettingsError as error:
        raise SettingsError(f"{str(file)!r}: {error}") from None
    return {**{key: flat[key] for key in FLOWER_KEYS}, **resolved}


def _flat(table: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{above}{key}."))
        else:
            flat[f"{above}{key}"] = value
    return flat


def check_data(folder: Path, own: Mapping[str, object]) -> None:
    """Refuse a node whose data is not there, before anybody waits for it.

    Raises
    ------
    DataError
        With the file that is missing.
    """
    client = str(own.get("partition-id", ""))
    for key in FILE_KEYS:
        path = str(own.get(key, "")).replace("{client}", client)
        if path and not os.path.exists(path):
            raise DataError(
                f"{key} = {path!r} of {folder.name} does not exist",
                "a file or folder of this machine",
                f"put the data there, or change {folder / 'node.toml'}",
            )


def _refuse_expired(certificate: Path) -> None:
    left = days_left(certificate)
    if left <= 0:
        raise UserError(
            f"{str(certificate)!r} expired {-left:.0f} days ago",
            "a certificate that is good",
            "make a new one: llm-qfl deploy renew FOLDER",
        )
