"""Where a run is written down: its folder, line by line, each file whole or absent."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord

from federation import (
    Ledger,
    Settings,
    append_jsonl,
    atomic_write,
    read_jsonl,
    write_json,
    write_text,
)
from federation.messages import Parameters, unpack_parameters
from strategies import FederationState

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
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        )

    def event(self, event: dict[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``."""
        append_jsonl(self.folder / "metrics.jsonl", event)

    def decision(self, decision: dict[str, Any]) -> None:
        """Append one line to ``agent.jsonl``."""
        append_jsonl(self.folder / "agent.jsonl", decision)

    def decisions(self) -> list[dict[str, Any]]:
        """Return the lines of ``agent.jsonl``."""
        return list(read_jsonl(self.folder / "agent.jsonl"))

    def checkpoint(
        self, server_round: int, arrays: ArrayRecord, state: FederationState, best: bool
    ) -> None:
        """Write ``checkpoint/round-NNN/`` (model and state) in one move, and ``ledger.json``."""
        target = self.folder / "checkpoint" / f"round-{server_round:03d}"
        draft = target.with_name(f".{target.name}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        save_arrays(draft / "model.safetensors", unpack_parameters(arrays))
        write_json(
            draft / "state.json",
            {
                "round": server_round,
                "best": best,
                "losses": state.losses,
                "accuracies": state.accuracies,
                "alignments": state.alignments,
                "steps_done": state.steps_done,
                "views": [view.model_dump() for view in state.views.values()],
            },
        )
        shutil.rmtree(target, ignore_errors=True)
        draft.replace(target)
        self.ledger(state.ledger)

    def ledger(self, ledger: Ledger) -> None:
        """Write ``ledger.json``."""
        write_json(self.folder / "ledger.json", ledger.as_json())

    def model(self, parameters: Parameters) -> None:
        """Write the kept model, with the projection it needs, to ``model.safetensors``."""
        save_arrays(self.folder / "model.safetensors", parameters)

    def adapter(self, parameters: Parameters) -> None:
        """Write the adapter that the clients trained together, to ``adapter.safetensors``."""
        save_arrays(self.folder / "adapter.safetensors", parameters)

    def circuit(self, svg: str) -> None:
        """Write the drawn circuit."""
        write_text(self.folder / "circuit.svg", svg)

    def summary(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json``."""
        write_json(self.folder / "summary.json", summary)


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


def totals(ledger: Ledger) -> dict[str, Any]:
    """Return the ledger's totals as JSON."""
    return asdict(ledger.totals())
