"""One adapter that all sites train together, in rounds of averaging before the quantum rounds.

`ffa` is FFA-LoRA (Sun et al. 2024, arXiv 2403.12313): A is drawn from a seed that all sites share
and stays as it is, B and the head are trained and averaged; since the update B A is linear in
B, the average of the updates is the update of the average, exactly. `fedavg` averages A and B
apart, the common baseline, which is not exact: the mean of products is not the product of means.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core import LlmSettings, derive_seed
from llm import adapters
from llm.batches import drawn_rows, shuffled_batches
from llm.device import device_of, enough_memory, seeded
from llm.fine_tuning import Task
from llm.protocol import Progress, silent
from llm.shared_adapter import Arrays, Shared, build_shared, digest, read_arrays, write_arrays
from llm.sources import Source, resolve
from llm.teacher import content_key, read_facts, teacher_store, write_facts
from llm.time_left import TimeLeft
from llm.training import Rows, diverged, optimiser, run_batches


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
    number, seed : int
        The round, from 1, and the seed of the order of the rows.
    """
    rng = np.random.default_rng(seed)
    passes = [
        batch
        for _ in range(settings.epochs)
        for batch in shuffled_batches(lengths, settings.batch_size, rng)
    ]
    ends = [at * len(passes) // settings.rounds for at in (number - 1, number)]
    return passes[slice(*ends)]


def local_round(
    task: Task,
    arrays: Arrays,
    number: int,
    shared_seed: int,
    store: Path | None = None,
    progress: Progress = silent,
) -> LocalRound:
    """Train the shared adapter on a site's rows for one averaging round.

    A new AdamW in each round, its rate falling linearly over all rounds together.

    Parameters
    ----------
    task : Task
        At least one training row, no validation rows; its seed is that of the order of rows and
        of dropout.
    arrays : mapping
        The averaged parameters of the round before; empty in round 1.
    number : int
        The round, from 1.
    shared_seed : int
        The run's seed, from which all sites draw the same start.
    store, progress
        As in `llm.fine_tune`.

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
    source = resolve(task.settings.model, task.kind, layers=task.settings.layers)
    task = replace(task, settings=adapters.chosen(task.settings, source))
    entries = teacher_store(store) if store is not None else None
    key = _round_key(task, source, arrays, number, shared_seed)
    found = entries.read(key, _load_round) if entries and task.settings.reuse else None
    if found is not None:
        progress(f"{source.short}: shared adapter, round {number} taken from the site's store")
        return replace(found, seconds=time.perf_counter() - began)
    with enough_memory(source.name):
        done = _trained(task, arrays, number, shared_seed, partial(_named, progress, source))
    result = f"training loss {done.loss:.3f}" if done.steps else "no step is left"
    progress(f"{source.short}: shared adapter, round {number}/{task.settings.rounds}: {result}")
    if entries:
        try:
            entries.write(key, partial(_save_round, done))
        except OSError as error:
            progress(f"the shared adapter's round is not stored ({error})")
    return replace(done, seconds=time.perf_counter() - began)


def _named(progress: Progress, source: Source, line: str) -> None:
    progress(f"{source.short}: {line}")


def _load_round(folder: Path) -> LocalRound:
    facts = read_facts(folder)
    arrays = read_arrays(folder)
    return LocalRound(arrays, facts["steps"], 0, facts["loss"], 0.0, True, facts["start"])


def _save_round(done: LocalRound, folder: Path) -> None:
    write_arrays(done.arrays, folder)
    write_facts(folder, {"steps": done.steps, "loss": done.loss, "start": done.start})


def _trained(
    task: Task, arrays: Arrays, number: int, shared_seed: int, progress: Progress
) -> LocalRound:
    """Take a round's steps."""
    settings = task.settings
    shared = build_shared(settings, task.kind, task.classes, shared_seed)
    if arrays:
        shared.load(arrays)
    drawn = drawn_rows(task.train_labels, settings.rows, task.seed)
    texts = [task.train_texts[row] for row in drawn]
    rows = Rows(
        shared.model.tokens(texts, task.kind, settings.max_tokens), task.train_labels[drawn]
    )
    lengths = rows.tokens.lengths
    batches = round_batches(lengths, settings, number, task.seed)
    size = sum(int(lengths[batch].sum()) for batch in batches)
    left = TimeLeft(progress, f"shared adapter, round {number}:", size)
    loss = _train(shared, rows, batches, task, number, left) if batches else 0.0
    trained = shared.arrays()
    if not math.isfinite(loss) or not all(np.isfinite(a).all() for a in trained.values()):
        raise diverged("the shared adapter", settings)
    return LocalRound(trained, len(batches), size, loss, 0.0, False, shared.start)


def _round_key(task: Task, source: Source, arrays: Arrays, number: int, shared_seed: int) -> str:
    facts = {
        **task.facts(adapters.facts(task.settings, source)),
        "shared round": number,
        "shared seed": shared_seed,
        "from": digest(arrays) if arrays else "",
    }
    del facts["model"]
    return content_key([task.train_texts], [task.train_labels], facts)


def _train(
    shared: Shared,
    rows: Rows,
    batches: list[npt.NDArray[np.int64]],
    task: Task,
    number: int,
    left: TimeLeft,
) -> float:
    """Take a round's steps; return the mean training loss."""
    settings, parameters = task.settings, dict(shared.module.named_parameters())
    steps = settings.epochs * math.ceil(len(rows.labels) / settings.batch_size)  # of all rounds
    taken = (number - 1) * steps // settings.rounds
    trained = {name: parameters[name] for name in shared.names}
    optimizer, schedule = optimiser(trained, shared.model.heads, settings, steps, taken)
    with seeded(derive_seed(task.seed, "dropout", number), device_of(shared.module)):
        return run_batches(shared.module, rows, batches, optimizer, schedule, left)
