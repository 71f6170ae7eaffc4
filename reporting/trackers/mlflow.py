"""MLflow: its tracking server of ``MLFLOW_TRACKING_URI``, else ``mlruns`` beside the results."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

EXPERIMENT = "llm-qfl"
TAG = "llm-qfl.run"
"""Tag by which a resumed run finds its own."""

IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ALLOW_FILE_STORE": "true",
}
"""A server that is away must not hold the run; and files are MLflow's store without a server."""


class Tracker:
    """Logs metrics and parameters; the files are artifacts."""

    def __init__(self, name: str, key: str, folder: Path, settings: Mapping[str, Any]) -> None:
        for variable, value in IMPATIENT.items():
            os.environ.setdefault(variable, value)
        from mlflow import MlflowClient
        from mlflow.entities import Param

        place = os.environ.get("MLFLOW_TRACKING_URI") or (folder.parent / "mlruns").as_uri()
        self._client = MlflowClient(tracking_uri=place)
        found = self._client.get_experiment_by_name(EXPERIMENT)
        experiment = found.experiment_id if found else self._client.create_experiment(EXPERIMENT)
        runs = self._client.search_runs([experiment], f"tags.`{TAG}` = '{key}'")
        tags = {TAG: key, "mlflow.source.name": str(folder)}
        run = runs[0] if runs else self._client.create_run(experiment, run_name=name, tags=tags)
        self._run, self._step = run.info.run_id, 0
        fresh = [Param(k, str(v)) for k, v in settings.items() if k not in run.data.params]
        for at in range(0, len(fresh), 100):  # what one call takes
            self._client.log_batch(self._run, params=fresh[at : at + 100])

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Log metrics."""
        from mlflow.entities import Metric

        self._step, now = step, int(1000 * time.time())
        metrics = [Metric(name, value, now, step) for name, value in figures.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self, figures: Mapping[str, float], files: list[Path], *, completed: bool) -> None:
        """Log the final test and the artifacts, and end the run."""
        self.log(self._step, figures)
        for path in files:
            self._client.log_artifact(self._run, str(path))
        self._client.set_terminated(self._run, "FINISHED" if completed else "FAILED")
