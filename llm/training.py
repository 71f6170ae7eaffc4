"""The fine-tuning loop: plain torch, early stop on validation loss, the best epoch's weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from core import LlmSettings, ModelError
from llm.batches import Tokens, shuffled_batches, sorted_batches
from llm.calibration import accuracy, fit_temperature, mean_nll
from llm.device import device_of, mixed_precision, moved
from llm.protocol import Progress, silent
from llm.time_left import TimeLeft

_EVALUATION_BATCH = 16
_CLIP_NORM = 1.0
_WEIGHT_DECAY = 0.01
WHOLE_MODEL_RATE = 0.1
"""Rate of the encoder's own weights, as a multiple of `llm.learning_rate`."""

# Version of the training recipe, a part of every stored teacher's key. Raise it with any change
# after which the same settings train otherwise: the numbers above, the
# warm-up in `linear_decay`, the pooling and head in `llm.encoders`, the
# batches in `llm.batches`, the choice of the epoch and the temperature. Else a site would go on
# with teachers of the old recipe.
RECIPE = 4


@dataclass(frozen=True)
class Rows:
    """Tokenised rows and their labels, int64, (rows,)."""

    tokens: Tokens
    labels: np.ndarray


@dataclass(frozen=True)
class Trained:
    """Epochs run, tokens trained on, and the epoch whose weights were chosen."""

    epochs: int
    tokens: int
    best_epoch: int


def predict(
    model: torch.nn.Module, tokens: Tokens, bfloat16: bool = False, progress: Progress = silent
) -> np.ndarray:
    """Return the logits of rows.

    Parameters
    ----------
    model : torch.nn.Module
        A classifier; left in eval mode.
    tokens : Tokens
        Rows; may be none.
    bfloat16 : bool
        Whether to compute in bfloat16 where the device has it: half the time, logits to two or
        three digits. What is stored of a model is computed in float32, the same on any machine.
    progress : callable
        Gets a line now and then, if it takes long.

    Returns
    -------
    np.ndarray
        float32, (rows, C); (0, 0) without rows.
    """
    model.eval()
    device = device_of(model)
    parts: list[np.ndarray] = []
    batches = sorted_batches(tokens.lengths, _EVALUATION_BATCH) if len(tokens) else []
    left = TimeLeft(progress, "predicting", int(tokens.lengths.sum()))
    with torch.inference_mode(), mixed_precision(device, bfloat16):
        for indices in batches:
            logits = model(**moved(tokens.batch(indices), device)).logits
            parts.append(logits.float().cpu().numpy())
            left.add(int(tokens.lengths[indices].sum()))
    if not parts:
        return np.zeros((0, 0), dtype=np.float32)
    stacked = np.concatenate(parts)
    result = np.empty_like(stacked)
    result[np.concatenate(batches)] = stacked
    return result


def train(
    model: torch.nn.Module,
    heads: tuple[str, ...],
    rows: Rows,
    validation: Rows,
    settings: LlmSettings,
    seed: int,
    progress: Progress,
) -> Trained:
    """Train a classifier in place; afterwards it has the weights of the best epoch.

    AdamW with a short linear warm-up and linear decay, gradients clipped, batches padded to their
    own longest row, bfloat16 where the device has it. Dropout draws from torch's generator.

    Parameters
    ----------
    model : torch.nn.Module
        Classifier; its parameters that require a gradient are trained.
    heads : tuple of str
        Names of the head's modules, which train at a rate of their own.
    rows, validation : Rows
        Training and validation rows; without the latter the last epoch's weights stay.
    settings : LlmSettings
        Epochs, batch size, rates and patience.
    seed : int
        Of the order of the rows.
    progress : callable
        Gets a line an epoch, and more if that takes long.

    Returns
    -------
    Trained
        Epochs and tokens.

    Raises
    ------
    core.ModelError
        If the loss is not finite in any epoch.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    steps = settings.epochs * math.ceil(len(rows.labels) / settings.batch_size)
    optimizer, schedule = optimiser(trainable, heads, settings, steps)
    rng = np.random.default_rng(seed)
    best_loss, best_epoch, best, epoch = math.inf, 0, {}, 0
    left = TimeLeft(progress, "fine-tuning", settings.epochs * int(rows.tokens.lengths.sum()))
    for epoch in range(1, settings.epochs + 1):
        batches = shuffled_batches(rows.tokens.lengths, settings.batch_size, rng)
        train_loss = run_batches(model, rows, batches, optimizer, schedule, left)
        loss, line = _validate(model, validation, train_loss)
        progress(f"epoch {epoch}/{settings.epochs}: training loss {train_loss:.3f}{line}")
        if loss < best_loss or (math.isfinite(loss) and not len(validation.labels)):
            best_loss, best_epoch = loss, epoch
            best = {name: p.detach().clone() for name, p in trainable.items()}
        elif settings.patience and epoch - best_epoch >= settings.patience:
            break
    if not best:
        raise diverged("fine-tuning", settings)
    _copy_into(trainable, best)
    model.eval()
    return Trained(epoch, epoch * int(rows.tokens.lengths.sum()), best_epoch)


def _copy_into(
    parameters: Mapping[str, torch.nn.Parameter], values: Mapping[str, torch.Tensor]
) -> None:
    """Copy values into the parameters of the same names."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])


def diverged(what: str, settings: LlmSettings) -> ModelError:
    """Return the error of a training whose loss is not finite."""
    given = f"{what} diverged with llm.learning_rate {settings.learning_rate:g}"
    return ModelError(given, "a rate at which the loss stays finite", "lower it")


def rates(settings: LlmSettings) -> tuple[float, float]:
    """Return the peak rates of the encoder's trainable weights and of the class head."""
    rate = settings.learning_rate
    body = rate if settings.peft != "none" else WHOLE_MODEL_RATE * rate
    return body, settings.head_learning_rate or rate


def optimiser(
    trainable: dict[str, torch.nn.Parameter],
    heads: tuple[str, ...],
    settings: LlmSettings,
    steps: int,
    taken: int = 0,
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """Return AdamW and its schedule of a linear rise and fall.

    Parameters
    ----------
    trainable, heads, settings
        What is trained, by name; the rest as in `train`.
    steps, taken : int
        Steps of the whole schedule, and how many of them lie behind.
    """
    optimizer = torch.optim.AdamW(_groups(trainable, heads, settings), weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: linear_decay(min(taken + step, steps - 1), steps)
    )
    return optimizer, schedule


def _groups(
    trainable: dict[str, torch.nn.Parameter], heads: tuple[str, ...], settings: LlmSettings
) -> list[dict[str, Any]]:
    head: list[torch.nn.Parameter] = []
    body: list[torch.nn.Parameter] = []
    for name, parameter in trainable.items():
        (head if set(heads) & set(name.split(".")) else body).append(parameter)
    groups = [
        {"params": p, "lr": rate} for p, rate in zip((body, head), rates(settings), strict=True)
    ]
    return [group for group in groups if group["params"]]


def run_batches(
    model: torch.nn.Module,
    rows: Rows,
    batches: Iterable[np.ndarray],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    left: TimeLeft,
) -> float:
    """Take one step a batch of row indices; return the mean loss by row, nats."""
    model.train()
    device = device_of(model)
    labels = torch.from_numpy(rows.labels).to(device)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    total, seen = 0.0, 0
    for indices in batches:
        with mixed_precision(device):
            logits = model(**moved(rows.tokens.batch(indices), device)).logits
        loss = torch.nn.functional.cross_entropy(logits.float(), labels[indices])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, _CLIP_NORM)
        optimizer.step()
        schedule.step()
        total += float(loss.detach()) * len(indices)
        seen += len(indices)
        left.add(int(rows.tokens.lengths[indices].sum()))
    return total / seen


def _validate(model: torch.nn.Module, validation: Rows, train_loss: float) -> tuple[float, str]:
    if not len(validation.labels):
        return train_loss, ""
    logits = predict(model, validation.tokens, bfloat16=True)
    if not np.isfinite(logits).all():
        return math.nan, ", validation loss not finite"
    # After temperature scaling: overconfidence can be corrected and does not count.
    temperature = fit_temperature(logits, validation.labels)
    loss = mean_nll(logits, validation.labels, temperature)
    share = accuracy(logits, validation.labels)
    return loss, f", validation loss {loss:.3f}, accuracy {share:.1%}"


def linear_decay(step: int, total: int, warm_up: float = 0.06) -> float:
    """Return the factor on the peak learning rate: a short linear rise, then a linear fall to 0.

    Parameters
    ----------
    step : int
        Number of steps already taken, 0 to total - 1.
    total : int
        Steps of the whole training.
    warm_up : float
        Share of the steps that rise.

    Returns
    -------
    float
        In (0, 1]; 1 at the end of the rise.
    """
    rising = max(1, math.ceil(total * warm_up))
    if step < rising:
        return (step + 1) / rising
    return (total - step) / max(1, total - rising + 1)
