"""The journal of a run: its lines, and the folder that they are written to."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from logging import INFO
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord
from flwr.common.logger import log

from core import (
    AgentUsage,
    Cost,
    Ledger,
    Settings,
    append_jsonl,
    atomic_write,
    idle_share,
    read_file,
    read_json,
    read_jsonl,
    write_json,
    write_text,
)
from core.messages import Parameters, unpack_parameters
from core.model_file import write_model_file
from core.own_code import digests
from core.storage.chain import Chain, sha256
from core.storage.checkpoints import note_releases, note_underway, write_checkpoint
from strategies.decisions import Agent, Decision, HasTranscript, Observation
from strategies.decisions.harmless import counted
from strategies.regulation import llm_loss_of, loss_ratio
from strategies.state import FederationState
from strategies.update_validation import Round, Update

LOG = "log.jsonl"
"""The chained log of what was submitted, sent, answered, decided and aggregated."""

MODEL, KEPT, ADAPTER = "model.safetensors", "kept.safetensors", "adapter.safetensors"
AGGREGATION, RECENT = "aggregation.safetensors", "recent.safetensors"
"""Files of arrays. In a checkpoint: the global parameters, the best model so far where it is
another one, what the aggregation keeps between rounds, and the newest rounds' parameters where
they may be averaged; of the run: the kept model, and the adapter that the sites trained together.
"""


def cost_of_questions(attempts: Sequence[Mapping[str, Any]]) -> AgentUsage:
    """Add up what questions to a language model cost, as `agent.jsonl` has them."""
    return AgentUsage(
        questions=len(attempts),
        prompt_tokens=sum(attempt["prompt_tokens"] for attempt in attempts),
        answer_tokens=sum(attempt["answer_tokens"] for attempt in attempts),
        seconds=sum(attempt["seconds"] for attempt in attempts),
    )


def decision_line(
    kind: str, seen: Observation, decision: Decision, notes: list[str], agent: Agent | None
) -> dict[str, Any]:
    """Return a decision's line of ``agent.jsonl``, with an LLM's prompts and answers."""
    line = {"round": seen.round, "kind": kind, **decision.model_dump(), "guard": notes}
    if isinstance(agent, HasTranscript):
        attempts = [attempt.model_dump() for attempt in agent.attempts]
        line["decided_by"] = agent.decided_by
        line["attempts"] = attempts
        took = cost_of_questions(attempts)
        line["tokens"] = took.prompt_tokens + took.answer_tokens
        line["seconds"] = took.seconds
    return {**line, "observation": seen.model_dump()}


def agent_summary(kind: str, name: str, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up a run's decisions for its summary.

    Parameters
    ----------
    kind, name : str
        `agent.kind`, and what the report calls the agent.
    lines : sequence of mapping
        The lines of ``agent.jsonl``.

    Returns
    -------
    dict
        Counts: all ``decisions``; ``fallbacks``, which the rule made because the model failed
        or was ``uninformed``: its answers show that it does not go by what it is told;
        ``repaired``, where an answer was repaired or the guard changed the decision; ``everybody``,
        the rounds in which everybody trained since leaving clients out might have done harm, by
        what spoke against it; ``asked``,
        the questions, with the tokens and seconds of all of them.
    """
    attempts = [line.get("attempts") or [] for line in lines]
    took = cost_of_questions([attempt for tries in attempts for attempt in tries])
    repaired = [
        bool(line["guard"]) or bool(tries and not tries[-1]["problem"] and tries[-1]["notes"])
        for line, tries in zip(lines, attempts, strict=True)
    ]
    return {
        "kind": kind,
        "name": name,
        "decisions": len(lines),
        "asked": took.questions,
        "fallbacks": sum(
            bool(tries and (tries[-1]["problem"] or tries[-1].get("uninformed")))
            for tries in attempts
        ),
        "uninformed": sum(bool(tries and tries[-1].get("uninformed")) for tries in attempts),
        "repaired": sum(repaired),
        "everybody": counted(line["guard"] for line in lines),
        "prompt_tokens": took.prompt_tokens,
        "answer_tokens": took.answer_tokens,
        "seconds": took.seconds,
    }


def client_event(now: Round, update: Update, cost: Cost) -> dict[str, Any]:
    """Return a participant's line of ``metrics.jsonl``.

    ``clipped`` is by what its update was brought nearer to the others (`clip_to_centre`); 1: not;
    None: it was summed with others, see the round's ``groups``.
    """
    report, llm_loss = update.report, llm_loss_of(update.report)
    figures = asdict(report)
    if llm_loss is None:  # no language model: what it would have scored is not 0
        figures |= {key: None for key in figures if key.startswith("llm_")}
    return {
        "event": "client",
        "round": now.number,
        "client": update.client,
        "aggregated": update.client in now.aggregated,
        "dropped": update.dropped,
        "clipped": None if now.groups else now.shares.get(update.client, 1.0),
        **figures,
        "ratio": None if llm_loss is None else loss_ratio(report.loss, llm_loss),
        **asdict(cost),
        "busy_seconds": cost.busy_seconds,
    }


def round_event(
    now: Round,
    state: FederationState,
    costs: Mapping[int, Cost],
    loss: float,
    accuracy: float,
    seconds: float,
) -> dict[str, Any]:
    """Return a round's line of ``metrics.jsonl``, once its costs are in the ledger.

    A lost round aggregates no update; its loss and accuracy are those of the round before.
    """
    spent = state.ledger.totals()
    return {
        "event": "round",
        "round": now.number,
        "participants": now.decision.participants,
        "aggregated": now.aggregated,
        "steps": now.decision.steps,
        "loss": loss,
        "accuracy": accuracy,
        "alignment": state.alignments[-1] if state.alignments else 0.0,
        "llm_loss": state.llm_loss(),
        "circuits": sum(cost.circuits for cost in costs.values()),
        "circuits_total": spent.circuits,
        "jobs": sum(cost.jobs for cost in costs.values()),
        "shots_total": spent.shots,
        "qpu_seconds_total": spent.qpu_seconds,
        "idle_share": idle_share(costs.values()),
        "seconds": seconds,
        "reason": now.decision.reason,
        "failures": now.failures,
        **({"groups": now.groups} if now.groups else {}),
    }


def teachers_of(
    updates: Iterable[Update], known: Mapping[int, dict[str, float]]
) -> dict[int, dict[str, float]]:
    """Return what clients' first updates say of their language models, with those `known`.

    A client that fine-tuned none is not in it.
    """
    found = dict(known)
    for update in updates:
        if llm_loss_of(update.report) is not None:
            report = asdict(update.report)
            figures = {key[4:]: value for key, value in report.items() if key.startswith("llm_")}
            found.setdefault(update.client, {"client": update.client, **figures})
    return found


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
    listeners : list of callable
        Each is given every event once it is written; it may not raise.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listeners: list[Callable[[dict[str, Any]], None]] = []
        self.chain = Chain(folder / LOG)
        folder.mkdir(parents=True, exist_ok=True)

    def begin(self, settings: Settings) -> None:
        """Write ``config.json``: everything resolved, versions, seed, commit, the user's files."""
        write_json(
            self.folder / "config.json",
            {
                "settings": settings.model_dump(),
                "versions": versions(),
                "commit": os.environ.get("LLM_QFL_COMMIT", "unknown"),
                "code": digests(settings),
                "seed": settings.run.seed,
                "name": settings.run.name,
                "started": _now(),
            },
        )
        self.chain.append({"event": "begun", "config": self._digest("config.json")})

    def event(self, event: dict[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``; a round's figures go to the log too."""
        if event["event"] == "end":
            files = {name: self._digest(name) for name in ("summary.json", MODEL)}
            self.chain.append({"event": "end", "status": event["status"], "files": files})
            self.chain.sync()
        append_jsonl(self.folder / "metrics.jsonl", event)
        for listener in self.listeners:
            listener(event)
        if event["event"] == "round":
            figures = event["round"], event["loss"], 100 * event["accuracy"]
            log(INFO, "round %d: validation loss %.4f, accuracy %.1f %%", *figures)

    def decision(self, decision: dict[str, Any]) -> None:
        """Append one line to ``agent.jsonl``."""
        line = append_jsonl(self.folder / "agent.jsonl", decision)
        about = {"round": decision["round"], "sha256": sha256(line)}
        self.chain.append({"event": "decided", **about})

    def decisions(self) -> list[dict[str, Any]]:
        """Return the lines of ``agent.jsonl`` without what was observed: clients times rounds."""
        lines = read_jsonl(self.folder / "agent.jsonl")
        return [{k: part for k, part in line.items() if k != "observation"} for line in lines]

    def resumed(self, settings: Settings, server_round: int) -> None:
        """Note in ``config.json`` that the run goes on after a round, and what is set now."""
        before = read_json(self.folder / "config.json")
        parts = [*before.get("resumed", []), {"round": server_round, "at": _now()}]
        now = {"settings": settings.model_dump(), "versions": versions(), "resumed": parts}
        now["code"] = digests(settings)
        write_json(self.folder / "config.json", {**before, **now})
        went_on = {"round": server_round, "config": self._digest("config.json")}
        self.chain.append({"event": "resumed", **went_on})

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
        extra: Mapping[str, Parameters],
    ) -> None:
        """Write ``ledger.json``, then ``checkpoint/round-NNN/`` in one move."""
        write_json(self.folder / "ledger.json", state["ledger"], compact=True)

        def save(folder: Path) -> None:
            save_arrays(folder / MODEL, unpack_parameters(arrays))
            if best is not None:
                save_arrays(folder / KEPT, unpack_parameters(best))
            for name, parameters in extra.items():
                if parameters:
                    save_arrays(folder / name, parameters)

        stored = write_checkpoint(self.folder, server_round, dict(state), save)
        digest = self._digest(f"checkpoint/{stored.name}/{MODEL}")
        self.chain.append({"event": "aggregated", "round": server_round, "sha256": digest})
        self.chain.sync()

    def ledger(self, ledger: Ledger) -> None:
        """Write ``ledger.json``."""
        write_json(self.folder / "ledger.json", ledger.as_json(), compact=True)

    def model(self, parameters: Parameters, facts: dict[str, Any]) -> None:
        """Write the kept model: its arrays, projection included, and ``model.json``."""
        save_arrays(self.folder / MODEL, parameters)
        shared = facts["settings"]["features"]["encoder"] == "shared"
        write_model_file(self.folder, facts, (MODEL, ADAPTER) if shared else (MODEL,))

    def adapter(self, parameters: Parameters) -> None:
        """Write the adapter that the clients trained together, to ``adapter.safetensors``."""
        save_arrays(self.folder / ADAPTER, parameters)

    def circuit(self, svg: str) -> None:
        """Write the drawn circuit."""
        write_text(self.folder / "circuit.svg", svg)

    def summary(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json``."""
        write_json(self.folder / "summary.json", summary)

    def _digest(self, name: str) -> str:
        """Return the sha256 of a file of the run; empty if there is none."""
        try:
            return sha256(read_file(self.folder / name))
        except OSError:
            return ""


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
