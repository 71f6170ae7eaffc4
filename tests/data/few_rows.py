"""Small tables whose rows name themselves, and the settings and sites made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core import DataSettings, Settings
from core.settings.aggregation import EvaluationSettings
from core.settings.run import RunSettings
from data import Site, Split, load_site


def run_settings(mode: str = "central", seed: int = 0, clients: int = 4, **data: Any) -> Settings:
    return Settings(
        run=RunSettings(seed=seed, clients=clients),
        data=DataSettings(**data),
        evaluation=EvaluationSettings(mode=mode),  # type: ignore[arg-type]
    )


def own(path: Path, **others: Any) -> Settings:
    """Settings of a file with few rows for the server."""
    given_rows = {"server_rows": 10} if others.get("mode") != "federated" else {}
    return run_settings(**{"source": "csv", "path": str(path), **given_rows, **others})


def per_site(path: str, mode: str = "federated", **data: Any) -> Settings:
    given_keys = {"source": "csv", "path": path, "per_site": True, "labels": "0,1", **data}
    return run_settings(mode, **given_keys)


def sites(settings: Settings) -> list[Site]:
    clients = settings.run.clients
    return [load_site(settings, client, clients)[1] for client in range(clients)]


def texts(parts: Sequence[Split]) -> list[str]:
    return [text for part in parts for text in part.texts]


def table(folder: Path, rows: int, name: str = "rows.csv", classes: int = 2) -> Path:
    """Write rows that name themselves, class by class, over three sites."""
    body = [f"row {i},{i * classes // rows},s{i % 3}" for i in range(rows)]
    (folder / name).write_text("text,label,site\n" + "\n".join(body) + "\n")
    return folder / name
