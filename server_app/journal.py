"""Where a run is written down: its folder, line by line, each file whole or absent."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from logging import INFO
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord
from flwr.common.logger import log

from core import (
    Cost,
    Ledger,
    Settings,
    append_jsonl,
    atomic_write,
    read_json,
    read_jsonl,
    write_json,
    write_text,
)
from core.messages import Parameters, unpack_parameters
from core.storage.checkpoints import note_releases, note_underway, write_checkpoint

MODEL, KEPT, ADAPTER = "model.safetensors", "kept.safetensors", "adapter.safetensors"
"""Files of arrays. In a checkpoint: the global parameters, and the model to be kept so far where it
is another one; of the run: the kept model, and the adapter that the sites trained together."""

PACKAGES = [
    "llm-qfl",
    "flwr",
    "ray",
    "torch",
    "pennylane",
    "transformers",
    "peft",
    "llguidance",
    "datasets",
    "scikit-learn",
    "numpy",
    "scipy",
]


class RunJournal:
    """Writes a run's folder.

    Parameters
    ----------
    folder : Path
        The results folder; made if absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def begin(self, settings: Settings) -> None:
        """Write ``config.json``: everything resolved, versions, seed, commit."""
        write_json(
            self.folder / "config.json",
            {
                "settings": settings.model_dump(),
                "versions": versions(),
                "commit": os.environ.get("LLM_QFL_COMMIT", "unknown"),
                "seed": settings.run.seed,
                "name": settings.run.name,
                "started": _now(),
            },
        )

    def event(self, event: dict[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``; a round's figures go to the log too."""
        append_jsonl(self.folder / "metrics.jsonl", event)
        if event["event"] == "round":
            figures = event["round"], event["loss"], 100 * event["accuracy"]
            log(INFO, "round %d: validation loss %.4f, accuracy %.1f %%", *figures)

    def decision(self, decision: dict[str, Any]) -> None:
        """Append one line to ``agent.jsonl``."""
        append_jsonl(self.folder / "agent.jsonl", decision)

    def decisions(self) -> list[dict[str, Any]]:
        """Return the lines of ``agent.jsonl``."""
        return list(read_jsonl(self.folder / "agent.jsonl"))

    def resumed(self, settings: Settings, server_round: int) -> None:
        """Note in ``config.json`` that the run goes on after a round, and what is set now."""
        before = read_json(self.folder / "config.json")
        parts = [*before.get("resumed", []), {"round": server_round, "at": _now()}]
        now = {"settings": settings.model_dump(), "versions": versions(), "resumed": parts}
        write_json(self.folder / "config.json", {**before, **now})

    def underway(self, server_round: int, costs: Mapping[int, Cost]) -> None:
        """Write down what a round has cost so far, in case it is never closed."""
        note_underway(self.folder, server_round, {k: asdict(cost) for k, cost in costs.items()})

    def released(self, count: int) -> None:
        """Write ``checkpoint/releases.json``."""
        note_releases(self.folder, count)

    def checkpoint(
        self,
        server_round: int,
        arrays: ArrayRecord,
        best: ArrayRecord | None,
        state: Mapping[str, Any],
    ) -> None:
        """Write ``ledger.json``, then ``checkpoint/round-NNN/`` in one move."""
        write_json(self.folder / "ledger.json", state["ledger"])

        def save(folder: Path) -> None:
            save_arrays(folder / MODEL, unpack_parameters(arrays))
            if best is not None:
                save_arrays(folder / KEPT, unpack_parameters(best))

        write_checkpoint(self.folder, server_round, dict(state), save)

    def ledger(self, ledger: Ledger) -> None:
        """Write ``ledger.json``."""
        write_json(self.folder / "ledger.json", ledger.as_json())

    def model(self, parameters: Parameters) -> None:
        """Write the kept model, with the projection it needs, to ``model.safetensors``."""
        save_arrays(self.folder / MODEL, parameters)

    def adapter(self, parameters: Parameters) -> None:
        """Write the adapter that the clients trained together, to ``adapter.safetensors``."""
        save_arrays(self.folder / ADAPTER, parameters)

    def circuit(self, svg: str) -> None:
        """Write the drawn circuit."""
        write_text(self.folder / "circuit.svg", svg)

    def summary(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json``."""
        write_json(self.folder / "summary.json", summary)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def load_arrays(path: Path) -> Parameters:
    """Read named arrays from safetensors."""
    from safetensors.numpy import load_file

    arrays: Parameters = load_file(path)
    return arrays


def save_arrays(path: Path, arrays: Parameters) -> None:
    """Write named arrays as safetensors, atomically."""
    from safetensors.numpy import save_file

    atomic_write(path, lambda file: save_file(arrays, str(file)))


def versions() -> dict[str, str]:
    """Return Python's and the main packages' versions; absent ones are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
