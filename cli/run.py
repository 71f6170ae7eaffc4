"""`llm-qfl run`: start Flower, follow the run, end everything, tell the truth."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from cli.follow import ClientLines, Tail, last_error, last_words, read_log
from cli.outcome import Evidence, Verdict, judge
from cli.plan import Plan, make_plan, make_run_folder, run_config
from cli.runconfig import federation_config
from cli.screen import Screen
from cli.superlink import LaunchError, SuperLink
from federation import UserError, backend_names, family, read_json

LOOK_SECONDS = 0.3
"""How often the run's files are looked at."""

ASK_SECONDS = 60.0
"""How often Flower is asked outright: each question starts a Python process of 1.5 s."""


class Interrupted(BaseException):
    """The user pressed Ctrl-C, or somebody ended us politely."""


def run(
    files: Iterable[Path],
    assignments: Iterable[str],
    name: str | None,
    *,
    plain: bool = False,
    quiet: bool = False,
) -> int:
    """Check the settings, run the federation, and follow it to its end.

    Parameters
    ----------
    files, assignments, name
        As `cli.plan.make_plan` takes them.
    plain : bool
        No colours and no moving line.
    quiet : bool
        Only the result.

    Returns
    -------
    int
        0 completed, 1 failed, 130 interrupted.

    Raises
    ------
    UserError
        For a mistake in the settings, before anything is started or written.
    """
    plan = make_plan(files, assignments, name)
    folder = make_run_folder(plan)
    screen = Screen(plain=plain, quiet=quiet)
    screen.start(plan.settings.run.name, folder)
    with signals():
        try:
            verdict = launch(plan, folder, screen)
        except Interrupted:  # once more, after everything had been ended
            verdict = judge(Evidence(interrupted=True))
    screen.finish(folder, read_json(folder / "summary.json"), verdict)
    return verdict.code


@contextmanager
def signals() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into `Interrupted` while the run is on."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    names = [n for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]
    before = {getattr(signal, n): signal.signal(getattr(signal, n), interrupt) for n in names}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def launch(plan: Plan, folder: Path, screen: Screen) -> Verdict:
    """Run one federation on a SuperLink of its own, which is gone when this returns."""
    superlink = SuperLink(plan.programs, folder / "logs", plan.settings.quantum.threads)
    watch = Watch(superlink, folder, screen)
    try:
        superlink.start()
        evidence = watch.follow(plan)
    except LaunchError as error:
        evidence = Evidence(launch_error=str(error))
    except Interrupted:
        evidence = Evidence(interrupted=True)
        screen.say("stopping the run ...")
        _unless_again(watch.stop)
    finally:
        _unless_again(superlink.close, lambda: superlink.close(grace=0.0))
    watch.show_news()  # what was written while we were ending
    _unless_again(lambda: _cancel_jobs(plan, watch.run_id, screen))
    return judge(evidence)


def _cancel_jobs(plan: Plan, run_id: str, screen: Screen) -> None:
    """Cancel what the run left waiting at a device: nobody will collect it."""
    from cli.children import ChildFailedError
    from cli.jobs import cancel_run

    settings = plan.settings
    names = backend_names(settings.quantum.backend)
    if not (settings.hardware.budgeted or any(family(name) in ("fake", "ibm") for name in names)):
        return
    try:
        said = cancel_run(settings.llm.store, run_id, settings.hardware.account)
    except (UserError, ChildFailedError) as error:
        said = f"open jobs were not cancelled: {error} See: llm-qfl jobs"
    if said:
        screen.say(said)


def _unless_again(action: Callable[[], object], otherwise: Callable[[], object] = int) -> None:
    """Do `action`; a second Ctrl-C cuts it short, and a third is not heard."""
    try:
        action()
    except Interrupted:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        otherwise()


class Watch:
    """Follows one run from its submission to its end."""

    def __init__(self, superlink: SuperLink, folder: Path, screen: Screen) -> None:
        self.superlink = superlink
        self.folder = folder
        self.screen = screen
        self.metrics = Tail(folder / "metrics.jsonl")
        self.decisions = Tail(folder / "agent.jsonl")
        self.clients = ClientLines(superlink.run_log)
        self.run_id = ""
        self.end: dict[str, Any] | None = None

    def follow(self, plan: Plan) -> Evidence:
        """Submit the run and return all that is known when it is over.

        Raises
        ------
        LaunchError
            If Flower does not take the run.
        """
        settings = plan.settings
        nodes = federation_config(
            settings.run.clients, settings.quantum.threads, os.cpu_count() or 1
        )
        stream = self.superlink.submit(plan.app, run_config(plan, self.folder), nodes)
        status, details = "", ""
        asked = time.monotonic()
        while not status.startswith("finished"):
            self.show_news()
            if self.superlink.dead():
                return self._evidence(status, details, died=True)
            self._note_run_id(stream)
            ended = stream.poll() is not None
            if self.run_id and (ended or time.monotonic() - asked > ASK_SECONDS):
                status, details = self.superlink.status(self.run_id)
                asked = time.monotonic()
                if ended and not status.startswith("finished"):
                    time.sleep(5.0)  # the stream broke: follow anew, without haste
                    stream = self.superlink.stream(self.run_id)
            time.sleep(LOOK_SECONDS)
        try:
            stream.wait(10.0)  # the log's last lines
        except subprocess.TimeoutExpired:
            stream.terminate()
        self.show_news()
        return self._evidence(status, details)

    def _note_run_id(self, stream: subprocess.Popen[bytes]) -> None:
        if self.run_id:
            return
        ended = stream.poll() is not None
        self.run_id = self.superlink.run_id()
        if ended and not self.run_id:
            said = last_words(read_log(self.superlink.run_log)) or "it says nothing"
            raise LaunchError(f"Flower did not take the run: {said}")

    def stop(self) -> None:
        """Ask Flower to stop the run, if it got that far."""
        if self.run_id and not self.superlink.dead():
            self.superlink.stop_run(self.run_id)

    def show_news(self) -> None:
        """Show what the run has written since the last look."""
        for decision in self.decisions.new():
            self.screen.decision(decision)
        for line in self.clients.new():
            self.screen.client(line)
        for event in self.metrics.new():
            if event.get("event") == "end":
                self.end = event
            self.screen.event(event)
        self.screen.tick(started=bool(self.run_id), here=(self.folder / "config.json").exists())

    def _evidence(self, status: str, details: str, *, died: bool = False) -> Evidence:
        return Evidence(
            status=status,
            details=details,
            summary=read_json(self.folder / "summary.json"),
            end=self.end,
            log_error=last_error(read_log(self.superlink.run_log)),
            superlink_died=died,
            superlink_tail=self.superlink.tail() if died else "",
        )
