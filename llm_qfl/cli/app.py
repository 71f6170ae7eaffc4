"""The command line: words in, one command called, an exit code out.

Each command's code is imported when it is called, so `llm-qfl --help` stays quick.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from llm_qfl.cli.deploy.arguments import add_deploy

FAILED = 1
USER_MISTAKE = 2
SIGNALLED = 128
"""Added to a signal's number, as shells do: 130 for Ctrl-C, 143 for SIGTERM."""

Command = Callable[[argparse.Namespace], int]


def dispatch(arguments: list[str] | None = None) -> int:
    """Parse the words and run their command.

    A user's mistake is one line and exit code 2. A file or folder that the system does not let
    us read or write is one line and exit code 1. Ctrl-C and SIGTERM end a command with 128 and
    the signal's number, and what it had started with it.
    """
    _print_anything()
    parser = make_parser()
    chosen = parser.parse_args(arguments)
    if chosen.version:
        print(f"llm-qfl {version()}")
        return 0
    if chosen.command is None:
        parser.print_help()
        return 0
    heard = [n for n in _ENDING if signal.getsignal(n) != signal.SIG_IGN]  # nohup stays nohup
    before = {number: signal.signal(number, _end) for number in heard}
    try:
        return _called(chosen.call, chosen)
    except Ended as ended:
        print(f"llm-qfl: ended by {signal.Signals(ended.number).name}", file=sys.stderr)
        return SIGNALLED + ended.number
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Ended(BaseException):
    """Ctrl-C was pressed, or somebody ended us politely."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


_ENDING = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # what is being ended is not to be ended twice
    raise Ended(number)


def _called(call: Command, chosen: argparse.Namespace) -> int:
    """Call a command, and say its mistakes in one line."""
    from core import UserError, display_safe

    try:
        return call(chosen)
    except UserError as error:
        print(f"llm-qfl: {display_safe(' '.join(str(error).split()))}", file=sys.stderr)
        return USER_MISTAKE
    except BrokenPipeError:
        sys.stderr.close()  # the reader (`| head`) has gone: nothing left to say
        return FAILED
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        what = "" if error.filename is None else f"cannot use {str(error.filename)!r}: "
        print(f"llm-qfl: {what}{why}", file=sys.stderr)
        return FAILED


def _print_anything() -> None:
    r"""Print what the terminal's encoding lacks as an escape, ``\u2026``: no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not where something has put its own stream there
            stream.reconfigure(errors="backslashreplace")


def make_parser() -> argparse.ArgumentParser:
    """Describe the commands and their options."""
    parser = argparse.ArgumentParser(
        prog="llm-qfl",
        description="Quantum federated learning guided by language models, as a Flower app.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    commands = parser.add_subparsers(dest="command", metavar="command")
    _add_run(commands)
    add_deploy(commands)
    cost = commands.add_parser(
        "cost",
        help="estimate what a run would take of its backends, without running it",
        description="Print circuits, jobs, shots, two-qubit gates and depth after transpiling, and "
        "the estimated QPU time of a configuration. Nothing is submitted.",
    )
    _add_settings(cost)
    cost.add_argument("--json", action="store_true", help="print JSON")
    cost.set_defaults(call=_cost)
    jobs = commands.add_parser(
        "jobs", help="list, or cancel, jobs that wait at a device and were not collected"
    )
    jobs.add_argument("--cancel", action="store_true", help="cancel them")
    jobs.add_argument("--run", default="", metavar="ID", help="only those of one Flower run")
    jobs.add_argument("--account", default="", help="name of a saved IBM account")
    jobs.add_argument("--store", default="", metavar="FOLDER", help="the site's store (llm.store)")
    jobs.set_defaults(call=_jobs)
    report = commands.add_parser("report", help="make a run's report.html again")
    report.add_argument(
        "run", nargs="?", default="runs/latest", metavar="RUN", help="a run's results folder"
    )
    report.set_defaults(call=_report)
    audit = commands.add_parser(
        "audit",
        help="replay a run's decisions; no model is asked",
        description="Rebuild a run's agent, show it the recorded observations, and compare what it "
        "decides with the record; a language model's recorded answers are read anew. Exit code: "
        "0 all the same, 1 some differ, 2 no such record or a damaged one.",
    )
    audit.add_argument(
        "run", nargs="?", default="runs/latest", metavar="RUN", help="a run's results folder"
    )
    audit.set_defaults(call=_audit)
    _add_compare(commands)
    clean = commands.add_parser(
        "clean", help="list, or remove, what is kept outside the results folders"
    )
    clean.add_argument("--yes", action="store_true", help="remove it")
    clean.set_defaults(call=_clean)
    settings = commands.add_parser("settings", help="explain the settings")
    settings.add_argument("key", nargs="?", default="", help="a key (run.rounds) or section (run)")
    settings.set_defaults(call=_settings)
    return parser


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = commands.add_parser(
        "run",
        help="run a federation and follow it",
        description="Run a federation on this machine, in Flower's simulation or, with --on, on a "
        "deployment, and follow it. "
        "Exit code: 0 completed, 1 failed, 2 a mistake in the settings, 130 interrupted.",
    )
    _add_settings(run)
    run.add_argument("--name", help="name of the run, part of its results folder (run.name)")
    run.add_argument(
        "--on", type=Path, metavar="FOLDER", help="run on a deployment: its folder, or its control/"
    )
    run.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        help="go on with an interrupted run: its results folder; --set may change run.rounds, "
        "stop.*, timeouts and budgets",
    )
    run.add_argument(
        "--dry-run", action="store_true", help="check, print what would run, and start nothing"
    )
    run.add_argument("--plain", action="store_true", help="no colours, no moving status line")
    run.add_argument("--quiet", action="store_true", help="print the final result only")
    run.set_defaults(call=_run)


def _add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    compare = commands.add_parser(
        "compare",
        help="put runs side by side",
        description="Print figures, costs and differing settings of runs, what each spent until "
        "it first reached the same validation accuracy, and draw them in one picture.",
    )
    compare.add_argument("runs", nargs="+", metavar="RUN", help="a run's results folder")
    compare.add_argument(
        "--target",
        type=float,
        metavar="ACC",
        help="validation accuracy to reach, 0 to 1; default: the lowest of the runs' best",
    )
    compare.add_argument("--json", action="store_true", help="print JSON")
    compare.add_argument(
        "--out",
        type=Path,
        default=Path("compare.html"),
        metavar="FILE",
        help="the page with the picture (compare.html)",
    )
    compare.set_defaults(call=_compare)


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="settings from a TOML file; may be given more than once, later ones win",
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting, for instance run.rounds=5; wins over files",
    )
    command.add_argument(
        "--unset",
        action="append",
        default=[],
        metavar="KEY",
        help="one setting of the files back to its default",
    )


def version() -> str:
    """Return the installed version, or the checkout's when nothing is installed."""
    from importlib import metadata

    try:
        return metadata.version("llm-qfl")
    except metadata.PackageNotFoundError:
        import tomllib

        text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
        return str(tomllib.loads(text)["project"]["version"])


def _run(chosen: argparse.Namespace) -> int:
    from llm_qfl.cli.run import run

    fresh = {"--config": chosen.config, "--name": chosen.name, "--unset": chosen.unset}
    fresh |= {"--dry-run": chosen.dry_run}
    if chosen.resume is not None and any(fresh.values()):
        from core import SettingsError, explain

        given = next(option for option, value in fresh.items() if value)
        why = "a run goes on with its own settings", f"leave {given} out, or start a new run"
        raise SettingsError(explain(f"{given} with --resume", *why))
    return run(
        chosen.config,
        chosen.set,
        chosen.name,
        on=chosen.on,
        resume=chosen.resume,
        plain=chosen.plain,
        quiet=chosen.quiet,
        unset=chosen.unset,
        dry=chosen.dry_run,
    )


def _cost(chosen: argparse.Namespace) -> int:
    from llm_qfl.cli.cost import cost

    return cost(chosen.config, chosen.set, chosen.unset, as_json=chosen.json)


def _jobs(chosen: argparse.Namespace) -> int:
    from llm_qfl.cli.jobs import jobs

    return jobs(cancel=chosen.cancel, run=chosen.run, account=chosen.account, store=chosen.store)


def _report(chosen: argparse.Namespace) -> int:
    from llm_qfl.cli.report import remake_report

    return remake_report(Path(chosen.run))


def _audit(chosen: argparse.Namespace) -> int:
    from llm_qfl.cli.audit import audit

    return audit(Path(chosen.run))


def _compare(chosen: argparse.Namespace) -> int:
    from llm_qfl.cli.compare import compare

    return compare(chosen.runs, chosen.target, chosen.out, as_json=chosen.json)


def _clean(chosen: argparse.Namespace) -> int:
    from llm_qfl.cli.clean import clean

    return clean(remove=chosen.yes)


def _settings(chosen: argparse.Namespace) -> int:
    from llm_qfl.cli.settings_page import explain_settings

    return explain_settings(chosen.key)
