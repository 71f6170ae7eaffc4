"""A SuperLink of our own: private home, private ports, and no trace of it afterwards.

What Flower 1.41 wants, and why each switch is there, is told in `docs/cli.md`.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.follow import last_words, read_log, strip_log
from cli.outcome import read_status
from cli.processes import TAG, die_with_parent, end_all, members, wait_for
from cli.runconfig import to_toml

Scalar = bool | int | float | str

CONNECTION = "llm-qfl"
"""Name of our connection in the private Flower home."""

CHECKOUT = Path(__file__).resolve().parents[1]
"""The folder that the packages are in."""

START_SECONDS = 120.0
"""Longest wait for the SuperLink; it takes 2 s on a quiet machine."""

_STARTED = re.compile(r"Successfully started run (\d+)")


class LaunchError(RuntimeError):
    """Flower could not be started; the message is one line for the user."""


@dataclass
class SuperLink:
    """A running SuperLink with its private folder.

    Parameters
    ----------
    programs : Mapping
        Absolute paths of ``flwr`` and ``flower-superlink``.
    logs : Path
        Folder for ``superlink.log`` and ``run.log``.
    threads : int
        Threads of numerical libraries in each process.
    """

    programs: Mapping[str, str]
    logs: Path
    threads: int = 1
    tag: str = field(default_factory=lambda: uuid.uuid4().hex)
    home: Path = field(init=False)
    environment: dict[str, str] = field(init=False)
    process: subprocess.Popen[bytes] | None = field(init=False, default=None)
    commands: list[subprocess.Popen[bytes]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.home = private_folder(self.tag)
        self.environment = environment(os.environ, self.home, self.tag, self.threads)

    @property
    def log(self) -> Path:
        """Log of the SuperLink."""
        return self.logs / "superlink.log"

    @property
    def run_log(self) -> Path:
        """Log of the run: server, clients and Ray."""
        return self.logs / "run.log"

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises
        ------
        LaunchError
            If it ends or does not answer in time.
        """
        for attempt in range(3):
            port = free_port()
            self._spawn(port)
            if wait_for(lambda: self.dead() or healthy(port), START_SECONDS):  # noqa: B023
                if not self.dead():
                    self._write_connection(port)
                    return
                if attempt < 2 and "address already in use" in read_log(self.log).lower():
                    continue  # somebody took the port in between
            raise LaunchError(f"Flower's SuperLink did not start: {self.tail()}")

    def _spawn(self, port: int) -> None:
        command = [self.programs["flower-superlink"], "--insecure", "--simulation"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.home / "empty",
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us alone: we stop the run in order
                preexec_fn=die_with_parent(),
            )

    def _write_connection(self, port: int) -> None:
        connection: dict[str, Scalar] = {
            "superlink.default": CONNECTION,
            f"superlink.{CONNECTION}.address": f"127.0.0.1:{port}",
            f"superlink.{CONNECTION}.insecure": True,
        }
        (self.home / "config.toml").write_text(to_toml(connection), encoding="utf-8")

    def dead(self) -> bool:
        """Whether the SuperLink has ended."""
        return self.process is None or self.process.poll() is not None

    def tail(self) -> str:
        """Return the last line of its log."""
        return last_words(read_log(self.log)) or "its log is empty"

    def flwr(self, *words: str, log: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a ``flwr`` command against this SuperLink.

        Parameters
        ----------
        *words : str
            Its arguments.
        log : Path, optional
            File for its output; a pipe otherwise.
        """
        output: Any = subprocess.PIPE if log is None else log.open("wb")
        try:
            command = subprocess.Popen(
                [self.programs["flwr"], *words],
                cwd=self.home / "empty",
                env={**self.environment, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if log else subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
            self.commands.append(command)
            return command
        finally:
            if log is not None:
                output.close()

    def submit(
        self, app: Path, config: Mapping[str, Scalar], federation: str
    ) -> subprocess.Popen[bytes]:
        """Submit a run; the returned process writes the run's log and ends with the run."""
        file = self.home / "run-config.toml"
        file.write_text(to_toml(config), encoding="utf-8")
        words = ("run", str(app), CONNECTION, "--run-config", str(file))
        return self.flwr(*words, "--federation-config", federation, "--stream", log=self.run_log)

    def run_id(self) -> str:
        """Return the run's id once Flower has told it; empty before."""
        match = _STARTED.search(read_log(self.run_log))
        return match.group(1) if match else ""

    def stream(self, run_id: str) -> subprocess.Popen[bytes]:
        """Follow a run's log anew, from its beginning, after the first stream broke."""
        return self.flwr("log", run_id, CONNECTION, "--stream", log=self.run_log)

    def status(self, run_id: str, seconds: float = 60.0) -> tuple[str, str]:
        """Ask Flower for a run's status and its details; two empty strings if it won't say."""
        asked = self.flwr("ls", CONNECTION, "--run-id", run_id, "--format", "json")
        return read_status(_output(asked, seconds))

    def stop_run(self, run_id: str, seconds: float = 20.0) -> None:
        """Ask Flower to stop a run."""
        _output(self.flwr("stop", run_id, CONNECTION), seconds)

    def close(self, grace: float = 10.0) -> int:
        """End the SuperLink, all its children and the private folder.

        Returns
        -------
        int
            Processes that could not be ended; 0 unless the system refuses.
        """
        roots = [] if self.process is None else [self.process.pid]
        family = members(self.tag, roots)
        for command in self.commands:
            command.terminate()  # the SuperLink would wait for an open log stream
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(grace)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        left = end_all(family | members(self.tag), grace=3.0)
        for command in self.commands:
            command.wait()  # so that no zombie stays
        shutil.rmtree(self.home, ignore_errors=True)
        for log in (self.log, self.run_log):
            strip_log(log)
        return len(left)


def _output(process: subprocess.Popen[bytes], seconds: float) -> str:
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


def private_folder(tag: str) -> Path:
    """Make the launch's own folder, with a short path: Ray's sockets allow 107 characters.

    Its file ``launch`` tells `llm-qfl clean` whose it was, should we be killed.
    """
    short = Path("/tmp")
    base = short if os.access(short, os.W_OK) else Path(tempfile.gettempdir())
    home = Path(tempfile.mkdtemp(prefix="llm-qfl-", dir=base))
    (home / "empty").mkdir()  # a neutral cwd: Ray puts the cwd ahead of the app's bundle
    (home / "launch").write_text(f"{os.getpid()} {tag}", encoding="utf-8")
    return home


def environment(inherited: Mapping[str, str], home: Path, tag: str, threads: int) -> dict[str, str]:
    """Return the environment of every process of a launch.

    Parameters
    ----------
    inherited : Mapping
        The user's environment.
    home : Path
        The launch's private folder.
    tag : str
        Mark by which its processes are found again.
    threads : int
        Threads of numerical libraries.

    Returns
    -------
    dict
        A copy with Flower and Ray kept private, offline and quiet.
    """
    env = dict(inherited)
    env.pop("RAY_ADDRESS", None)  # somebody's Ray cluster is none of ours
    beside = str(Path(sys.executable).parent)
    local = "127.0.0.1,localhost"
    without_proxy = [env[name] for name in ("NO_PROXY", "no_proxy") if env.get(name)]
    env.update(
        {
            TAG: tag,
            "LLM_QFL_COMMIT": commit(),
            "PATH": os.pathsep.join([beside, env.get("PATH", os.defpath)]),
            "NO_PROXY": ",".join([*without_proxy, local]),
            "no_proxy": ",".join([*without_proxy, local]),
            "FLWR_HOME": str(home),
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "RAY_TMPDIR": str(home),
            "RAY_DEDUP_LOGS": "0",
            "RAY_COLOR_PREFIX": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            # Ray hides GPUs from workers that ask for none; the apps choose by `quantum.device`.
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "MPLBACKEND": "Agg",
            "TRANSFORMERS_VERBOSITY": "error",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        }
    )
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        env[name] = str(threads)
    return env


def commit(root: Path = CHECKOUT) -> str:
    """Return a checkout's commit, marked if files differ from it; "unknown" without git."""
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip() or "unknown"


def free_port() -> int:
    """Return a loopback port that is free just now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def healthy(port: int) -> bool:
    """Whether a SuperLink answers on the port; never through a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/health", timeout=2.0) as reply:
            return bool(200 <= reply.status < 300)
    except (urllib.error.URLError, OSError, ValueError):
        return False
