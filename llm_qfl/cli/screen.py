"""What the user sees of a run: whole lines that stay, and one line that moves."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.text import Text

from llm_qfl.cli import formatting
from llm_qfl.cli.follow import COMPLETED, Outcome

MOST_CLIENT_LINES = 60
"""Lines of the clients' own progress that are shown: 12 clients with 3 epochs and embeddings."""


class Screen:
    """Prints a run's progress.

    Parameters
    ----------
    plain : bool
        No colours, no moving line; so it is too when the output is no terminal.
    quiet : bool
        Only the result.
    deployed : bool
        Whether the clients are nodes of a deployment, not of a simulation.
    """

    def __init__(self, *, plain: bool, quiet: bool, deployed: bool = False) -> None:
        self._place = "server" if deployed else "simulation"
        options: dict[str, Any] = {
            "highlight": False,
            "markup": False,
            "emoji": False,
            "soft_wrap": True,
        }
        self._console = Console(**options)
        if plain or not self._console.is_terminal:
            self._console = Console(color_system=None, **options)
        moving = self._console.is_terminal and not plain and not quiet
        self._status = Status("", console=self._console) if moving else None
        self._quiet = quiet
        self._clients = self._rounds = self._last_round = self._client_lines = self._late = 0
        self._decision: dict[str, Any] = {}
        self._phase, self._since = "", time.monotonic()
        self._prepared = self._adapting = self._untaught = self._ended = False

    @property
    def width(self) -> int:
        """Columns of a line: the terminal's, at least 80, at most 140; 100 without one."""
        if not self._console.is_terminal:
            return formatting.WIDTH
        return max(80, min(140, self._console.width))

    def start(self, name: str, folder: Path) -> None:
        """Print what starts and where it writes."""
        self.print(f"LLM-QFL run {name!r}", "bold")
        self.print(formatting.labelled("results", folder))

    def print(self, line: str, style: str = "") -> None:
        """Print a line that stays."""
        if not self._quiet:
            self._console.print(Text(line, style))

    def _print_all(self, lines: Iterable[str], style: str = "") -> None:
        for line in lines:
            self.print(line, style)

    def client(self, line: str) -> None:
        """Show a client's line on its fine-tuning and embedding."""
        self._client_lines += 1
        if self._client_lines <= MOST_CLIENT_LINES:
            self.print(formatting.clip(f"  {line}", self.width), "dim")
        elif self._client_lines == MOST_CLIENT_LINES + 1:
            self.print("  the clients' further lines are in logs/run.log", "dim")

    def decision(self, decision: dict[str, Any]) -> None:
        """Note the agent's decision for the round that begins."""
        if isinstance(decision.get("round"), int):
            self._decision = decision

    def event(self, event: dict[str, Any]) -> None:
        """Show an event of ``metrics.jsonl``."""
        kind = event.get("event")
        if kind == "prepared":
            clients = event.get("clients", [])
            self._prepared, self._clients = True, len(clients)
            self._untaught = all(map(formatting.untaught, clients))
            self._rounds = int(event.get("rounds", 0))
            self._print_all(formatting.header(event, self.width))
        elif kind == "resumed":
            self.print(formatting.resumed_line(event, self.width))
        elif kind == "late":
            self._late += 1
            if self._late <= formatting.MOST_LINES:
                self.print(formatting.late_line(event, self.width), "yellow")
            elif self._late == formatting.MOST_LINES + 1:
                self.print("  further late answers are in metrics.jsonl", "dim")
        elif kind == "roll":
            self.print(formatting.roll_line(event, self.width), "yellow")
        elif kind in ("adapter-begin", "adapter"):
            self._adapting = True
            self.print(formatting.adapter_line(event, self.width))
            self._print_all(formatting.warnings(event, self.width), "yellow")
        elif kind == "round":
            if not self._last_round:
                self.print(formatting.ROUND_HEAD, "bold")
            self._last_round, self._late = int(event.get("round", 0)), 0
            figures, *reason = formatting.round_lines(event, self._clients, self.width)
            self.print(figures)
            self._print_all(reason, "dim")
            self._print_all(formatting.warnings(event, self.width), "yellow")
        elif kind == "end":
            self._ended = True

    def tick(self, *, started: bool, here: bool) -> None:
        """Move the status line, or print it once where lines cannot move."""
        phase = self._doing(started, here)
        fresh = phase != self._phase
        if fresh:
            self._phase, self._since = phase, time.monotonic()
        if self._status is not None:
            text = f"{phase} ({time.monotonic() - self._since:.0f} s)"
            self._status.update(Text(formatting.clip(text, self._console.width - 3)))
            self._status.start()
        elif fresh and not self._last_round:
            self.print(f"  ... {phase}")
            self._console.file.flush()

    def _doing(self, started: bool, here: bool) -> str:
        """Say what goes on now."""
        if self._ended:
            return "ending Flower"
        if not started:
            return "starting Flower"
        if not self._prepared and self._adapting:
            return "the sites train one adapter of their LLMs together"
        if not self._prepared:
            starting = f"starting the {self._place}"
            return "preparing the sites' data and features" if here else starting
        upcoming = self._last_round + 1
        if self._decision.get("stop") or (self._rounds and upcoming > self._rounds):
            return "final test and report"
        if upcoming == 1:
            learned = self._adapting or self._untaught
            learns = "" if learned else "fine-tunes its LLM, then "
            return f"round 1: every site {learns}trains its quantum model"
        participants = [int(k) for k in self._decision.get("participants", [])]
        if self._decision.get("round") != upcoming or not participants:
            return f"round {upcoming}"
        who = formatting.who(participants, self._clients)
        crowd = f"{who} clients" if who[0] == "a" or "of" in who else f"clients {who}"
        return f"round {upcoming}: {crowd} train"

    def close(self) -> None:
        """Take the moving line away."""
        if self._status is not None:
            self._status.stop()

    def finish(self, folder: Path, summary: dict[str, Any], outcome: Outcome) -> None:
        """Print the result, where it is, and, if need be, what went wrong."""
        self.close()
        self._quiet = False  # the result is printed in any case
        if summary.get("test"):
            head, scores, *lines = formatting.result(summary, self.width, self._clients)
            self._print_all(("", head, scores), "bold")
            self._print_all(lines)
            self._print_all(formatting.warnings(summary["test"], self.width), "yellow")
        self.print(formatting.labelled("results", folder))
        report = folder / "report.html"
        if report.exists():
            self.print(formatting.labelled("report", report))
        elif (folder / "metrics.jsonl").exists():
            self.print(formatting.labelled("report", f"none yet: llm-qfl report {folder}"))
        if outcome.code != COMPLETED and any(folder.glob("checkpoint/round-*")):
            self.print(formatting.labelled("go on", f"llm-qfl run --resume {folder}"))
        self._console.file.flush()
        if outcome.code != COMPLETED:
            print(f"llm-qfl: {outcome.line} (logs: {folder / 'logs'})", file=sys.stderr)
