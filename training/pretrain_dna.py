"""Pre-train `dna-tiny` on unlabelled DNA: predict the 16 dinucleotide frequencies of a window.

``python -m training.pretrain_dna --data ../shared/data/human_vs_worm/train.csv --seed 0``

Only the column ``seq`` is read, never a label and never a test row. The regression head is
thrown away; the encoder, with how it was made, becomes ``llm/weights/dna_tiny.json``.
One half of each batch are windows of the file (or their reverse complement), the other half
are generated from random Markov chains, so that the model sees compositions the file lacks.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core import DataError, UserError
from llm.batches import LETTERS, KmerTokenizer, Tokens
from llm.device import quiet
from llm.dna_tiny import WEIGHTS, new_model
from llm.serialised import serialise, write_parts
from llm.training import linear_decay

if TYPE_CHECKING:
    import torch

PAIRS = tuple(first + second for first in LETTERS for second in LETTERS)
_COMPLEMENT = str.maketrans("ACGTN", "TGCAN")


@dataclass(frozen=True)
class Plan:
    """How to pre-train: steps of `batch` windows, peak learning rate, share of generated rows."""

    steps: int = 1000
    batch: int = 32
    learning_rate: float = 2e-3
    generated: float = 0.5
    seed: int = 0


def dinucleotides(sequences: Sequence[str]) -> np.ndarray:
    """Return the frequencies of the 16 dinucleotides.

    Parameters
    ----------
    sequences : sequence of str
        Upper-case DNA.

    Returns
    -------
    np.ndarray
        float32, (rows, 16), overlapping pairs in alphabetical order; each row sums to 1, or to
        0 where no pair is free of unknown letters.
    """
    counts = np.zeros((len(sequences), 16), dtype=np.float32)
    index = {pair: number for number, pair in enumerate(PAIRS)}
    for row, sequence in zip(counts, sequences, strict=True):
        for first, second in itertools.pairwise(sequence):
            column = index.get(first + second)
            if column is not None:
                row[column] += 1
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def reverse_complement(sequence: str) -> str:
    """Return the other strand, read in its own direction."""
    return sequence.translate(_COMPLEMENT)[::-1]


def random_windows(rows: int, length: int, rng: np.random.Generator) -> list[str]:
    """Return windows of first-order Markov chains whose tables are drawn again for each window."""
    tables = rng.dirichlet(np.full(4, 3.0), size=(rows, 4)).cumsum(axis=-1)
    states = rng.integers(4, size=rows)
    draws = rng.random((length, rows))
    letters = np.empty((rows, length), dtype=np.int64)
    for position in range(length):
        below = tables[np.arange(rows), states] < draws[position][:, None]
        states = below.sum(axis=1).clip(max=3)
        letters[:, position] = states
    alphabet = np.array(list(LETTERS))
    return ["".join(row) for row in alphabet[letters]]


def read_windows(path: Path) -> list[str]:
    """Return the upper-cased ``seq`` column of a CSV file.

    Raises
    ------
    core.DataError
        If the file is missing or has no such column.
    """
    if not path.is_file():
        raise DataError(f"no file {path}", "a CSV file with a column seq", "check --data")
    with path.open(newline="", encoding="utf-8") as file:
        windows = [row["seq"].upper() for row in csv.DictReader(file) if row.get("seq")]
    if not windows:
        raise DataError(f"{path} has no column seq with rows", "a CSV file with it", "check --data")
    return windows


def batch_of(windows: Sequence[str], plan: Plan, rng: np.random.Generator) -> list[str]:
    """Draw one batch: file windows on either strand, then generated ones of the same length."""
    generated = round(plan.batch * plan.generated) if windows else plan.batch
    chosen = [windows[i] for i in rng.integers(len(windows), size=plan.batch - generated)]
    flipped = rng.random(len(chosen)) < 0.5
    real = [reverse_complement(w) if flip else w for w, flip in zip(chosen, flipped, strict=True)]
    return real + random_windows(generated, 200, rng)


def pretrain(
    windows: Sequence[str], plan: Plan, progress: Callable[[str], None]
) -> tuple[dict[str, torch.Tensor], float]:
    """Train the encoder and its throw-away head.

    Parameters
    ----------
    windows : sequence of str
        Unlabelled windows.
    plan : Plan
        Steps, batch, learning rate and seed.
    progress : callable
        Gets a line now and then.

    Returns
    -------
    state : dict of name to torch.Tensor
        The encoder's weights.
    loss : float
        Mean of the last 50 batches' squared errors of the standardised frequencies (0 perfect,
        1 as good as the mean).
    """
    import torch

    rng = np.random.default_rng(plan.seed)
    mean, spread = _target_scale(windows, plan)
    tokenizer = KmerTokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        encoder = new_model(len(tokenizer))
        head = torch.nn.Linear(encoder.config.hidden_size, len(PAIRS))
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=plan.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: linear_decay(min(step, plan.steps - 1), plan.steps)
    )
    losses: list[float] = []
    for step in range(plan.steps):
        batch = batch_of(windows, plan, rng)
        target = torch.from_numpy((dinucleotides(batch) - mean) / spread)
        ids = tuple(tokenizer.encode(window) for window in batch)
        tokens = Tokens(ids, tokenizer.pad_token_id).batch(range(len(ids)))
        states = encoder(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
        loss = (head((states * mask).sum(1) / mask.sum(1)) - target).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if step % 100 == 99:
            progress(f"step {step + 1}/{plan.steps}: loss {np.mean(losses[-50:]):.4f}")
    return encoder.state_dict(), float(np.mean(losses[-50:]))


def _target_scale(windows: Sequence[str], plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([plan.seed, 1])
    sample = [w for _ in range(32) for w in batch_of(windows, plan, rng)]
    frequencies = dinucleotides(sample)
    return frequencies.mean(axis=0), frequencies.std(axis=0) + 1e-6


def _metadata(args: argparse.Namespace, plan: Plan, rows: int, loss: float) -> dict[str, Any]:
    import torch
    import transformers

    data = Path(args.data)
    return {
        "model": "dna-tiny: Llama, 2 layers, hidden 128, overlapping 3-mers",
        "objective": "mean squared error of the 16 standardised dinucleotide frequencies",
        "command": f"python -m training.pretrain_dna --data {data.as_posix()} --seed {plan.seed}"
        f" --steps {plan.steps} --generated {plan.generated}",
        "data": f"column seq of {data.parent.name}/{data.name}, labels not read",
        "rows": rows,
        "generated_share": plan.generated,
        "seed": plan.seed,
        "steps": plan.steps,
        "batch": plan.batch,
        "learning_rate": plan.learning_rate,
        "final_loss": round(loss, 5),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; see the module's first lines.

    Returns
    -------
    int
        0, or 2 with one line on stderr for a user's mistake.
    """
    parser = argparse.ArgumentParser(prog="python -m training.pretrain_dna", description=__doc__)
    parser.add_argument("--data", required=True, help="CSV file with a column seq (train rows)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--generated", type=float, default=Plan.generated)
    parser.add_argument("--output", type=Path, default=WEIGHTS)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    try:
        windows = read_windows(Path(args.data))
    except UserError as error:
        parser.error(str(error))
    import torch

    torch.set_num_threads(args.threads)
    quiet()
    plan = Plan(steps=args.steps, generated=args.generated, seed=args.seed)
    start = time.monotonic()
    state, loss = pretrain(windows, plan, lambda line: print(line, flush=True))
    text = serialise(state, _metadata(args, plan, len(windows), loss))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_parts(args.output, text)
    print(f"{args.output}: {len(text):,} bytes, {time.monotonic() - start:.0f} s, loss {loss:.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
