"""The command line: words in, one command called, an exit code out.

Each command's code is imported when it is called, so `llm-qfl --help` stays quick.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from llm_qfl.cli.processes import Interrupted, signals
from llm_qfl.cli.shipped import foreign_package

FAILED = 1
USER_MISTAKE = 2
SIGNALLED = 128
"""Added to a signal's number, as shells do: 130 for Ctrl-C, 143 for SIGTERM."""

FILES = {
    "bash": "_shtab_compgen_files",
    "zsh": "_files",
    "fish": "(__fish_complete_path (commandline -ct))",
}
"""How a shell completes a path (shtab)."""

Argument = tuple[str, dict[str, Any]]


class Command(NamedTuple):
    """A command: where its function is, its help, and its arguments or its steps.

    The function takes the arguments by their names and returns the exit code.
    """

    call: str
    help: str
    arguments: tuple[Argument, ...] = ()
    more: str = ""
    steps: Mapping[str, Any] = {}


def _option(name: str, text: str, **more: Any) -> Argument:
    return name, {"help": text, **more}


def _flag(name: str, text: str, **more: Any) -> Argument:
    return _option(name, text, action="store_true", **more)


def _repeated(name: str, text: str, **more: Any) -> Argument:
    return _option(name, text, action="append", default=[], **more)


def _folder(name: str, text: str, **more: Any) -> Argument:
    return _option(name, text, type=Path, **more)


SETTINGS = (
    _repeated(
        "--config",
        "settings from a TOML file, or a shipped one by its name, for instance demo; "
        "may be given more than once, later ones win",
        dest="files",
        type=Path,
        metavar="FILE",
    ),
    _repeated(
        "--set",
        "one setting, for instance run.rounds=5; wins over files",
        dest="assignments",
        metavar="KEY=VALUE",
    ),
    _repeated("--unset", "one setting of the files back to its default", metavar="KEY"),
)
RUN = _folder("run", "a run's results folder", nargs="?", default="runs/latest", metavar="RUN")
JSON = _flag("--json", "print JSON", dest="as_json")
LOG = (
    _flag("--log", "check the run's chained log instead"),
    _option("--site", "a site's own list to compare", default="", metavar="FILE"),
)

DEPLOYMENT, PART = "the deployment's folder", "superlink/ or node-K/ of a deployment"
RUNNING = "the folder of up, superlink or node"
STEPS = (
    ("up", "make it if need be, start all of it here, and keep it running", DEPLOYMENT),
    ("init", "make certificates, keys and a folder for each part; start nothing", DEPLOYMENT),
    ("superlink", "run the SuperLink here", "its superlink/"),
    ("node", "run one SuperNode here", "its node-K/"),
    ("status", "say what runs; exit code 0 only if all is well", RUNNING),
    ("stop", "end what up, superlink or node started", RUNNING),
    ("units", "write systemd's units for the folder where it lies now", PART),
    ("start", "become one part, as a unit of systemd starts it", PART),
    ("register", "have the SuperLink that runs here admit the keys in nodes/", "its superlink/"),
    ("revoke", "throw out a node's key for good, and make it a new one", "or superlink/ alone"),
    ("renew", "make a new server certificate", DEPLOYMENT),
)
HOST = (
    "name or address of the SuperLink's machine as the sites know it; may be repeated. Without one "
    "only this machine can reach it"
)
PORT = "of the SuperLink; 8000 with --host, else free"
OWN = "a setting of node K alone, or of every node, for instance 0:quantum.backend=aer"
RESUMED = "go on with an interrupted run, its folder; --set may change rounds, stops, budgets"
RESOURCE = "with --ray: what a node must have for a client, {client} its index: a Ray resource"
MAKE = (
    _option("--nodes", "number of SuperNodes", type=int, metavar="N"),
    _repeated("--host", HOST, dest="hosts", metavar="NAME"),
    _option("--port", PORT, type=int, default=0, metavar="N"),
    _repeated("--node-set", OWN, dest="node_sets", metavar="[K:]KEY=VALUE"),
)
MORE = {
    "up": (*MAKE, _flag("--detach", "return once all have joined")),
    "init": MAKE,
    "revoke": (_option("node", "its name, for instance node-1", metavar="NODE"),),
    "status": (JSON,),
}


def _steps() -> dict[str, Command]:
    """Return the steps of `llm-qfl deploy`; all of them take a folder."""
    steps = {}
    for name, text, folder in STEPS:
        part = ("part", {"choices": ("superlink", "node", "exec", "gate")})
        place = _option("folder", folder, type=lambda path: Path(path).absolute(), metavar="FOLDER")
        arguments = (part,) * (name == "start") + (place, *MORE.get(name, ()))
        steps[name] = Command(f"deploy.commands:{name}", text, arguments)
    return steps


COMMANDS = {
    "run": Command(
        "run:run",
        "run a federation and follow it",
        (
            *SETTINGS,
            _option("--name", "name of the run, part of its results folder (run.name)"),
            _folder("--on", "run on a deployment: its folder, or its control/", metavar="FOLDER"),
            _option("--ray", "simulate on a Ray cluster: address of its head", metavar="ADDRESS"),
            _option("--ray-resource", RESOURCE, default="", metavar="NAME"),
            _folder("--resume", RESUMED, metavar="RUN"),
            _flag("--dry-run", "check, print what would run, and start nothing", dest="dry"),
            _flag("--json", "with --dry-run: print JSON", dest="as_json"),
            _flag("--plain", "no colours, no moving status line"),
            _flag("--quiet", "print the final result only"),
        ),
        "Run a federation on this machine, in Flower's simulation or, with --on, on a deployment, "
        "and follow it. "
        "Exit code: 0 completed, 1 failed, 2 a mistake in the settings, 130 interrupted.",
    ),
    "study": Command(
        "study:study",
        "run a grid of settings and seeds, or a search, side by side",
        (
            _option("file", "the study (docs/studies.md)", type=Path, metavar="STUDY.toml"),
            SETTINGS[1],
            _option("--seeds", "of every cell", nargs="+", type=int, metavar="N"),
            _option("--jobs", "runs side by side; default: the cores", type=int, metavar="N"),
            _folder("--folder", "where it goes; default: runs/STUDY", metavar="FOLDER"),
            _option("--search", "trials of a search", dest="trials", type=int, metavar="N"),
            _repeated("--only", "this value, and the reference", metavar="AXIS=VALUE"),
            JSON,
        ),
        "Exit code: 0 all runs completed, 1 some failed, 2 a mistake, 130 interrupted.",
    ),
    "deploy": Command(
        "",
        "run a federation as separate processes, over TLS",
        more="A SuperLink and SuperNodes as separate processes with TLS and node authentication: "
        "all on this machine (up, stop), or each part on its own machine (init, superlink, node, "
        "units). docs/deployment.md says more.",
        steps=_steps(),
    ),
    "cost": Command(
        "cost:cost",
        "estimate what a run would take of its backends, without running it",
        (*SETTINGS, JSON),
        "Print circuits, jobs, shots, two-qubit gates and depth after transpiling, and the "
        "estimated QPU time of a configuration. Nothing is submitted.",
    ),
    "jobs": Command(
        "commands:jobs",
        "list, or cancel, jobs that wait at a device and were not collected",
        (
            _flag("--cancel", "cancel them"),
            _option("--run", "only those of one Flower run", default="", metavar="ID"),
            _option("--account", "name of a saved IBM account", default=""),
            _option("--store", "the site's store (llm.store)", default="", metavar="FOLDER"),
            JSON,
        ),
    ),
    "new": Command(
        "new:new",
        "make a project of your own: a circuit, an agent, a config, a test",
        (_option("name", "letters, digits and hyphens", metavar="NAME"),),
        "Make the folder NAME, a small Flower app of your own that llm-qfl run, flwr run and "
        "flwr build take.",
    ),
    "report": Command("commands:report", "make a run's report.html again", (RUN,)),
    "audit": Command(
        "commands:audit",
        "replay a run's decisions, or check its log; no model is called",
        (RUN, *LOG, JSON),
        "Show a run's agent, rebuilt, the recorded observations and compare what it decides; "
        "exit code: 0 all the same (the log holds), 1 some differ, 2 no record or a damaged one.",
    ),
    "predict": Command(
        "predict:predict",
        "predict the rows of a file with a run's model",
        (
            RUN,
            _option(
                "--input",
                "rows to predict; - is the standard input",
                dest="source",
                required=True,
                metavar="FILE",
            ),
            _option(
                "--output",
                "predictions: .csv, .tsv, .jsonl or .parquet; default: print them",
                default="-",
                metavar="FILE",
            ),
            _option(
                "--text-column",
                "column of the text or sequence; default: that of the "
                "training, or one with a usual name",
                default="",
                metavar="NAME",
            ),
            _option(
                "--format",
                "of the input: csv, tsv, jsonl, parquet, arrow, txt, fasta or "
                "fastq; default: as its name ends",
                dest="form",
                default="",
                metavar="NAME",
            ),
            _repeated(
                "--set",
                "where it computes, for instance quantum.backend=aer:brisbane",
                dest="assignments",
                metavar="KEY=VALUE",
            ),
            _flag("--json", "print JSON lines", dest="as_json"),
        ),
        "Write each row with its class and the probability of each class. Exit code: 0 all rows "
        "are predicted, 3 some could not be read (a line on stderr each, no prediction), 2 the "
        "model, the file or a setting cannot be used.",
    ),
    "compare": Command(
        "compare:compare",
        "put runs side by side",
        (
            _option("runs", "a run's results folder", nargs="+", metavar="RUN"),
            _option(
                "--target",
                "validation accuracy to reach, 0 to 1; default: the lowest of the runs' best",
                type=float,
                metavar="ACC",
            ),
            JSON,
            _folder(
                "--out",
                "the page with the picture (compare.html)",
                default="compare.html",
                metavar="FILE",
            ),
        ),
        "Print figures, costs and differing settings of runs, what each spent until it first "
        "reached the same validation accuracy, and draw them in one picture.",
    ),
    "clean": Command(
        "commands:clean",
        "list, or remove, what is kept outside the results folders",
        (_flag("--yes", "remove it", dest="remove"), JSON),
    ),
    "doctor": Command(
        "doctor:doctor",
        "say what is installed here, and what is missing for what",
        (JSON,),
        "Versions, devices, accounts (no secret is shown), free disk, extensions, and the command "
        "that mends what is missing. Exit code: 0, or 1 with problems.",
    ),
    "completion": Command(
        "commands:completion",
        "print a shell's completion of this command",
        (_option("shell", "bash, zsh or fish", choices=("bash", "zsh", "fish")),),
        'For instance, in ~/.bashrc: eval "$(llm-qfl completion bash)"',
    ),
    "settings": Command(
        "commands:settings",
        "explain the settings",
        (_option("key", "a key (run.rounds) or section (run)", nargs="?", default=""), JSON),
    ),
}


def make_parser() -> argparse.ArgumentParser:
    """Describe the commands and their options."""
    parser = argparse.ArgumentParser(
        prog="llm-qfl",
        description="Quantum federated learning guided by language models, as a Flower app.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    _add(parser.add_subparsers(dest="command", metavar="command"), COMMANDS)
    return parser


def _add(parsers: Any, commands: Mapping[str, Command]) -> None:
    """Add commands, or a command's steps, to argparse's subparsers."""
    for name, command in commands.items():
        parser = parsers.add_parser(name, help=command.help, description=command.more or None)
        parser.set_defaults(call=command.call)
        for argument, options in command.arguments:
            made = parser.add_argument(argument, **options)
            if options.get("type") is Path:
                setattr(made, "complete", FILES)  # noqa: B010 - an attribute of shtab's
        if command.steps:
            steps = parser.add_subparsers(dest="step", metavar="step", required=True)
            _add(steps, command.steps)


def _call(chosen: argparse.Namespace) -> int:
    """Import a command's function, and call it with the arguments."""
    named = {"version", "command", "step", "call"}
    arguments = {key: value for key, value in vars(chosen).items() if key not in named}
    module, _, function = chosen.call.partition(":")
    return int(getattr(import_module(f"llm_qfl.cli.{module}"), function)(**arguments))


def dispatch(arguments: list[str] | None = None) -> int:
    """Parse the words and run their command.

    A user's mistake is one line and exit code 2. A file or folder that the system does not let
    us read or write is one line and exit code 1. Ctrl-C and SIGTERM end a command with 128 and
    the signal's number, and what it had started with it.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not where something has put its own stream there
            stream.reconfigure(errors="backslashreplace")  # what the terminal lacks, as "\u2026"
    parser = make_parser()
    chosen = parser.parse_args(arguments)
    if chosen.version:
        print(f"llm-qfl {version()}")
        return 0
    if chosen.command is None:
        parser.print_help()
        return 0
    try:
        with signals(once=True):
            return _in_one_line(chosen)
    except Interrupted as ended:
        print(f"llm-qfl: ended by {signal.Signals(ended.number).name}", file=sys.stderr)
        return SIGNALLED + ended.number


def _in_one_line(chosen: argparse.Namespace) -> int:
    """Run a command, and print its mistakes in one line."""
    if foreign := foreign_package():
        print(f"llm-qfl: {foreign}", file=sys.stderr)
        return USER_MISTAKE
    from core import UserError
    from core.formatting import display_safe
    from llm_qfl.cli.children import LaunchError

    try:
        return _call(chosen)
    except UserError as error:
        print(f"llm-qfl: {display_safe(' '.join(str(error).split()))}", file=sys.stderr)
        return USER_MISTAKE
    except LaunchError as error:
        print(f"llm-qfl: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        sys.stderr.close()  # the reader (`| head`) has gone: nothing left to print
        return FAILED
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        what = "" if error.filename is None else f"cannot use {str(error.filename)!r}: "
        print(f"llm-qfl: {what}{why}", file=sys.stderr)
        return FAILED


def version() -> str:
    """Return the installed version, or the checkout's when nothing is installed."""
    from importlib import metadata

    try:
        return metadata.version("llm-qfl")
    except metadata.PackageNotFoundError:
        import tomllib

        text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
        return str(tomllib.loads(text)["project"]["version"])
