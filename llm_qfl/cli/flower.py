"""Flower's own command, against one SuperLink: submit, follow, ask, stop."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import write_text
from core.flower_compat import RUN_STARTED
from llm_qfl.cli.follow import read_log
from llm_qfl.cli.outcome import read_status
from llm_qfl.cli.processes import die_with_parent
from llm_qfl.cli.runconfig import to_toml

Scalar = bool | int | float | str

CONNECTION = "llm-qfl"
"""Name of our connection in a private Flower home."""


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
        """Write down where the SuperLink is.

        Parameters
        ----------
        address : str
            ``host:port``.
        authority : Path, optional
            Certificate of the authority that vouches for it; without one there is no TLS, which
            is for loopback only.
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
            Whether what it says of errors goes to the pipe too; to a log it always does.
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
        self, app: Path, config: Mapping[str, Scalar], federation: str = ""
    ) -> subprocess.Popen[bytes]:
        """Submit a run; the returned process writes the run's log and ends with the run.

        Parameters
        ----------
        app : Path
            The checkout of the Flower app.
        config : Mapping
            Run config.
        federation : str
            Federation config; a simulation's only.
        """
        file = self.home / "run-config.toml"
        write_text(file, to_toml(config))
        words = ["run", str(app), CONNECTION, "--run-config", str(file)]
        nodes = ["--federation-config", federation] if federation else []
        return self.start(*words, *nodes, "--stream", log=self.run_log)

    def run_id(self) -> str:
        """Return the run's id once Flower has told it; empty before."""
        match = RUN_STARTED.search(read_log(self.run_log))
        return match.group(1) if match else ""

    def stream(self, run_id: str) -> subprocess.Popen[bytes]:
        """Follow a run's log anew, from its beginning, after the first stream broke."""
        return self.start("log", run_id, CONNECTION, "--stream", log=self.run_log)

    def status(self, run_id: str, seconds: float = 60.0) -> tuple[str, str]:
        """Ask Flower for a run's status and its details; two empty strings if it won't say."""
        asked = self.start("ls", CONNECTION, "--run-id", run_id, "--format", "json")
        return read_status(output(asked, seconds))

    def stop_run(self, run_id: str, seconds: float = 20.0) -> bool:
        """Ask Flower to stop a run; return whether it says that it did."""
        asked = self.start("stop", run_id, CONNECTION)
        output(asked, seconds)
        return asked.returncode == 0

    def end(self) -> None:
        """End the commands that still run: a SuperLink would wait for an open log stream."""
        for command in self.commands:
            command.terminate()

    def reap(self) -> None:
        """Wait for the ended commands, so that no zombie stays."""
        for command in self.commands:
            command.wait()


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
