"""Start a node's client processes by fork from one that has imported what they need.

``python -P warm.py --runtime-api-address HOST:PORT --superexec-auth-secret-file FILE`` stands in
for ``flower-superexec`` beside a SuperNode. Like that it asks for messages and gives each a process
of its own, which goes on as ``flwr-clientapp``. But a new Python process needs 2.5 s of a core for
Flower and torch, and a fork has them. Between two messages of a run, a spare fork also imports the
run's app; it serves one message, and none of another bundle.

None of our packages is imported here: a process takes them from the bundle of its run.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

MODULES = (
    "flwr.supernode.cli.flwr_clientapp",
    "numba",
    "numpy",
    "pydantic",
    "scipy.linalg.cython_blas",  # numba takes it when it compiles
    "torch",
)
"""What every client process needs, or takes long to import; without code of a run's."""

BUSY_POLL, IDLE_POLL = 0.1, 0.5
"""Seconds between two questions for a message: while one is expected, and otherwise."""

BUSY_SECONDS = 30.0
"""How long a message is expected after the last."""

SPARE_SECONDS = 1.0
"""From a process's end until its successor is made: other nodes of this machine work till then."""

SETTLE_SECONDS = 0.2
"""Wait before a message is served. A SuperNode offers it before it has it; who asks too early is to
ask again a second later. The answer is looked for every 0.5 s: sooner would seldom be quicker."""

NAME, SPARE_NAME = b"flwr-clientapp", b"flwr-spare"
"""What `top` and `ps -o comm` show of a client process, and of one that waits for a message."""

_SET_DUMPABLE, _SET_NAME = 4, 15  # <linux/prctl.h>


class Task(NamedTuple):
    """What a SuperNode gives out: the right to one message (empty: there is none), and its app."""

    token: str = ""
    bundle: str = ""


@dataclass
class Spare:
    """A process that has imported a bundle's app and waits for a token."""

    process: int
    pipe: int
    bundle: str

    def take(self, token: str) -> bool:
        """Send a token; return whether the process is there to take it."""
        try:
            os.write(self.pipe, token.encode())
        except OSError:
            return False
        finally:
            os.close(self.pipe)
        return True

    def drop(self) -> None:
        """End a process that nobody has use for."""
        os.close(self.pipe)
        os.kill(self.process, signal.SIGKILL)  # ended or not: nobody has waited for it yet


@dataclass
class Starter:
    """Forks a process for each message.

    Parameters
    ----------
    prepare : callable
        Takes a bundle's hash and does, in a spare process, what its app may do in advance.
    """

    prepare: Callable[[str], None]
    bundle: str = ""
    spare: Spare | None = None
    running: set[int] = field(default_factory=set)
    due: float = 0.0

    def start(self, task: Task) -> str:
        """Have a process serve a task; return the task's token in that process, else nothing."""
        time.sleep(SETTLE_SECONDS)
        spare, self.spare, self.bundle = self.spare, None, task.bundle
        if spare and spare.bundle != task.bundle:
            spare.drop()
        elif spare and spare.take(task.token):
            self.running.add(spare.process)
            return ""
        process = fork()
        if not process:
            return task.token
        self.running.add(process)
        return ""

    def idle(self, now: float) -> str:
        """Let ended processes go, and make a spare when it is due; return its token in the spare.

        Parameters
        ----------
        now : float
            Monotonic seconds.
        """
        if gone := ended():
            if self.running & gone:
                self.due = now + SPARE_SECONDS
            if self.spare and self.spare.process in gone:  # killed: none is made before a message
                os.close(self.spare.pipe)
                self.spare, self.bundle = None, ""
            self.running -= gone
        if self.running or self.spare or not self.bundle or now < self.due:
            return ""
        reads, writes = os.pipe()
        process = fork(SPARE_NAME)
        if process:
            os.close(reads)
            self.spare = Spare(process, writes, self.bundle)
            return ""
        os.close(writes)
        try:
            self.prepare(self.bundle)
        except Exception:  # a token may be here already, and its reply says what is wrong
            traceback.print_exc()
        if not (token := os.read(reads, 4096).decode()):
            sys.exit()  # whoever forked us has gone
        os.close(reads)
        rename(NAME)
        return token


def serve(acquire: Callable[[], Task], starter: Starter) -> str:
    """Ask for tasks for ever; return, in a fork alone, the token of the task that it is to do."""
    last = time.monotonic()
    while True:
        task, now = acquire(), time.monotonic()
        if token := starter.start(task) if task.token else starter.idle(now):
            return token
        last = now if task.token else last
        expected = now - last < BUSY_SECONDS and not starter.running
        time.sleep(BUSY_POLL if expected else IDLE_POLL)


def fork(name: bytes = NAME) -> int:
    """Fork; the child is as a process of its own would be, with a name."""
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if not process:
        import numpy as np
        import torch

        # Else all children draw the same numbers from the generators that they inherit.
        np.random.seed()  # noqa: NPY002
        torch.default_generator.seed()
        rename(name)
    return process


def rename(name: bytes) -> None:
    """Name this process, and let its own user look into it, as into any of his."""
    with contextlib.suppress(OSError, AttributeError):
        prctl = ctypes.CDLL(None).prctl
        prctl(_SET_DUMPABLE, 1)
        prctl(_SET_NAME, name)


def ended() -> set[int]:
    """Let child processes go that have ended, and return them."""
    gone = set()
    with contextlib.suppress(ChildProcessError):
        while process := os.waitpid(-1, os.WNOHANG)[0]:
            gone.add(process)
    return gone


def prepare(bundle: str) -> None:
    """Import the app of a bundle that is unpacked here, and do what it does before a message."""
    from flwr.common.config import get_project_config
    from flwr.supercore.object_ref import load_app
    from flwr.supercore.utils import get_flwr_home

    sys.dont_write_bytecode = False  # else each process would compile the app again
    (folder,) = Path(get_flwr_home(), "apps").glob(f"*.{bundle[:8]}")
    app = get_project_config(folder)["tool"]["flwr"]["app"]["components"]["clientapp"]
    load_app(app, ImportError, folder)
    getattr(sys.modules[app.partition(":")[0]], "preload", lambda: None)()


def connection(address: str, secret: str) -> Callable[[], Task]:
    """Return what asks the SuperNode for the next message to a ClientApp."""
    from flwr.proto.runtime_pb2 import AcquireTaskRequest
    from flwr.supercore.constant import TaskType
    from flwr.supercore.interceptors import (
        RuntimeVersionHttpInterceptor,
        SuperExecAuthHttpInterceptor,
    )
    from flwr.supercore.retry import make_simple_http_retry_invoker
    from flwr.supercore.runtime import RuntimeHttpClient

    sign = SuperExecAuthHttpInterceptor(
        master_secret=Path(secret).read_bytes(),
        protected_methods={"/flwr.proto.Runtime/AcquireTask"},
    )
    client = RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=True,  # a node's own port has no TLS
        root_certificates=None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperExec"), sign],
        retry_invoker=make_simple_http_retry_invoker(),
    )
    request = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])

    def acquire() -> Task:
        given = client.AcquireTask(request)
        return Task(given.token, given.task.fab_hash)

    return acquire


def main() -> None:
    """Serve a SuperNode until this process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime-api-address", required=True)
    parser.add_argument("--superexec-auth-secret-file", required=True)
    chosen = parser.parse_args()
    address = chosen.runtime_api_address
    for module in MODULES:
        importlib.import_module(module)
    from flwr.supercore.utils import disable_process_dumping
    from flwr.supernode.cli.flwr_clientapp import flwr_clientapp

    disable_process_dumping(strict=False)  # as Flower's own: it knows the secret
    acquire = connection(address, chosen.superexec_auth_secret_file)
    gc.collect()
    gc.freeze()  # else a fork's first collection would copy all of our memory
    parent = os.getpid()
    token = serve(acquire, Starter(prepare))
    sys.argv = ["flwr-clientapp", *arguments(address, token, parent)]
    flwr_clientapp()


def arguments(address: str, token: str, parent: int) -> list[str]:
    """Return what `flwr-clientapp` is called with, to serve a message and end with a process."""
    made = ["--runtime-api-address", address, "--insecure", "--token", token]
    return [*made, "--parent-pid", str(parent)]


if __name__ == "__main__":
    main()
