"""Processes that run cells side by side: each a fresh interpreter, on one thread.

A worker that is killed fails the task that it had, and another one takes its place. Workers end
with the process that started them (`llm_qfl.studies.worker`).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from core import Settings, SettingsError, UserError, flatten, parse_settings, unexpected_error

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Task:
    """One run.

    Attributes
    ----------
    settings : Mapping
        Flat settings, with the run's seed and folder.
    runner : str
        ``module:function`` in the place of `llm_qfl.run`; empty: that.
    target : float or None
        What the runner is told.
    """

    settings: dict[str, Any]
    runner: str = ""
    target: float | None = None

    @classmethod
    def of(cls, settings: Settings, runner: str, target: float | None) -> Task:
        """Make a task that can travel."""
        return cls(dict(flatten(settings)), runner, target)


def find_runner(name: str) -> Callable[..., Any]:
    """Return the function that a name means; the working folder is where a user's files are.

    Raises
    ------
    SettingsError
        If there is none.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last: a file of the user's must not stand in for ours
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        given = f"runner = {name!r} ({error})"
        raise SettingsError(given, "module:function of a file here", "check the name") from None
    if not callable(found):
        raise SettingsError(f"runner = {name!r}, which is no function", "a function", "name one")
    return found  # type: ignore[no-any-return]


def run_task(task: Task, callbacks: Any = None) -> str:
    """Run a cell in this process; return why it failed, in one line, or nothing."""
    try:
        settings = parse_settings(task.settings)
        if task.runner:
            find_runner(task.runner)(settings, task.target, callbacks)
        else:
            from llm_qfl.runs import run

            run(settings, callbacks=callbacks, quiet=True)
    except UserError as error:
        return " ".join(str(error).split())
    except Exception as error:
        traceback.print_exc()
        return unexpected_error(error)
    return ""


class Worker:
    """A process that runs one task after the other; it starts with its first one.

    Parameters
    ----------
    log : Path
        Takes what it prints.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.process: subprocess.Popen[str] | None = None
        self.ended = False

    def run(self, task: Task) -> str:
        """Let the process run a task; return why it failed, or nothing."""
        if self.process is None:
            self.process = self._start()
        pipes: tuple[Any, Any] = self.process.stdin, self.process.stdout
        try:
            pipes[0].write(json.dumps(asdict(task)) + "\n")
            pipes[0].flush()
            line = pipes[1].readline()
        except (OSError, ValueError):
            line = ""
        if line:
            return str(json.loads(line)["error"])
        how = _end(self.process.wait())
        self._close()
        return f"its process {how}; {self.log.name} may say why"

    def _start(self) -> subprocess.Popen[str]:
        from llm_qfl.cli.children import UNICODE
        from llm_qfl.cli.shipped import PACKAGES

        if self.ended:
            raise OSError("the study has ended")
        places = filter(None, [str(PACKAGES), os.environ.get("PYTHONPATH")])
        own = {**UNICODE, **dict.fromkeys(THREADS, "1"), "PYTHONPATH": os.pathsep.join(places)}
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "llm_qfl.studies.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **own},
                start_new_session=True,  # Ctrl-C is for us: we end it
            )

    def end(self) -> None:
        """End the process, whatever it does."""
        self.ended = True
        if self.process is not None:
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self._close()

    def _close(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            with contextlib.suppress(OSError):
                process.__exit__(None, None, None)  # closes its pipes, waits for its end


def _end(code: int) -> str:
    """Say how a process ended."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


class Pool:
    """Worker processes; those that are not needed never start.

    Parameters
    ----------
    jobs : int
        How many runs at once.
    log : Path
        Takes what the workers print.
    """

    def __init__(self, jobs: int, log: Path) -> None:
        self.workers = [Worker(log) for _ in range(jobs)]
        self.threads = ThreadPoolExecutor(jobs)
        self.idle: queue.LifoQueue[Worker] = queue.LifoQueue()
        for worker in self.workers:
            self.idle.put(worker)

    def run(self, tasks: Sequence[Task], done: Callable[[int, str], None]) -> None:
        """Run tasks; they begin in this order.

        Parameters
        ----------
        tasks : sequence of Task
            The runs.
        done : callable
            Called in this thread as each ends, with its place and why it failed.
        """
        waiting = {self.threads.submit(self._work, task): k for k, task in enumerate(tasks)}
        for future in as_completed(waiting):
            done(waiting[future], future.result())

    def _work(self, task: Task) -> str:
        worker = self.idle.get()
        try:
            return worker.run(task)
        finally:
            self.idle.put(worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        """End the workers, whatever they do."""
        self.threads.shutdown(wait=False, cancel_futures=True)
        for worker in self.workers:
            worker.end()
        self.threads.shutdown()


def cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
