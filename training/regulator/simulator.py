"""Fast federations to learn in: many at once, of small classifiers on random tasks.

A stand-in for the quantum classifier: softmax regression, or one hidden layer of eight tanh units
(67 weights at 4 features and 3 classes, about as many as the QCNN's angles). Sites differ in rows,
label skew, label noise, speed, queue, price of a circuit, and in how often they drop out.
All arrays carry the federations first: B of them, K clients each.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from strategies.agents.regulator.encoding import SMOOTHING, FederationStates, smoothed
from training.regulator.tasks import Task

Floats = npt.NDArray[np.float64]
ANGLES = 64  # a gradient by parameter shift costs 1 + 2 * ANGLES circuits a row


@dataclass(frozen=True)
class Outcome:
    """What a round of B federations gave: reward in nats, and its parts.

    ``improvement`` is the fall of the best smoothed loss (`smoothed`).
    """

    reward: Floats
    improvement: Floats
    spend: Floats
    idle: Floats


def logits(weights: Tensor, features: Tensor, hidden: int, classes: int) -> Tensor:
    """Return the stand-in's logits.

    Parameters
    ----------
    weights : Tensor, shape (N, P)
        One model a row.
    features : Tensor, shape (N, n, d)
        Its rows.
    hidden : int
        Hidden units; 0: softmax regression.
    classes : int
        C.

    Returns
    -------
    Tensor, shape (N, n, C)
    """
    width = features.shape[-1]
    if hidden:
        cut = width * hidden
        first = weights[:, :cut].view(-1, width, hidden)
        bias = weights[:, cut : cut + hidden].unsqueeze(1)
        features = torch.tanh(torch.baddbmm(bias, features, first))
        weights, width = weights[:, cut + hidden :], hidden
    cut = width * classes
    last = weights[:, :cut].view(-1, width, classes)
    return torch.baddbmm(weights[:, cut : cut + classes].unsqueeze(1), features, last)


def losses_of(weights: Tensor, features: Tensor, labels: Tensor, task: Task) -> Tensor:
    """Return the mean cross-entropy of each model on its rows, nats, shape (N,)."""
    out = logits(weights, features, task.hidden, task.classes)
    picked = torch.log_softmax(out, -1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return -picked.mean(-1)


def train(
    start: Tensor, features: Tensor, labels: Tensor, mask: Tensor, steps: Tensor, task: Task
) -> Tensor:
    """Train N models side by side with Adam, each for its own number of steps.

    Parameters
    ----------
    start : Tensor, shape (N, P)
        First weights.
    features, labels, mask : Tensor, shapes (N, n, d), (N, n), (N, n)
        Rows; mask is 0 where a client has fewer.
    steps : Tensor of int64, shape (N,)
        Steps of each.
    task : Task
        Rates and shapes.

    Returns
    -------
    Tensor, shape (N, P)
    """
    order = torch.argsort(steps, descending=True)
    weights = start[order].clone()
    features, labels, mask = features[order], labels[order], mask[order]
    wanted = steps[order]
    share = mask / mask.sum(-1, keepdim=True)
    first, second = torch.zeros_like(weights), torch.zeros_like(weights)
    for step in range(1, int(wanted[0]) + 1 if len(wanted) else 1):
        active = int((wanted >= step).sum())
        now = weights[:active].requires_grad_(True)
        with torch.enable_grad():
            out = logits(now, features[:active], task.hidden, task.classes)
            picked = torch.log_softmax(out, -1).gather(-1, labels[:active].unsqueeze(-1))
            loss = -(picked.squeeze(-1) * share[:active]).sum()
            slope = torch.autograd.grad(loss, now)[0]
        first[:active] = 0.9 * first[:active] + 0.1 * slope
        second[:active] = 0.999 * second[:active] + 0.001 * slope**2
        move = first[:active] / (1 - 0.9**step)
        move = move / ((second[:active] / (1 - 0.999**step)).sqrt() + 1e-8)
        weights = torch.cat([(now - task.rate * move).detach(), weights[active:]])
    back = torch.empty_like(weights)
    back[order] = weights
    return back


@dataclass
class Federations:
    """B running federations of one task family; `FederationStates` is what an agent sees of them.

    Attributes
    ----------
    task : Task
        Data and clients, shapes (B, K, ...).
    rng : numpy.random.Generator
        Chance of queues, jitter and drop-outs.
    """

    task: Task
    rng: np.random.Generator
    round: int = 1
    weights: Tensor = field(init=False)
    losses: list[Floats] = field(init=False)
    best: Floats = field(init=False)
    done: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        size, clients = self.task.rows.shape
        self.weights = self.task.start.clone()
        self.losses = [self.evaluate(self.weights)]
        self.best = self.losses[0].copy()
        self.done = np.zeros(size, dtype=bool)
        unknown = np.full((size, clients), np.nan)
        self.known = {
            name: unknown.copy()
            for name in ("pace", "loss", "llm_loss", "credit", "standing", "since")
        }
        self.chosen = np.zeros((size, clients))

    def evaluate(self, weights: Tensor) -> Floats:
        """Return the server's validation loss, shape (B,), or (B, M) of M models each."""
        task = self.task
        if weights.dim() == 2:
            return losses_of(weights, task.server_x, task.server_y, task).double().numpy()
        many = weights.shape[1]
        flat = weights.reshape(-1, weights.shape[-1])
        rows = task.server_x.repeat_interleave(many, 0), task.server_y.repeat_interleave(many, 0)
        return losses_of(flat, *rows, task).double().numpy().reshape(len(weights), many)

    def states(self) -> FederationStates:
        """Return what an agent sees."""
        task, size = self.task, len(self.task.rows)
        losses, known = np.stack(self.losses, axis=1), dict(self.known)
        losses[task.blind, 0] = np.nan
        for name in ("credit", "standing"):
            known[name] = np.where(task.blind[:, None], np.nan, known[name])
        return FederationStates(
            round=np.full(size, float(self.round)),
            left=task.rounds - self.round + 1.0,
            classes=np.full(size, float(task.classes)),
            price=task.price,
            idle_price=task.idle_price,
            losses=losses,
            spend=self.spend(task.plain[:, None]),
            **known,
        )

    def spend(self, steps: Floats) -> Floats:
        """Return circuits times their price of so many steps, shape (B, K)."""
        per_step = self.task.batch * (1 + 2 * ANGLES)
        return np.asarray(self.task.prices * (self.task.fixed + steps * per_step))

    def step(self, steps: npt.NDArray[np.int64]) -> Outcome:
        """Run a round: ``steps`` (B, K), 0 where a client does not train; done ones stand still."""
        task = self.task
        steps = np.where(self.done[:, None], 0, steps)
        asked = steps > 0
        back = asked & (self.rng.random(asked.shape) >= task.drop)
        trained = self.train_clients(np.where(back, steps, 0))
        weights = torch.as_tensor(task.rows * back, dtype=torch.float32)
        held = weights.sum(1, keepdim=True)
        fresh = (weights.unsqueeze(-1) * trained).sum(1) / held.clamp(min=1)
        self.weights = torch.where(held > 0, fresh, self.weights)
        after = self.evaluate(self.weights)
        jitter = np.exp(self.rng.normal(0, 0.1, asked.shape))
        busy = steps * task.pace * jitter + self.rng.exponential(1.0, asked.shape) * task.queue
        self._note(back, trained, weights, self.losses[-1], after, busy, steps)
        self.losses.append(after)
        ends = self.round + 1 > task.rounds
        improvement = np.where(self.done, 0.0, self._improvement(ends))
        self.best -= improvement
        busy = np.where(back, busy, 0.0)
        idle = np.where(back, busy.max(1, keepdims=True) - busy, 0.0).sum(1)
        plain = (task.plain[:, None] * task.pace + task.queue).sum(1)
        paid = (self.spend(steps.astype(np.float64)) * asked).sum(1) / self.spend(
            task.plain[:, None]
        ).sum(1)
        waited = idle / plain
        self.round += 1
        self.done = self.done | ends
        reward = improvement - task.price * paid - task.idle_price * waited
        return Outcome(reward, improvement, paid, waited)

    def stop(self, which: npt.NDArray[np.bool_]) -> Floats:
        """End some federations; return what their last losses add to the improvement, (B,)."""
        improvement = np.where(which & ~self.done, self._improvement(which), 0.0)
        self.best -= improvement
        self.done = self.done | which
        return improvement

    def _improvement(self, ends: npt.NDArray[np.bool_]) -> Floats:
        """Return the fall of the best smoothed loss; of a run that ends its last loss counts."""
        now = smoothed(np.stack(self.losses[-SMOOTHING:], axis=1))[:, -1]
        now = np.where(ends, np.minimum(now, self.losses[-1]), now)
        return np.maximum(self.best - now, 0)

    def train_clients(self, steps: npt.NDArray[np.int64]) -> Tensor:
        """Return every client's model (B, K, P); of those without steps the global one."""
        task = self.task
        out = self.weights.unsqueeze(1).repeat(1, steps.shape[1], 1)
        at = torch.as_tensor(np.argwhere(steps > 0))
        if len(at):
            rows = (at[:, 0], at[:, 1])
            wanted = torch.as_tensor(steps)[rows]
            out[rows] = train(out[rows], task.x[rows], task.y[rows], task.mask[rows], wanted, task)
        return out

    def _note(
        self,
        back: npt.NDArray[np.bool_],
        trained: Tensor,
        weights: Tensor,
        before: Floats,
        after: Floats,
        busy: Floats,
        steps: npt.NDArray[np.int64],
    ) -> None:
        """Note what the server learns of those that came back."""
        task, known = self.task, self.known
        size, clients = back.shape
        self.chosen += back
        gain = before[:, None] - self.evaluate(trained)
        total = (weights.unsqueeze(-1) * trained).sum(1, keepdim=True)
        rest = weights.sum(1, keepdim=True).unsqueeze(-1) - weights.unsqueeze(-1)
        others = (total - weights.unsqueeze(-1) * trained) / rest.clamp(min=1e-6)
        credit = np.where(
            rest.squeeze(-1).numpy() > 0, self.evaluate(others) - after[:, None], gain
        )
        counted = np.maximum(back.sum(1, keepdims=True), 1)
        scale = np.where(back, np.abs(credit), 0).sum(1, keepdims=True) / counted
        share = credit / np.maximum(scale, 1e-12)
        rate = np.maximum(1 / np.maximum(self.chosen, 1), 0.3)
        standing = np.where(
            np.isnan(known["standing"]),
            share,
            known["standing"] + rate * (share - known["standing"]),
        )
        flat = trained.reshape(size * clients, -1)
        own = (task.own_x.flatten(0, 1), task.own_y.flatten(0, 1))
        loss = losses_of(flat, *own, task).double().numpy().reshape(size, clients)
        pace = busy / np.maximum(steps, 1)
        fresh = {
            "pace": pace,
            "loss": loss,
            "llm_loss": task.llm_loss,
            "credit": credit,
            "standing": standing,
            "since": np.zeros_like(loss),
        }
        known["since"] = known["since"] + 1
        for name, values in fresh.items():
            known[name] = np.where(back, values, known[name])


def repeated(task: Task, times: int) -> Task:
    """Return every federation of a task family `times` over, side by side."""
    changes: dict[str, Any] = {}
    for item in fields(task):
        value = getattr(task, item.name)
        if isinstance(value, Tensor):
            changes[item.name] = value.repeat_interleave(times, 0)
        elif isinstance(value, np.ndarray):
            changes[item.name] = np.repeat(value, times, axis=0)
    return replace(task, **changes)
