"""Weights & Biases: as its own environment says (``WANDB_MODE``, ``WANDB_PROJECT``, ...)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Tracker:
    """Logs to a W&B run; the files are one artifact."""

    def __init__(self, name: str, key: str, folder: Path, settings: Mapping[str, Any]) -> None:
        import wandb

        quiet = wandb.Settings(silent=True, console="off", disable_git=True, init_timeout=30.0)
        self._module, self._name = wandb, name
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "llm-qfl",
            name=name,
            id=key,
            resume="allow",
            dir=folder,
            config=dict(settings),
            settings=quiet,
        )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Log metrics of a round."""
        self._run.log(dict(figures), step=step)

    def close(self, figures: Mapping[str, float], files: list[Path], *, completed: bool) -> None:
        """Note the final test in the run's summary, attach the files, and end."""
        self._run.summary.update(dict(figures))
        artifact = self._module.Artifact(f"run-{self._run.id}", type="report")
        for path in files:
            artifact.add_file(str(path))
        self._run.log_artifact(artifact)
        self._run.finish(exit_code=0 if completed else 1)
        if self._module.run is None:  # nobody else's run: its process writes to the end, and goes
            self._module.teardown()
