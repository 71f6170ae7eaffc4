"""TensorBoard: event files in the results folder's ``tensorboard``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Tracker:
    """Writes scalars, the settings as a table, and the report as a link in its text."""

    def __init__(self, name: str, key: str, folder: Path, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))
        rows = "\n".join(f"| {key} | `{value}` |" for key, value in settings.items())
        self._writer.add_text("settings", f"| setting | value |\n| --- | --- |\n{rows}")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Add scalars."""
        self._step = step
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, figures: Mapping[str, float], files: list[Path], *, completed: bool) -> None:
        """Add the final test, and where the files are: TensorBoard takes none."""
        self.log(getattr(self, "_step", 0), figures)
        places = "\n".join(f"- {path}" for path in files)
        self._writer.add_text("files", places)
        self._writer.close()
