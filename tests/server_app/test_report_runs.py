"""A generator of realistic results folders for the report's tests, and that they are realistic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from core import COST_KEYS, Settings, read_jsonl

CLASSES = ["human", "worm"]
CIRCUIT = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 160" width="600" height="160">'
    + "".join(f'<path d="M20 {y}H580" stroke="#333"/>' for y in (30, 65, 100, 135))
    + "".join(
        f'<rect x="{x}" y="{y}" width="46" height="47" fill="#dcecf8" stroke="#0b5fa5"/>'
        for x, y in ((80, 24), (80, 94), (190, 59), (320, 24), (430, 94))
    )
    + "</svg>"
)


def losses(seed: int, clients: int, rounds: int) -> np.ndarray:
    """Return falling losses of a run that learns, ``(clients + 1, rounds)``; row 0 is global."""
    draw = np.random.default_rng(seed)
    fall = 0.22 + 0.5 * np.exp(-0.45 * np.arange(rounds))
    noise = draw.normal(0, 0.02, (clients + 1, rounds))
    return np.asarray(fall + noise + draw.uniform(0, 0.08, (clients + 1, 1)))


def write(folder: Path, name: str, value: Any) -> None:
    text = json.dumps(value)
    if name.endswith(".jsonl"):
        text = "".join(json.dumps(line) + "\n" for line in value)
    (folder / name).write_text(text, encoding="utf-8")


def prepared(clients: int, rounds: int, *, llm: bool = True) -> dict[str, Any]:
    rows = [
        {
            "client": k,
            "site": f"client {k}",
            "train_rows": 180 + 10 * k,
            "val_rows": 45 + k,
            "class_rows": [90 + 12 * k, 90 - 2 * k],
            "backend": "exact",
            "llm": "dna-tiny" if llm else "",
        }
        for k in range(clients)
    ]
    return {
        "event": "prepared",
        "data": "dna-demo",
        "synthetic": True,
        "kind": "dna",
        "classes": CLASSES,
        "clients": rows,
        "model": "QCNN su4, 4 qubits",
        "angles": 84,
        "parameters": 86,
        "features": "kmer, 136 -> 4 (lda)",
        "agent": "rule (adaptive)",
        "validation_rows": 300,
        "test_rows": 1000,
        "rounds": rounds,
        "seconds": 4.2,
    }


def events(clients: int, rounds: int, *, llm: bool = True) -> list[dict[str, Any]]:
    """Return the whole run's events; client 1 sits out round 3, client 2 is dropped in round 4."""
    loss = losses(7, clients, rounds)
    lines, total = [prepared(clients, rounds, llm=llm)], 0
    for at in range(1, rounds + 1):
        participants = [k for k in range(clients) if (k, at) != (1, 3)]
        aggregated = [k for k in participants if (k, at) != (2, 4)]
        circuits = 0
        for k in participants:
            steps = 20 + 7 * ((at - 1 + k) % 4)
            circuits += steps * 190 * 169
            value = float(loss[k + 1, at - 1])
            lines.append(
                {
                    "event": "client",
                    "round": at,
                    "client": k,
                    "steps": steps,
                    "aggregated": k in aggregated,
                    "loss": value,
                    "accuracy": 1 - 0.45 * value,
                    "train_loss": value - 0.02,
                    "llm_loss": 0.31 if llm else None,
                    "llm_accuracy": 0.9 if llm else None,
                    "ratio": value / 0.31 if llm else None,
                    "circuits": steps * 190 * 169,
                    "busy_seconds": 0.05 * steps,
                    "idle_seconds": 2.1 - 0.05 * steps,
                    "llm_seconds": 9.0 if at == 1 and llm else 0.0,
                    "dropped": "" if k in aggregated else "update norm 214.2 above 100",
                }
            )
        total += circuits
        lines.append(
            {
                "event": "round",
                "round": at,
                "participants": participants,
                "aggregated": aggregated,
                "steps": {str(k): 20 + 7 * ((at - 1 + k) % 4) for k in participants},
                "loss": float(loss[0, at - 1]) - 0.04,
                "accuracy": float(1 - 0.4 * (loss[0, at - 1] - 0.04)),
                "circuits": circuits,
                "circuits_total": total,
                "idle_share": 0.08 + 0.05 * (at % 3),
                "seconds": 2.4,
                "reason": "r above 1 at clients 0 and 2: more steps",
                "failures": ["client 2: update norm 214.2 above 100"] if at == 4 else [],
            }
        )
    return lines


def ledger(clients: int) -> dict[str, Any]:
    one = {
        "steps": 183,
        "jobs": 0,
        "circuits": 5876130,
        "shots": 0,
        "two_qubit_gates": 94018080,
        "qpu_seconds": 0.0,
        "queue_seconds": 0.0,
        "train_seconds": 9.15,
        "idle_seconds": 3.4,
        "bytes_up": 14200,
        "bytes_down": 11800,
        "llm_tokens": 104448,
        "llm_seconds": 9.0,
    }
    each = {str(k): one for k in range(clients)}
    return {"entries": [], "totals": {k: v * clients for k, v in one.items()}, "clients": each}


def summary(clients: int, rounds: int, *, llm: bool = True) -> dict[str, Any]:
    teacher = {
        "loss": 0.31,
        "accuracy": 0.91,
        "macro_f1": 0.909,
        "raw_loss": 0.42,
        "temperature": 1.62,
        "epochs": 3,
        "seconds": 9.0,
        "reused": False,
    }
    flat = {"accuracy": 0.505, "macro_f1": 0.336, "macro_recall": 0.5}
    linear = {"accuracy": 0.924, "macro_f1": 0.924, "macro_recall": 0.924, "loss": 0.211}
    return {
        "status": "completed",
        "rounds": rounds,
        "best_round": rounds - 1,
        "stop_reason": "all rounds done",
        "test": {
            "accuracy": 0.934,
            "macro_f1": 0.934,
            "macro_recall": 0.9339,
            "loss": 0.198,
            "rows": 1000,
            "confusion": [[476, 29], [37, 458]],
            "calibration": [
                {"rows": 300, "confidence": 0.66, "accuracy": 0.82},
                {"rows": 700, "confidence": 0.93, "accuracy": 0.983},
            ],
            "calibration_error": 0.0851,
        },
        "validation": {"accuracy": 0.94, "loss": 0.19},
        "baselines": {
            "majority": flat,
            "logistic_projected": linear,
            "logistic_full": {**linear, "accuracy": 0.951},
        },
        "teachers": [{"client": k, **teacher} for k in range(clients)] if llm else [],
        "ledger": ledger(clients)["totals"],
        "seconds": {
            "prepare": 4.2,
            "fine_tuning": 36.0,
            "training": 14.1,
            "evaluation": 0.4,
            "report": 1.9,
            "total": 61.0,
        },
        "error": "",
    }


def make_run(folder: Path, clients: int = 4, rounds: int = 6, *, llm: bool = True) -> Path:
    """Write a results folder like those of a completed run."""
    folder.mkdir(parents=True, exist_ok=True)
    tree = Settings().model_dump()
    tree["run"].update(rounds=rounds, clients=clients)
    tree["quantum"]["reps"] = 3
    tree["train"]["learning_rate"] = 0.1
    write(
        folder,
        "config.json",
        {
            "settings": tree,
            "versions": {"flwr": "1.41.0", "pennylane": "0.45.0", "torch": "2.13.0"},
            "commit": "0123abc",
            "seed": 0,
            "name": "demo",
            "started": "2026-01-02T03:04:05",
        },
    )
    done = events(clients, rounds, llm=llm)
    end = {
        "event": "end",
        "status": "completed",
        "rounds": rounds,
        "stop_reason": "all rounds done",
    }
    write(folder, "metrics.jsonl", [*done, end])
    decisions = [
        {
            "round": event["round"],
            "kind": "rule",
            "participants": event["participants"],
            "steps": event["steps"],
            "stop": False,
            "reason": event["reason"],
            "observation": {},
        }
        for event in done
        if event["event"] == "round"
    ]
    stop = {"round": rounds + 1, "kind": "rule", "participants": [], "steps": {}, "stop": True}
    write(folder, "agent.jsonl", [*decisions, {**stop, "reason": "all rounds done"}])
    write(folder, "ledger.json", ledger(clients))
    write(folder, "summary.json", summary(clients, rounds, llm=llm))
    (folder / "circuit.svg").write_text(CIRCUIT, encoding="utf-8")
    return folder


def test_the_generated_run_holds_what_a_run_writes(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    kinds = [event["event"] for event in read_jsonl(folder / "metrics.jsonl")]
    assert kinds[0] == "prepared"
    assert kinds[-1] == "end"
    assert kinds.count("round") == 6
    assert kinds.count("client") == 4 * 6 - 1
    assert set(json.loads((folder / "ledger.json").read_text())["totals"]) == set(COST_KEYS)


def test_the_generated_run_learns() -> None:
    loss = losses(7, 4, 6)
    assert loss.shape == (5, 6)
    assert loss[0, -1] < loss[0, 0]
