"""One adapter that all sites train together, in rounds of averaging before the quantum rounds.

`ffa` is FFA-LoRA (Sun et al. 2024, arXiv 2403.12313): A is drawn from a seed that all sites share
and stays as it is, B and the head are trained and averaged; since the update B A is linear in
B, the average of the updates is the update of the average, exactly. `fedavg` averages A and B
apart, the common baseline, which is not exact: the mean of products is not the product of means.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core import LlmSettings, ModelError, derive_seed
from llm import adapters
from llm.batches import drawn_rows, shuffled_batches
from llm.device import device_of, enough_memory, seeded
from llm.frozen_adapter import Arrays, digest
from llm.shared import Shared, build_shared
from llm.sources import Kind, Source, resolve
from llm.store import Entry, content_key, read_entry, write_entry
from llm.tasks import Progress, Task, plan_of, silent
from llm.training import Rows, optimiser, run_batches


@dataclass(frozen=True)
class LocalRound:
    """What a site's part of an averaging round came to.

    Attributes
    ----------
    arrays : dict
        The trained parameters.
    steps, tokens : int
        Optimizer steps, and tokens trained on; 0 tokens if taken from the store.
    loss : float
        Mean training loss of its steps, nats.
    seconds : float
        Time of this call.
    reused : bool
        Whether it came from the store.
    start : int
        See `Shared.start`.
    """

    arrays: dict[str, npt.NDArray[Any]]
    steps: int
    tokens: int
    loss: float
    seconds: float
    reused: bool
    start: int


def round_batches(
    lengths: npt.NDArray[np.int64], settings: LlmSettings, number: int, seed: int
) -> list[npt.NDArray[np.int64]]:
    """Return the index batches of one averaging round.

    All rounds together are `llm.epochs` passes over the rows, cut into `llm.rounds` parts that
    differ by a step at most.

    Parameters
    ----------
    lengths : np.ndarray
        (rows,) tokens of each row.
    settings : LlmSettings
        ``epochs``, ``batch_size`` and ``rounds``.
    number : int
        The round, from 1.
    seed : int
        Of the order of the rows.
    """
    rng = np.random.default_rng(seed)
    passes = [
        batch
        for _ in range(settings.epochs)
        for batch in shuffled_batches(lengths, settings.batch_size, rng)
    ]
    first, last = steps_before(len(lengths), settings, number)
    return passes[first:last]


def steps_before(rows: int, settings: LlmSettings, number: int) -> tuple[int, int]:
    """Return how many steps lie behind when a round begins, and when it ends."""
    steps = all_steps(rows, settings)
    return (number - 1) * steps // settings.rounds, number * steps // settings.rounds


def all_steps(rows: int, settings: LlmSettings) -> int:
    """Return the optimizer steps of all rounds together."""
    return settings.epochs * math.ceil(rows / settings.batch_size)


def local_round(
    texts: Sequence[str],
    labels: npt.NDArray[np.int64],
    classes: int,
    settings: LlmSettings,
    kind: Kind,
    arrays: Arrays,
    number: int,
    seed: int,
    shared_seed: int,
    store: Path | None = None,
    progress: Progress = silent,
) -> LocalRound:
    """Train the shared adapter on a site's rows for one averaging round.

    AdamW anew in each round, its rate falling linearly over all rounds together.

    Parameters
    ----------
    texts : sequence of str
        Training rows, at least one.
    labels : np.ndarray
        Integers, (rows,), in [0, classes).
    classes : int
        Classes of the whole federation.
    settings : LlmSettings
        Model, adapters, training, ``federated`` and ``rounds``.
    kind : {"text", "dna"}
        What the rows are.
    arrays : mapping
        The averaged parameters of the round before; empty in round 1.
    number : int
        The round, from 1.
    seed : int
        Of the order of rows and of dropout.
    shared_seed : int
        The run's seed, from which all sites draw the same start.
    store : Path or None
        Folder of the site's memory; None keeps nothing.
    progress : callable
        Gets lines of the run's own progress.

    Returns
    -------
    LocalRound
        The trained parameters; the same for the same arguments at a fixed number of threads.

    Raises
    ------
    core.ModelError
        If the model is unsuitable, the arrays do not fit, or training diverges.
    """
    began = time.perf_counter()
    source = resolve(settings.model, kind)
    settings = adapters.chosen(settings, source)
    task = Task(texts, labels, (), labels[:0], classes, settings, kind, seed, False)
    key = _round_key(task, source, arrays, number, shared_seed)
    entry = read_entry(store, key) if store is not None and settings.reuse else None
    if entry is not None and entry.folder is not None:
        facts = entry.facts
        found = adapters.read_arrays(entry.folder)
        progress(f"{source.short}: shared adapter, round {number} taken from {entry.folder}")
        seconds = time.perf_counter() - began
        return LocalRound(found, facts["steps"], 0, facts["loss"], seconds, True, facts["start"])
    with enough_memory(source.name):
        shared = build_shared(settings, kind, classes, shared_seed)
        if arrays:
            shared.load(arrays)
        done, facts = _trained(shared, task, number)
    said = f"training loss {done.loss:.3f}" if done.steps else "no step is left"
    progress(f"{source.short}: shared adapter, round {number}/{settings.rounds}: {said}")
    _keep(store, key, facts, classes, done.arrays, progress)
    return replace(done, seconds=time.perf_counter() - began)


def _trained(shared: Shared, task: Task, number: int) -> tuple[LocalRound, dict[str, Any]]:
    """Take a round's steps; return what came of them, and what the store keeps besides."""
    settings = task.settings
    drawn = drawn_rows(task.train_labels, settings.rows, task.seed)
    texts = [task.train_texts[row] for row in drawn]
    tokens = shared.model.tokens(texts, task.kind, settings.max_tokens)
    batches = round_batches(tokens.lengths, settings, number, task.seed)
    loss = _train(shared, Rows(tokens, task.train_labels[drawn]), batches, task, number)
    arrays = shared.arrays()
    if not math.isfinite(loss) or not all(np.isfinite(a).all() for a in arrays.values()):
        raise ModelError(
            f"the shared adapter diverged with llm.learning_rate {settings.learning_rate:g}",
            "a rate at which the loss stays finite",
            "lower it",
        )
    used = sum(int(tokens.lengths[batch].sum()) for batch in batches)
    done = LocalRound(arrays, len(batches), used, loss, 0.0, False, shared.start)
    return done, {"steps": len(batches), "loss": loss, "start": shared.start}


def _round_key(task: Task, source: Source, arrays: Arrays, number: int, shared_seed: int) -> str:
    facts = {
        **task.facts(source),
        "shared round": number,
        "shared seed": shared_seed,
        "from": digest(arrays) if arrays else "",
    }
    del facts["model"]
    return content_key([task.train_texts], [task.train_labels], facts)


def _train(
    shared: Shared, rows: Rows, batches: list[npt.NDArray[np.int64]], task: Task, number: int
) -> float:
    """Take a round's steps; return the mean training loss."""
    if not batches:  # more rounds than steps: nothing is left to do
        return 0.0
    settings = task.settings
    held = dict(shared.module.named_parameters())
    optimizer, schedule = optimiser(
        {name: held[name] for name in shared.names},
        shared.model.heads,
        plan_of(task),
        all_steps(len(rows.labels), settings),
        taken=steps_before(len(rows.labels), settings, number)[0],
    )
    with seeded(derive_seed(task.seed, "dropout", number), device_of(shared.module)):
        return run_batches(shared.module, rows, batches, optimizer, schedule)


def _keep(
    store: Path | None,
    key: str,
    facts: dict[str, Any],
    classes: int,
    arrays: Arrays,
    progress: Progress,
) -> None:
    if store is None:
        return
    none = np.zeros((0, classes), dtype=np.float32)
    try:
        write_entry(
            store, key, Entry(none, none, facts), lambda to: adapters.write_arrays(arrays, to)
        )
    except OSError as error:
        progress(f"the shared adapter's round is not kept ({error})")
