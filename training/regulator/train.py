"""Train the regulator: first it imitates a good rule, then its own rewards teach it.

``python -m training.regulator.train [--seed 0] [--out FILE]``: simulated federations
(`simulator`, `tasks`), nothing else; a quarter of an hour of one core. Imitation: cross-entropy on
what the rule (`rivals.steady`) would do in states that it, and chance, lead to. Reinforcement:
groups of runs that begin alike, each decision weighed by what its future earned beyond its group's
mean, less the divergence from what imitation made (GRPO, arXiv 2402.03300), with PPO's clipped
ratio. Reward: fall of the best validation loss, a mean of three rounds, less the price of circuits
and of waiting, in nats.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from core import derive_seed
from llm.serialised import serialise, write_parts
from strategies.agents.regulator.policy import (
    WEIGHTS,
    likelihood,
    new_model,
    token_scores,
    tokens_of,
)
from training.regulator.rivals import RIVALS, steady
from training.regulator.rollouts import (
    Bools,
    Decide,
    Floats,
    Places,
    advantages,
    by_model,
    may_stop,
    play,
)
from training.regulator.simulator import Federations, repeated
from training.regulator.tasks import draw_task

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForCausalLM

EVALUATED = 48
"""Federations of each family that models and rivals are compared on."""


@dataclass(frozen=True)
class Course:
    """How long and how fast the regulator learns.

    Attributes
    ----------
    imitation, reinforcement : int
        Families of federations in each stage.
    federations, group : int
        Federations of a family, and runs of each of them under reinforcement.
    rate, reinforced_rate : float
        AdamW's step sizes.
    divergence : float
        Weight of the divergence from what imitation made, under reinforcement.
    """

    imitation: int = 30
    reinforcement: int = 20
    federations: int = 12
    group: int = 8
    rate: float = 1e-3
    reinforced_rate: float = 3e-4
    divergence: float = 1.0
    clip: float = 0.2
    batch: int = 64
    passes: int = 2
    epsilon: float = 0.25


def family(seed: int, stage: str, number: int, federations: int, group: int = 1) -> Federations:
    """Return the running federations of one update; the same arguments give the same."""
    rng = np.random.default_rng(derive_seed(seed, "regulator", stage, number))
    task = draw_task(rng, federations, int(rng.integers(3, 13)))
    return Federations(repeated(task, group), rng)


def _wandering(epsilon: float) -> tuple[Decide, list[Tensor]]:
    """Follow the steady half, or chance with probability epsilon; keep what the rule would say."""
    wanted: list[Tensor] = []

    def decide(running: Federations, ids: Tensor, order: Places) -> tuple[Bools, Floats]:
        stop, levels = steady(running, ids, order)
        stop &= may_stop(running).numpy()
        live = ~running.done
        wanted.append(torch.as_tensor(tokens_of(stop, levels))[torch.as_tensor(live)])
        rng, size = running.rng, len(stop)
        stray = rng.random(size) < epsilon
        # Stopping ends what there is to see: most states come from going on.
        stop &= rng.random(size) < 0.5
        strange = np.where(
            rng.random(levels.shape) < 0.4, rng.choice([0.5, 1, 2, 4], levels.shape), 0
        )
        strange[strange.sum(1) == 0, 0] = 1.0
        return stop, np.where(stray[:, None], strange, levels)

    return decide, wanted


def imitate(
    model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, running: Federations, course: Course
) -> float:
    """Learn the rule in one family; return the first pass's mean negative log-likelihood."""
    decide, wanted = _wandering(course.epsilon)
    steps, _ = play(running, decide)
    tokens = torch.cat(wanted)
    losses = []
    for _ in range(course.passes):
        order = torch.as_tensor(running.rng.permutation(len(tokens)))
        for part in torch.split(order, course.batch):
            free = torch.as_tensor(steps.round[part.numpy()] > 0)
            loss = -likelihood(model, steps.ids[part], tokens[part], free).mean()
            _update(model, optimizer, loss)
            losses.append(float(loss.detach()))
    first = losses[: max(1, len(losses) // course.passes)]
    return sum(first) / len(first)


def reinforce(
    model: LlamaForCausalLM,
    optimizer: torch.optim.Optimizer,
    running: Federations,
    course: Course,
    reference: LlamaForCausalLM | None = None,
) -> float:
    """Learn from one family's own runs; return their mean reward, nats.

    ``reference`` is the model that imitation made, which the regulator is held near to: without
    it, it learned what paid in simulation only.
    """
    likely: list[Tensor] = []
    chance = torch.Generator().manual_seed(int(running.rng.integers(2**31)))
    steps, rewards = play(running, by_model(model, chance, likely))
    gains = advantages(rewards, course.group)[steps.round, steps.federation]
    weight = torch.as_tensor(gains, dtype=torch.float32).clamp(-4, 4)
    free, before = torch.as_tensor(steps.round > 0), torch.cat(likely)
    order = torch.as_tensor(running.rng.permutation(len(weight)))
    for part in torch.split(order, 3 * course.batch):
        scores = token_scores(model, steps.ids[part], steps.tokens[part], free[part])
        ratio = (scores.log_probability() - before[part]).exp()
        bounded = ratio.clamp(1 - course.clip, 1 + course.clip)
        objective = torch.minimum(ratio * weight[part], bounded * weight[part])
        if reference is not None:
            with torch.no_grad():
                known = token_scores(reference, steps.ids[part], steps.tokens[part], free[part])
            objective = objective - course.divergence * scores.divergence(known)
        _update(model, optimizer, -objective.mean())
    return float(rewards.sum(0).mean())


def _update(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def faded(updates: int) -> Callable[[int], float]:
    """Return the rate's factor after so many updates: up in five, then down to a tenth."""
    return lambda done: min(1.0, (done + 1) / 5) * (1 - 0.9 * done / max(updates, 1))


def evaluated(seed: int, deciders: dict[str, Decide], families: int = 6) -> dict[str, float]:
    """Return each decider's mean reward, nats, on the same federations that nobody learns from."""
    return {
        name: float(
            np.mean(
                [
                    play(family(seed, "judge", number, EVALUATED), decide)[1].sum(0).mean()
                    for number in range(families)
                ]
            )
        )
        for name, decide in deciders.items()
    }


def train(
    course: Course, seed: int, report: Any = print, families: int = 6
) -> tuple[LlamaForCausalLM, dict[str, Any]]:
    """Return the trained model, and what the shipped file says of its making.

    Parameters
    ----------
    course : Course
        How long and how fast.
    seed : int
        The one seed.
    report : callable
        Gets a line now and then.
    families : int
        Families of federations that it is evaluated on.
    """
    torch.manual_seed(derive_seed(seed, "regulator", "weights"))
    model, began = new_model(), time.monotonic()
    rivals = evaluated(seed, RIVALS, families)
    report("rivals " + ", ".join(f"{name} {value:.4f}" for name, value in rivals.items()))
    curve: list[dict[str, float]] = []
    for stage, updates, rate, group in (
        ("imitation", course.imitation, course.rate, 1),
        ("reinforcement", course.reinforcement, course.reinforced_rate, course.group),
    ):
        reference = copy.deepcopy(model).eval()
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
        fade = torch.optim.lr_scheduler.LambdaLR(optimizer, faded(updates))
        recent = []
        size = course.federations if group > 1 else 4 * course.federations
        for number in range(updates):
            running = family(seed, stage, number, size, group)
            recent.append(
                imitate(model, optimizer, running, course)
                if stage == "imitation"
                else reinforce(model, optimizer, running, course, reference)
            )
            fade.step()
            if (number + 1) % 20 == 0 or number + 1 == updates:
                reward = evaluated(seed, {"model": by_model(model)}, families)["model"]
                curve.append(
                    {stage: number + 1, "learned": float(np.mean(recent)), "reward": reward}
                )
                report(
                    f"{stage} {number + 1}: {np.mean(recent):.4f}, reward {reward:.4f}, "
                    f"{time.monotonic() - began:.0f} s"
                )
                recent = []
    about = _about(course, seed, families)
    about |= {"seconds": round(time.monotonic() - began), "rivals": rivals, "curve": curve}
    return model.eval(), about


def _about(course: Course, seed: int, families: int) -> dict[str, Any]:
    """Return what the shipped file says of the weights, but for what came out."""
    return {
        "made_by": f"python -m training.regulator.train --seed {seed} "
        f"--imitation {course.imitation} --reinforcement {course.reinforcement}",
        "seed": seed,
        "course": asdict(course),
        "judged_on": f"{EVALUATED * families} simulated federations of {families} families that "
        "nobody learned from; mean reward in nats: fall of the best validation loss (mean of three "
        "rounds) less the price of circuits and waiting",
        "data": "simulated federations of softmax regressions and small tanh networks on random "
        "Gaussian mixtures; see training/regulator/tasks.py. No real data.",
    }


def main(given: list[str]) -> int:
    """Train and write the weights."""
    parser = argparse.ArgumentParser(prog="training.regulator.train", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--imitation", type=int, default=Course.imitation)
    parser.add_argument("--reinforcement", type=int, default=Course.reinforcement)
    chosen = parser.parse_args(given)
    torch.set_num_threads(1)  # the same numbers on any machine with as many
    course = Course(imitation=chosen.imitation, reinforcement=chosen.reinforcement)
    model, about = train(course, chosen.seed, lambda line: print(line, flush=True))
    state = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}
    write_parts(chosen.out, serialise(state, about))
    print(chosen.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
