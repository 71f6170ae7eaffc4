"""`llm-qfl run`: start Flower, follow the run, end everything, tell the truth."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import SettingsError, UserError, backend_names, family, read_json
from core.storage.records import Decided
from llm_qfl.cli.children import LaunchError
from llm_qfl.cli.commands import cancel_run
from llm_qfl.cli.flower import federation_config
from llm_qfl.cli.follow import (
    COMPLETED,
    ClientLines,
    Evidence,
    Outcome,
    Tail,
    last_error,
    last_words,
    outcome_of,
    read_log,
)
from llm_qfl.cli.plan import Plan, make_plan, make_run_folder, resumed_plan, run_config
from llm_qfl.cli.preflight import preflight
from llm_qfl.cli.processes import Interrupted, signals, wait_for
from llm_qfl.cli.screen import Screen
from llm_qfl.cli.superlink import SuperLink

if TYPE_CHECKING:
    from llm_qfl.cli.cluster import Cluster
    from llm_qfl.cli.deploy.folder import Facts
    from llm_qfl.cli.deploy.remote import Deployed

    Link = SuperLink | Deployed

POLL_SECONDS = 0.3
"""How often the run's files are read."""

SUBMIT_SECONDS = 30.0
"""Longest wait, when interrupted, for Flower to say which run it has just begun."""

STATUS_SECONDS = 60.0
"""How often Flower's status is requested: each request starts a Python process of 1.5 s."""


def run(
    files: Sequence[Path],
    assignments: Sequence[str],
    name: str | None = None,
    *,
    on: Path | None = None,
    ray: str | None = None,
    ray_resource: str = "",
    resume: Path | None = None,
    plain: bool = False,
    quiet: bool = False,
    unset: Sequence[str] = (),
    dry: bool = False,
    as_json: bool = False,
) -> int:
    """Check the settings, run the federation, and follow it to its end.

    Parameters
    ----------
    files, assignments, name, unset
        As `llm_qfl.cli.plan.make_plan` takes them.
    on : Path, optional
        A deployment's folder; without one a simulation of our own is started.
    ray : str, optional
        Address of a Ray cluster on whose nodes the simulation's clients run.
    ray_resource : str
        The Ray resource that a node must have for a client; ``{client}`` is the client's index.
    resume : Path, optional
        Results folder of an interrupted run that is to go on.
    plain, quiet : bool
        No colours and no moving line; only the result.
    dry : bool
        Check, print what would run, and stop.
    as_json : bool
        Print that as JSON.

    Returns
    -------
    int
        0 completed, 1 failed, 130 interrupted.

    Raises
    ------
    UserError
        For a mistake in the settings, before anything is started or written.
    """
    if as_json and not dry:
        raise UserError("--json without --dry-run", "both", "a run's figures are in summary.json")
    _check_places(on, ray, ray_resource)
    facts = None if on is None else deployment(on)
    clients = None if facts is None else facts.nodes
    if resume is None:
        plan = make_plan(files, assignments, name, clients, unset)
    else:
        _refuse_with_resume({"--config": files, "--name": name, "--unset": unset, "--dry-run": dry})
        plan = resumed_plan(resume, assignments, clients)
    cluster = None if ray is None else _cluster(ray, ray_resource, plan)
    preflight(plan, here=facts is None and ray is None, dry=dry, as_json=as_json)
    screen = Screen(plain=plain, quiet=quiet, deployed=facts is not None)
    return COMPLETED if dry else _followed(plan, screen, facts, cluster)


def _cluster(address: str, resource: str, plan: Plan) -> Cluster:
    from llm_qfl.cli.cluster import find_cluster

    return find_cluster(address, resource, plan.settings.run.clients)


def _check_places(on: Path | None, ray: str | None, ray_resource: str) -> None:
    """Refuse a cluster and a deployment at once, and a cluster's option without one."""
    for option, given in {"--on": on, "--ray-resource": ray_resource}.items():
        if given and (ray is None) == (option != "--on"):
            raise _misplaced_option(option)


def _followed(plan: Plan, screen: Screen, facts: Facts | None, cluster: Cluster | None) -> int:
    """Start a run, follow it to its end on the screen, and return its exit code."""
    folder = make_run_folder(plan)
    screen.start(plan.settings.run.name, folder)
    try:
        with signals():
            outcome = launch(plan, folder, screen, facts, cluster)
    except Interrupted:  # once more, after everything had been ended
        outcome = outcome_of(Evidence(interrupted=True))
    finally:
        screen.close()
    screen.finish(folder, read_json(folder / "summary.json"), outcome)
    return outcome.code


def _misplaced_option(option: str) -> SettingsError:
    if option == "--on":
        return SettingsError("--ray with --on", "one of them", "a deployment's nodes use no Ray")
    return SettingsError(f"{option} without --ray", "both", "give the cluster's address")


def _refuse_with_resume(options: Mapping[str, object]) -> None:
    """Refuse options of a new run for one that goes on."""
    for option, value in options.items():
        if value:
            raise SettingsError(
                f"{option} with --resume",
                "a run goes on with its own settings",
                f"leave {option} out, or start a new run",
            )


def deployment(folder: Path) -> Facts:
    """Read a deployment and see that it is up, before anything is written."""
    from llm_qfl.cli.deploy.folder import read_facts
    from llm_qfl.cli.deploy.remote import running_port

    facts = read_facts(folder)
    running_port(facts)
    return facts


def launch(
    plan: Plan,
    folder: Path,
    screen: Screen,
    facts: Facts | None = None,
    cluster: Cluster | None = None,
) -> Outcome:
    """Run one federation to its end; of what was started here nothing is left afterwards."""
    link = _link(plan, folder / "logs", facts, cluster)
    watch = Watch(link, folder, screen)
    try:
        link.start()
        evidence = watch.follow(plan)
    except LaunchError as error:
        evidence = Evidence(launch_error=str(error))
    except Interrupted:
        evidence = Evidence(interrupted=True)
        screen.print("stopping the run ...")
        _unless_again(watch.stop)
    finally:
        _unless_again(link.close, lambda: link.close(grace=0.0))
    watch.show_news()  # what was written while we were ending
    if facts is None:  # a site's jobs are its own: llm-qfl jobs, at the site
        _unless_again(lambda: _cancel_jobs(plan, watch.run_id, screen))
    return outcome_of(evidence)


def _link(plan: Plan, logs: Path, facts: Facts | None, cluster: Cluster | None) -> Link:
    """Return the SuperLink that the run is submitted to."""
    if facts is None:
        settings = plan.settings
        threads, clients = settings.quantum.threads, settings.run.clients
        return SuperLink(plan.programs, logs, threads, clients, cluster)
    from llm_qfl.cli.deploy.remote import Deployed

    return Deployed(facts, plan.programs["flwr"], logs)


def _cancel_jobs(plan: Plan, run_id: str, screen: Screen) -> None:
    """Cancel what the run left waiting at a device: nobody will collect it."""
    settings = plan.settings
    names = backend_names(settings.quantum.backend)
    if not (settings.hardware.budgeted or any(family(name) in ("fake", "ibm") for name in names)):
        return
    try:
        note = cancel_run(settings.llm.store, run_id, settings.hardware.account)
    except (UserError, LaunchError) as error:
        note = f"open jobs were not cancelled: {error} See: llm-qfl jobs"
    if note:
        screen.print(note)


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

    def __init__(self, superlink: Link, folder: Path, screen: Screen) -> None:
        self.superlink = superlink
        self.folder = folder
        self.screen = screen
        self.metrics = Tail(folder / "metrics.jsonl")
        self.decisions = Tail(folder / "agent.jsonl", Decided)
        # A simulation's clients write to the run's log, a deployment's to their nodes' logs.
        self.clients = [ClientLines(superlink.flwr.run_log)]
        self.clients += [ClientLines(log, log.stat().st_size) for log in superlink.node_logs]
        self.run_id = ""
        self.end: dict[str, Any] = {}

    def follow(self, plan: Plan) -> Evidence:
        """Submit the run and return all that is known when it is over.

        Raises
        ------
        LaunchError
            If Flower does not take the run.
        """
        flwr, nodes = self.superlink.flwr, ""
        if isinstance(self.superlink, SuperLink):
            clients, threads = plan.settings.run.clients, plan.settings.quantum.threads
            cluster = self.superlink.cluster
            cores = (os.cpu_count() or 1) if cluster is None else cluster.cores
            nodes = federation_config(clients, threads, cores)
        stream = flwr.submit(run_config(plan, self.folder), plan.files, nodes)
        status, details = "", ""
        requested = time.monotonic()
        while not status.startswith("finished"):
            self.show_news()
            if self.superlink.dead():
                return self._evidence(status, details, died=True)
            self._note_run_id(stream)
            ended = stream.poll() is not None
            if self.run_id and (ended or time.monotonic() - requested > STATUS_SECONDS):
                status, details = flwr.status(self.run_id)
                requested = time.monotonic()
                if ended and not status.startswith("finished"):
                    time.sleep(5.0)  # the stream broke: follow anew, without haste
                    stream = flwr.stream(self.run_id)
            time.sleep(POLL_SECONDS)
        try:
            stream.wait(10.0)  # the log's last lines
        except subprocess.TimeoutExpired:
            stream.terminate()
        self.show_news()
        return self._evidence(status, details)

    def _note_run_id(self, stream: subprocess.Popen[bytes]) -> None:
        ended = stream.poll() is not None
        self.run_id = self.run_id or self.superlink.flwr.run_id()
        if ended and not self.run_id:
            reason = last_words(read_log(self.superlink.flwr.run_log)) or "it gives no reason"
            raise LaunchError(f"Flower did not take the run: {reason}")

    def stop(self) -> None:
        """Ask Flower to stop the run, if it got that far; a deployment would go on with it."""
        flwr = self.superlink.flwr
        if self.superlink.simulated:  # our own SuperLink ends in any case
            if self.run_id and not self.superlink.dead():
                flwr.stop_run(self.run_id)
            return
        if not flwr.commands:
            return  # nothing was submitted
        submission = flwr.commands[0]
        wait_for(lambda: bool(flwr.run_id()) or submission.poll() is not None, SUBMIT_SECONDS)
        self.run_id = self.run_id or flwr.run_id()
        note = ""
        if self.run_id and not flwr.stop_run(self.run_id):
            note = f"run {self.run_id} may go on: Flower did not confirm that it stopped"
        elif not self.run_id and submission.poll() is None:
            note = "a run may have begun all the same: Flower has not reported one yet"
        if note:
            self.screen.print(note)

    def show_news(self) -> None:
        """Show what the run has written since the last look."""
        for decision in self.decisions.new():
            self.screen.decision(decision)
        for clients in self.clients:
            for line in clients.new():
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
            log_error=last_error(read_log(self.superlink.flwr.run_log)),
            superlink_died=died,
            superlink_tail=self.superlink.tail() if died else "",
        )
