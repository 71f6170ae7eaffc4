"""Who watches a run from Python: callbacks, and the progress that is shown."""

from __future__ import annotations

import importlib
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from core import UserError, short_message
from core.formatting import percent
from llm_qfl.result import Result

Event = Mapping[str, Any]


class Callback(Protocol):
    """What `llm_qfl.run` calls; a method that is not there is not called.

    A plain function stands for ``on_round``.
    """

    def on_prepared(self, prepared: Event) -> None:
        """See the sites, data and model before round 1: the event of ``metrics.jsonl``.

        When a run goes on, ``resumed_after`` is the last round that was done.
        """

    def on_round(self, figures: Event) -> bool | str | None:
        """See a round that is in a checkpoint; its clients' figures are in ``clients``.

        True, or a text that says why, ends the run: the final test follows.
        """

    def on_end(self, result: Result) -> None:
        """See the result, also of a run that failed or was interrupted (`Result.status`)."""


class Callbacks:
    """Calls callbacks one after the other, and says in one line what they raise.

    Parameters
    ----------
    given : Callback, function, sequence of these, or None
        The callbacks.
    progress : Progress
        Is shown everything first.
    """

    def __init__(self, given: Any, progress: Progress) -> None:
        self.progress = progress
        if given is None:
            given = []
        self._given: Sequence[Any] = given if isinstance(given, list | tuple) else [given]
        hooks = ("on_prepared", "on_round", "on_end")
        for one in self._given:
            if not callable(one) and not any(hasattr(one, hook) for hook in hooks):
                raise UserError(
                    f"callbacks = {one!r}",
                    f"objects with {', '.join(hooks)}, or functions of a round's figures",
                    "give such an object",
                )
        self.folder = Path()
        self.reason = ""
        """Why a callback has ended the run."""

    def watch(self, event: Event) -> str:
        """Take an event of the run; return why it is to end (`strategies.context.Watch`)."""
        kind = event["event"]
        if kind == "round":
            self.progress.round(event)
            answers = [self._call(one, "on_round", event) for one in self._given]
            reasons = [
                one if isinstance(one, str) else "a callback ended it" for one in answers if one
            ]
            self.reason = "; ".join(reasons)
        elif kind == "prepared":
            self.progress.prepared(event)
            self._prepared(event)
        elif kind == "resumed":
            from reporting.record import read_record

            prepared = read_record(self.folder).prepared
            self.progress.prepared(prepared, int(event["round"]))
            self._prepared({**prepared, "resumed_after": event["round"]})
        return self.reason

    def _prepared(self, event: Event) -> None:
        for one in self._given:
            self._call(one, "on_prepared", event)

    def end(self) -> None:
        """Show each callback what the run has left, if it has begun to write."""
        if (self.folder / "config.json").exists():
            for one in self._given:
                self._call(one, "on_end", Result(self.folder))

    def interrupted(self) -> None:
        """Say how a run that was interrupted goes on."""
        print(f"interrupted; go on with: llm_qfl.run(resume={str(self.folder)!r})", file=sys.stderr)

    def _call(self, one: Any, hook: str, value: Any) -> Any:
        """Call a callback's method, if it has it.

        Raises
        ------
        UserError
            One line with file, line and what was raised; the run can go on from its folder.
        """
        method: Callable[[Any], Any] | None = getattr(one, hook, None)
        if method is None and hook == "on_round" and callable(one) and not hasattr(one, "on_end"):
            method = one
        if method is None:
            return None
        try:
            return method(value)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(frame.filename).name}, line {frame.lineno}"
            what = f"{type(error).__name__}: {short_message(error)}"
            fix = f"correct it, and go on with llm_qfl.run(resume={str(self.folder)!r})"
            if hook == "on_end":
                fix = f"correct it; the run has ended and llm_qfl.read({str(self.folder)!r}) has it"
            given = f"the callback {_name(one)}.{hook} raised {what} ({where})"
            raise UserError(given, "a callback that returns", fix) from error


def _name(one: Any) -> str:
    return str(getattr(one, "__qualname__", type(one).__qualname__))


class Progress:
    """Shows how far a run is: a bar in a terminal or a notebook, nothing elsewhere.

    Parameters
    ----------
    quiet : bool or None
        True: nothing. False: lines, where there is neither terminal nor notebook. None: nothing
        there.
    name : str
        Name of the run.
    rounds : int
        Its most rounds.
    """

    def __init__(self, quiet: bool | None, name: str, rounds: int) -> None:
        self._name, self._rounds, self._done = name, rounds, 0
        self._began = time.monotonic()
        self._show = _nothing if quiet else _display(lines=quiet is False)

    def expect(self, rounds: int) -> None:
        """Say how many there will be."""
        self._rounds = rounds

    def prepared(self, event: Event, done: int = 0) -> None:
        """Show that the sites are prepared."""
        self._rounds = int(event.get("rounds") or self._rounds)
        self.show(done, f"{len(event.get('clients', []))} clients, {event.get('data', '')}")

    def round(self, event: Event) -> None:
        """Show a round's figures."""
        loss = event.get("loss")
        figures = f"loss {loss:.4f}, " if isinstance(loss, float) else ""
        self.show(int(event["round"]), f"{figures}accuracy {percent(event.get('accuracy'))}")

    def show(self, done: int, text: str) -> None:
        """Show how many rounds are done, and a text."""
        self._done = done
        self._show(self._name, done, self._rounds, text)

    def __enter__(self) -> Self:
        self.show(0, "preparing")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        seconds = time.monotonic() - self._began
        how = "ended" if kind is None else "broken off"
        self.show(self._done, f"{how} after {seconds:.0f} s")
        close = getattr(self._show, "close", None)
        if close:
            close()


def _nothing(name: str, done: int, rounds: int, text: str) -> None:
    pass


def _display(*, lines: bool) -> Callable[[str, int, int, str], None]:
    """Choose how progress is shown here."""
    if _in_notebook():
        return _Notebook()
    from rich.console import Console

    console = Console()
    if console.is_terminal:
        return _Terminal(console)
    return _print if lines else _nothing


def _in_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


def _print(name: str, done: int, rounds: int, text: str) -> None:
    print(f"{name}: round {done} of {rounds}; {text}", flush=True)


class _Terminal:
    """A bar at the bottom of a terminal."""

    def __init__(self, console: Any) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.fields[name]}"), BarColumn(), MofNCompleteColumn())
        figures = TextColumn("{task.description}", markup=False)
        self._bar = Bar(*columns, figures, TimeElapsedColumn(), console=console)
        self._task = self._bar.add_task("", name="", total=1)
        self._bar.start()

    def __call__(self, name: str, done: int, rounds: int, text: str) -> None:
        self._bar.update(self._task, description=text, completed=done, total=rounds, name=name)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.stop()


class _Notebook:
    """One line of a notebook's cell; needs no widgets, and stays in a saved notebook."""

    def __init__(self) -> None:
        from IPython.display import display

        with warnings.catch_warnings():  # that its bars, which we do not show, lack a widget
            warnings.simplefilter("ignore")
            importlib.import_module("tqdm.auto")
        self._handle: Any = None
        self._display: Any = display

    def __call__(self, name: str, done: int, rounds: int, text: str) -> None:
        shown = {"text/plain": f"{name}: {_bar(done, rounds)} {done}/{rounds}, {text}"}
        if self._handle is None:
            self._handle = self._display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)


def _bar(done: int, rounds: int, width: int = 20) -> str:
    full = round(width * done / max(rounds, 1))
    return "█" * full + "░" * (width - full)
