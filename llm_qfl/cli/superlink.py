"""A SuperLink of our own: private home, private ports, and no trace of it afterwards.

What Flower 1.41 wants, and why each switch is there, is in `docs/cli.md`.
"""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from core import write_text
from core.flower_compat import EARLY_RAY, ENVIRONMENT, RAY_FILE, RAY_RESOURCE, private_ray
from llm_qfl.cli.children import UNICODE, LaunchError
from llm_qfl.cli.flower import Flwr, client_cores
from llm_qfl.cli.follow import last_words, read_log, strip_log
from llm_qfl.cli.processes import TAG, die_with_parent, end_all, members, wait_for
from llm_qfl.cli.shipped import known_commit

if TYPE_CHECKING:
    from llm_qfl.cli.cluster import Cluster

PRIVATE = (*private_ray(), *EARLY_RAY, "RAY_TMPDIR")
"""Environment of a Ray of the run's own."""

START_SECONDS = 120.0
"""Longest wait for the SuperLink; it takes 2 s on a quiet machine."""


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
    clients : int
        Clients of the run: so many of them at most work at a time.
    cluster : Cluster, optional
        Ray cluster of the user's own on which the clients run; None: a Ray of the run's own.
    """

    programs: Mapping[str, str]
    logs: Path
    threads: int = 1
    clients: int = 1
    cluster: Cluster | None = None
    process: subprocess.Popen[bytes] | None = field(init=False, default=None)
    ray: subprocess.Popen[bytes] | None = field(init=False, default=None)
    flwr: Flwr = field(init=False)

    def __post_init__(self) -> None:
        self.flwr = private_flwr(self.programs["flwr"], self.logs, self.threads)
        if self.cluster is not None:
            self._use(self.cluster)

    def _use(self, cluster: Cluster) -> None:
        """Let the simulation join a cluster, with the user's token for it."""
        env = {name: value for name, value in self.flwr.environment.items() if name not in PRIVATE}
        env |= {name: os.environ[name] for name in PRIVATE if name in os.environ}
        env[RAY_RESOURCE] = cluster.resource
        write_text(Path(env[RAY_FILE]), cluster.address)
        self.flwr.environment = env

    simulated: ClassVar[bool] = True
    node_logs: ClassVar[tuple[Path, ...]] = ()
    """A simulation's clients write to the run's log."""

    @property
    def log(self) -> Path:
        """Log of the SuperLink."""
        return self.logs / "superlink.log"

    @property
    def ray_log(self) -> Path:
        """What Ray says of its start; its clients' words are in the run's log."""
        return self.logs / "ray.log"

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises
        ------
        LaunchError
            If it ends or does not answer in time.
        """
        self._start_ray()
        for attempt in range(3):
            port = free_port()
            self._spawn(port)
            if wait_for(lambda: self.dead() or healthy(port), START_SECONDS):  # noqa: B023
                if not self.dead():
                    self.flwr.connect(f"127.0.0.1:{port}")
                    return
                if attempt < 2 and "address already in use" in read_log(self.log).lower():
                    continue  # somebody took the port in between
            raise LaunchError(f"Flower's SuperLink did not start: {self.tail()}")

    def _start_ray(self) -> None:
        """Start the run's Ray beside the SuperLink: it takes as long as all the others."""
        if self.cluster is not None:
            return
        cores = os.cpu_count() or 1
        used = min(cores, self.clients * client_cores(self.threads, cores))
        script = str(Path(__file__).with_name("ray_head.py"))
        file = self.flwr.environment[RAY_FILE]
        self.ray = self._popen([sys.executable, "-P", script, file, str(used)], self.ray_log)

    def _spawn(self, port: int) -> None:
        command = [*owner_only(self.programs["flower-superlink"]), "--insecure", "--simulation"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        self.process = self._popen(command, self.log)

    def _popen(self, command: Sequence[str], file: Path) -> subprocess.Popen[bytes]:
        with file.open("wb") as log:
            return subprocess.Popen(
                command,
                cwd=self.flwr.home / "empty",
                env=self.flwr.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us alone: we stop the run in order
                preexec_fn=die_with_parent(),
            )

    def dead(self) -> bool:
        """Whether the SuperLink has ended."""
        return self.process is None or self.process.poll() is not None

    def tail(self) -> str:
        """Return the last line of its log."""
        return last_words(read_log(self.log)) or "its log is empty"

    def close(self, grace: float = 10.0) -> int:
        """End the SuperLink and all its children; return how many could not be ended."""
        tag = self.flwr.environment[TAG]
        started = [process for process in (self.process, self.ray) if process is not None]
        roots = [process.pid for process in started]
        family = members(tag, roots)
        self.flwr.end()
        end_all((process for process in family if process.pid in roots), grace)
        left = end_all(family | members(tag), grace=3.0)
        for process in started:
            process.wait()
        self.flwr.clean_up()
        strip_log(self.log)
        if not last_words(read_log(self.ray_log)):
            self.ray_log.unlink(missing_ok=True)
        return len(left)


def owner_only(program: str) -> list[str]:
    """Return the words that start a server of Flower's for processes of our own user alone."""
    return [sys.executable, "-P", str(Path(__file__).with_name("owner_only.py")), program]


def private_flwr(program: str, logs: Path, threads: int = 1) -> Flwr:
    """Return the ``flwr`` command of a launch of its own, with a private home."""
    tag = uuid.uuid4().hex
    home = private_folder(tag)
    # Rows that a user's function takes from a set have one order in every process of the run.
    own = {**environment(os.environ, home, tag, threads), "PYTHONHASHSEED": "0"}
    return Flwr(program, home, own, logs / "run.log")


def private_folder(tag: str) -> Path:
    """Make the launch's own folder, with a short path: Ray's sockets allow 107 characters.

    Its file ``launch`` tells `llm-qfl clean` whose it was, should we be killed.
    """
    short = Path("/tmp")
    base = short if os.access(short, os.W_OK) else Path(tempfile.gettempdir())
    home = Path(tempfile.mkdtemp(prefix="llm-qfl-", dir=base))
    (home / "empty").mkdir()  # a neutral cwd: Ray puts the cwd ahead of the app's bundle
    write_text(home / "launch", f"{os.getpid()} {tag}")
    return home


def environment(inherited: Mapping[str, str], home: Path, tag: str, threads: int) -> dict[str, str]:
    """Return the environment of every process of a launch.

    It is a copy of the inherited one, with Flower and Ray private, offline and quiet.

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
    """
    env = dict(inherited)
    env.pop("RAY_ADDRESS", None)  # somebody's Ray cluster is none of ours
    beside = str(Path(sys.executable).parent)
    local = "127.0.0.1,localhost"
    without_proxy = [env[name] for name in ("NO_PROXY", "no_proxy") if env.get(name)]
    env.update(
        {
            TAG: tag,
            "LLM_QFL_COMMIT": known_commit(inherited),
            "PATH": os.pathsep.join([beside, env.get("PATH", os.defpath)]),
            "NO_PROXY": ",".join([*without_proxy, local]),
            "no_proxy": ",".join([*without_proxy, local]),
            "FLWR_HOME": str(home),
            **ENVIRONMENT,
            **private_ray(),
            **EARLY_RAY,
            RAY_FILE: str(home / "ray-address"),
            "RAY_TMPDIR": str(home),
            "RAY_DEDUP_LOGS": "0",
            "RAY_COLOR_PREFIX": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            # Ray hides GPUs from workers that ask for none; the apps choose by `quantum.device`.
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "MPLBACKEND": "Agg",
            **UNICODE,
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


def free_port() -> int:
    """Return a loopback port that is free just now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def healthy(port: int, host: str = "127.0.0.1", authority: Path | None = None) -> bool:
    """Whether a SuperLink or SuperNode answers on the port; never through a proxy.

    Parameters
    ----------
    port, host
        Where it listens.
    authority : Path, optional
        Certificate of the authority that must vouch for it; without one there is no TLS.
    """
    import httpx

    scheme = "http" if authority is None else "https"
    url = f"{scheme}://{host}:{port}/health"
    try:
        trusted = authority is not None and ssl.create_default_context(cafile=str(authority))
        return httpx.get(url, verify=trusted, trust_env=False, timeout=2.0).is_success
    except (httpx.HTTPError, OSError, ValueError):
        return False
