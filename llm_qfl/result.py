"""What a run has left: figures, tables, the report, the model."""

from __future__ import annotations

import functools
import html
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import real_path
from core.formatting import duration, percent, whole
from core.storage.checkpoints import checkpoint_folders

if TYPE_CHECKING:
    from pandas import DataFrame

    from llm_qfl.model import Model
    from reporting.record import Record

FRAME = '<iframe srcdoc="{}" style="width:100%;height:640px;border:0" sandbox></iframe>'
"""Shows a page inside a notebook; it may run nothing there."""


@dataclass(frozen=True)
class Report:
    """A run's report; in a notebook it shows itself.

    Attributes
    ----------
    path : Path
        ``report.html``: one file that needs no network.
    """

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        return FRAME.format(html.escape(self.path.read_text("utf-8", "replace")))


class Result:
    """A run, read from its results folder; of a failed or interrupted one what is there.

    Parameters
    ----------
    folder : str or Path
        The results folder, for instance ``runs/latest``.

    Raises
    ------
    DataError
        If it holds no run.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        from reporting.record import read_record

        self.folder: Path = real_path(Path(folder))
        self._record: Record = read_record(self.folder)

    @property
    def name(self) -> str:
        """Name of the run."""
        return str(self._record.config.get("name") or self._record.name)

    @property
    def status(self) -> str:
        """``completed``, ``failed``, or ``interrupted``: it may also still go on."""
        ended = self._record.summary.get("status") or self._record.end.get("status")
        return str(ended or "interrupted")

    @property
    def error(self) -> str:
        """Why it failed, in one line; empty: it did not."""
        return str(self._record.summary.get("error") or self._record.end.get("error") or "")

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting by dotted key, as the run recorded it."""
        return self._record.settings

    @property
    def summary(self) -> Mapping[str, Any]:
        """``summary.json``: scores, baselines, costs; empty before the end (docs/results.md)."""
        return self._record.summary

    @property
    def accuracy(self) -> float | None:
        """Accuracy on the test rows, share; None before the test."""
        return (self.summary.get("test") or {}).get("accuracy")

    @property
    def damaged(self) -> tuple[str, ...]:
        """What could not be read of the folder's files; a line each."""
        return self._record.damaged

    @functools.cached_property
    def rounds(self) -> DataFrame:
        """One row a finished round (`reporting.frames.rounds_frame` has columns and units)."""
        from reporting.frames import rounds_frame

        return rounds_frame(self._record)

    @functools.cached_property
    def clients(self) -> DataFrame:
        """One row a client and round in which it trained (`reporting.frames.clients_frame`)."""
        from reporting.frames import clients_frame

        return clients_frame(self._record)

    @functools.cached_property
    def decisions(self) -> DataFrame:
        """One row a decision and client (`reporting.frames.decisions_frame`)."""
        from reporting.frames import decisions_frame

        return decisions_frame(self._record)

    @functools.cached_property
    def ledger(self) -> DataFrame:
        """One row a client and round with its costs (`reporting.frames.ledger_frame`)."""
        from reporting.frames import ledger_frame

        return ledger_frame(self._record)

    @functools.cached_property
    def confusion(self) -> DataFrame:
        """Rows of the final test, (true class, predicted class); empty before it."""
        from reporting.frames import confusion_frame

        return confusion_frame(self._record)

    @functools.cached_property
    def model(self) -> Model:
        """The trained model (`llm_qfl.load`)."""
        from llm_qfl.model import load

        return load(self.folder)

    def report(self) -> Report:
        """Write ``report.html`` into the folder; in a notebook the result shows it."""
        from reporting import write_report

        return Report(write_report(self.folder))

    @property
    def _place(self) -> Path:
        """The folder as one would type it here."""
        here = real_path(Path.cwd())
        return self.folder.relative_to(here) if self.folder.is_relative_to(here) else self.folder

    def __repr__(self) -> str:
        figures = "".join(f", {name} {value}" for name, value in self._figures()[1:])
        return f"<Result {self.name!r}: {self.status}{figures}; {self._place}>"

    def _repr_html_(self) -> str:
        rows = [("run", self.name), *self._figures(), ("folder", str(self._place))]
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for name, value in rows
        )
        return f"<table>{cells}</table>"

    def _figures(self) -> list[tuple[str, str]]:
        """Return what is worth a line, with its name, the status first."""
        summary, found = self.summary, [("status", self.status)]
        if self.error:
            found.append(("error", self.error))
        found.append(("rounds", str(len(self._record.round_ids))))
        if self.accuracy is not None:
            found.append(("test accuracy", percent(self.accuracy)))
        if spent := summary.get("ledger"):
            found.append(("circuits", whole(spent.get("circuits"))))
        if seconds := (summary.get("seconds") or {}).get("total"):
            found.append(("time", duration(seconds)))
        if self.status != "completed" and checkpoint_folders(self.folder):
            found.append(("go on", f"llm_qfl.run(resume={str(self._place)!r})"))
        return found


def read(folder: str | os.PathLike[str] = "runs/latest") -> Result:
    """Read a run from its results folder, also one that failed or an earlier version wrote.

    Parameters
    ----------
    folder : str or Path
        The results folder.

    Raises
    ------
    DataError
        If it holds no run.

    Examples
    --------
    >>> llm_qfl.read("runs/latest").rounds[["round", "loss", "circuits_total"]]  # doctest: +SKIP
    """
    return Result(folder)
