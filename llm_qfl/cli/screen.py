"""What the user sees of a run: whole lines that stay, and one line that moves."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from llm_qfl.cli import formatting as words
from llm_qfl.cli.outcome import COMPLETED, Verdict

MOST_SAID = 60
"""Lines of the clients' own progress that are shown: 12 clients with 3 epochs and embeddings."""

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


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
        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        if plain or not self._console.is_terminal:
            self._console = Console(
                color_system=None, highlight=False, markup=False, emoji=False, soft_wrap=True
            )
        self._moving = self._console.is_terminal and not plain and not quiet
        self._quiet = quiet
        self._clients = 0
        self._rounds = 0
        self._next: dict[str, Any] = {}
        self._phase = ""
        self._since = time.monotonic()
        self._beat = 0
        self._prepared = False
        self._adapting = False
        self._untaught = False
        self._ended = False
        self._last_round = 0
        self._said = 0

    @property
    def width(self) -> int:
        """Columns of a line: the terminal's, at least 80, at most 140; 100 without one."""
        if not self._console.is_terminal:
            return words.WIDTH
        return max(80, min(140, self._console.width))

    def start(self, name: str, folder: Path) -> None:
        """Say what starts and where it writes."""
        self.say(f"LLM-QFL run {name!r}", "bold")
        self.say(words.clip(f"  {'results':<10}{folder}", 10**6))

    def say(self, line: str, style: str = "") -> None:
        """Print a line that stays."""
        if not self._quiet:
            self._wipe()
            self._console.print(Text(line, style))

    def client(self, line: str) -> None:
        """Show what a client says of its fine-tuning and embedding."""
        self._said += 1
        if self._said <= MOST_SAID:
            self.say(words.clip(f"  {line}", self.width), "dim")
        elif self._said == MOST_SAID + 1:
            self.say("  the clients' further lines are in logs/run.log", "dim")

    def decision(self, decision: dict[str, Any]) -> None:
        """Note the agent's decision for the round that begins."""
        if isinstance(decision.get("round"), int):
            self._next = decision

    def event(self, event: dict[str, Any]) -> None:
        """Show an event of ``metrics.jsonl``."""
        kind = event.get("event")
        if kind == "prepared":
            self._prepared = True
            self._clients = len(event.get("clients", []))
            self._untaught = all(words.untaught(one) for one in event.get("clients", []))
            self._rounds = int(event.get("rounds", 0))
            for line in words.header(event, self.width):
                self.say(line)
        elif kind == "resumed":
            self.say(words.resumed_line(event, self.width))
        elif kind == "late":
            self.say(words.late_line(event, self.width), "yellow")
        elif kind == "roll":
            self.say(words.roll_line(event, self.width), "yellow")
        elif kind in ("adapter-begin", "adapter"):
            self._adapting = True
            self.say(words.adapter_line(event, self.width))
            for line in words.warnings(event, self.width):
                self.say(line, "yellow")
        elif kind == "round":
            if not self._last_round:
                self.say(words.ROUND_HEAD, "bold")
            self._last_round = int(event.get("round", 0))
            figures, *reason = words.round_lines(event, self._clients, self.width)
            self.say(figures)
            for line in reason:
                self.say(line, "dim")
            for line in words.warnings(event, self.width):
                self.say(line, "yellow")
        elif kind == "end":
            self._ended = True

    def tick(self, *, started: bool, here: bool) -> None:
        """Move the status line, or print it once where lines cannot move."""
        self.status(self._doing(started, here))

    def _doing(self, started: bool, here: bool) -> str:
        if self._ended:
            return "ending Flower"
        if not started:
            return "starting Flower"
        if not self._prepared and self._adapting:
            return "the sites train one adapter of their LLMs together"
        if not self._prepared:
            return (
                "preparing the sites' data and features" if here else f"starting the {self._place}"
            )
        upcoming = self._last_round + 1
        if self._next.get("stop") or (self._rounds and upcoming > self._rounds):
            return "final test and report"
        if upcoming == 1:
            learned = self._adapting or self._untaught
            learns = "" if learned else "fine-tunes its LLM, then "
            return f"round 1: every site {learns}trains its quantum model"
        participants = [int(k) for k in self._next.get("participants", [])]
        if self._next.get("round") != upcoming or not participants:
            return f"round {upcoming}"
        who = words.who(participants, self._clients)
        crowd = f"{who} clients" if who[0] == "a" or "of" in who else f"clients {who}"
        return f"round {upcoming}: {crowd} train"

    def status(self, phase: str) -> None:
        """Show what is going on now."""
        fresh = phase != self._phase
        if fresh:
            self._phase, self._since = phase, time.monotonic()
        if self._moving:
            self._beat += 1
            frame = _FRAMES[self._beat % len(_FRAMES)]
            seconds = time.monotonic() - self._since
            line = words.clip(f"{frame} {phase} ({seconds:.0f} s)", self._console.width - 1)
            sys.stdout.write(f"\r\x1b[2K{line}")
            sys.stdout.flush()
        elif fresh and not self._quiet and self._last_round == 0:
            self._console.print(Text(f"  ... {phase}"))
            self._console.file.flush()

    def _wipe(self) -> None:
        if self._moving:
            sys.stdout.write("\r\x1b[2K")
            sys.stdout.flush()

    def finish(self, folder: Path, summary: dict[str, Any] | None, verdict: Verdict) -> None:
        """Print the result, where it is, and, if need be, what went wrong."""
        self._wipe()
        if summary and summary.get("test"):
            self._console.print()
            for index, line in enumerate(words.result(summary, self.width, self._clients)):
                self._console.print(Text(line, "bold" if index < 2 else ""))
            for line in words.warnings(summary["test"], self.width):
                self._console.print(Text(line, "yellow"))
        self._console.print(Text(f"  {'results':<10}{folder}"))
        report = folder / "report.html"
        if report.exists():
            self._console.print(Text(f"  {'report':<10}{report}"))
        elif (folder / "metrics.jsonl").exists():
            self._console.print(Text(f"  {'report':<10}none yet: llm-qfl report {folder}"))
        if verdict.code != COMPLETED and any(folder.glob("checkpoint/round-*")):
            self._console.print(Text(f"  {'go on':<10}llm-qfl run --resume {folder}"))
        self._console.file.flush()
        if verdict.code != COMPLETED:
            print(f"llm-qfl: {verdict.line} (logs: {folder / 'logs'})", file=sys.stderr)
