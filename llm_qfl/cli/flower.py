"""Flower's own command, against one SuperLink: submit, follow, ask, stop."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import write_text
from core.flower_compat import RUN_STARTED
from core.formatting import toml_value
from llm_qfl.cli.follow import read_log, strip_log
from llm_qfl.cli.processes import die_with_parent
from llm_qfl.cli.shipped import app_folder

Scalar = bool | int | float | str

CONNECTION = "llm-qfl"
"""Name of our connection in a private Flower home."""


def to_toml(config: Mapping[str, Scalar]) -> str:
    """Write flat dotted keys and their values as TOML, a line each.

    A file is the only form in which Flower takes every string unharmed: on its command line it
    splits `key=value` pairs with a regular expression that knows no escapes.

    Examples
    --------
    >>> print(to_toml({"run.rounds": 3, "run.name": "demo"}), end="")
    run.rounds = 3
    run.name = "demo"
    """
    return "".join(f"{key} = {toml_value(value)}\n" for key, value in config.items())


def client_cores(threads: int, cores: int) -> int:
    """Return how many cores Ray reserves for a client.

    As many as it has Torch threads, but no more than the machine has: a client would wait for them
    for ever.
    """
    return max(1, min(threads, cores))


def federation_config(clients: int, threads: int, cores: int) -> str:
    """Write Flower's federation config of a simulation."""
    share = client_cores(threads, cores)
    return f"num-supernodes={clients} client-resources-num-cpus={share}"


@dataclass
class Flwr:
    """The ``flwr`` command with a private home that knows one SuperLink.

    Parameters
    ----------
    program : str
        Absolute path of ``flwr``.
    home : Path
        Its home (``FLWR_HOME``), with an empty folder ``empty`` to stand in.
    environment : Mapping
        Environment of the command.
    run_log : Path
        File for a run's log.
    """

    program: str
    home: Path
    environment: Mapping[str, str]
    run_log: Path
    commands: list[subprocess.Popen[bytes]] = field(init=False, default_factory=list)

    def connect(self, address: str, authority: Path | None = None) -> None:
        """Record where the SuperLink is: its ``host:port``, and the certificate of its authority.

        Without an authority there is no TLS, which is for loopback only.
        """
        here = f"superlink.{CONNECTION}"
        connection: dict[str, Scalar] = {
            "superlink.default": CONNECTION,
            f"{here}.address": address,
        }
        if authority is None:
            connection[f"{here}.insecure"] = True
        else:
            connection[f"{here}.root-certificates"] = str(authority.absolute())
        write_text(self.home / "config.toml", to_toml(connection))

    def start(
        self, *words: str, log: Path | None = None, errors: bool = False
    ) -> subprocess.Popen[bytes]:
        """Start a ``flwr`` command.

        Parameters
        ----------
        *words : str
            Its arguments.
        log : Path, optional
            File for its output; a pipe otherwise.
        errors : bool
            Whether its errors go to the pipe too; to a log they always do.
        """
        output: Any = subprocess.PIPE if log is None else log.open("wb")
        try:
            command = subprocess.Popen(
                [self.program, *words],
                cwd=self.home / "empty",
                env={**self.environment, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if log or errors else subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
            self.commands.append(command)
            return command
        finally:
            if log is not None:
                output.close()

    def submit(
        self, config: Mapping[str, Scalar], files: Mapping[str, Path], federation: str = ""
    ) -> subprocess.Popen[bytes]:
        """Submit a run; the returned process writes the run's log and ends with the run.

        Only a simulation has a federation config; `files` of the user's own travel with the run.
        """
        file = self.home / "run-config.toml"
        write_text(file, to_toml(config))
        words = ["run", str(app_folder(self.home, files)), CONNECTION, "--run-config", str(file)]
        nodes = ["--federation-config", federation] if federation else []
        return self.start(*words, *nodes, "--stream", log=self.run_log)

    def run_id(self) -> str:
        """Return the run's id once Flower has printed it; empty before."""
        match = RUN_STARTED.search(read_log(self.run_log))
        return match.group(1) if match else ""

    def stream(self, run_id: str) -> subprocess.Popen[bytes]:
        """Follow a run's log anew, from its beginning, after the first stream broke."""
        return self.start("log", run_id, CONNECTION, "--stream", log=self.run_log)

    def status(self, run_id: str, seconds: float = 60.0) -> tuple[str, str]:
        """Ask Flower for a run's status and its details; two empty strings without an answer."""
        command = self.start("ls", CONNECTION, "--run-id", run_id, "--format", "json")
        return read_status(output(command, seconds))

    def stop_run(self, run_id: str, seconds: float = 20.0) -> bool:
        """Ask Flower to stop a run; return whether it confirms that."""
        command = self.start("stop", run_id, CONNECTION)
        output(command, seconds)
        return command.returncode == 0

    def end(self) -> None:
        """End the commands that still run: a SuperLink would wait for an open log stream."""
        for command in self.commands:
            command.terminate()

    def clean_up(self) -> None:
        """Wait for the ended commands, and remove the private home."""
        for command in self.commands:
            command.wait()
        shutil.rmtree(self.home, ignore_errors=True)
        strip_log(self.run_log)


def output(process: subprocess.Popen[bytes], seconds: float) -> str:
    """Return what a command prints; empty if it takes longer than `seconds`."""
    try:
        text, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return ""
    except BaseException:
        process.kill()  # interrupted while waiting: nobody reads the answer any more
        raise
    return text.decode("utf-8", errors="replace")


def read_status(answer: str) -> tuple[str, str]:
    """Read ``status`` and ``status-details`` of ``flwr ls --run-id ID --format json``.

    Anything before the first brace is passed over; both are empty if the rest cannot be read.
    """
    try:
        run = json.loads(answer[answer.index("{") :])["runs"][0]
        return str(run["status"]), str(run.get("status-details", ""))
    except (ValueError, KeyError, IndexError, TypeError):
        return "", ""
