"""Teach SmolLM2 the regulator's task, and a model from scratch on the same federations.

``python -m training.smollm2.train [FOLDER] [--seed 0] [--out FILE]``: FOLDER holds SmolLM2 as
transformers saves it; without one it is the packaged model's. The course is the regulator's own
(`training.regulator.train`): imitation of its rule, then its rewards, on the same simulated
families, of which a big model sees fewer. Beside it learns a fresh regulator, update for update on
the same federations; both, and the shipped regulator, are judged on federations that nobody learned
from. About 25 minutes of one core.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from core import derive_seed
from strategies.agents.regulator import policy
from training.regulator.rivals import RIVALS
from training.regulator.rollouts import by_model
from training.regulator.train import Course, evaluated, faded, family, imitate, reinforce
from training.smollm2.model import FIRST, LAST, load, smollm2_folder

COURSE = Course(
    imitation=24, reinforcement=10, federations=3, batch=16, rate=1e-3, reinforced_rate=2e-4
)
"""A tenth of the regulator's federations, in smaller batches."""

Report = Callable[[str], None]


def learn(
    model: Any,
    course: Course,
    seed: int,
    report: Report,
    families: int,
    name: str,
    save: Callable[[], object] = bool,
) -> list[dict[str, float]]:
    """Let a model learn in both stages, in place; return its rewards after each of them.

    ``save`` is called after each stage, before what it made is judged.
    """
    curve: list[dict[str, float]] = []
    began = time.process_time()
    learnt = [one for one in model.parameters() if one.requires_grad]
    for stage, updates, rate, group in (
        ("imitation", course.imitation, course.rate, 1),
        ("reinforcement", course.reinforcement, course.reinforced_rate, course.group),
    ):
        if not updates:
            continue
        reference = copy.deepcopy(model).eval()
        optimizer = torch.optim.AdamW(learnt, lr=rate, weight_decay=0.01)
        fade = torch.optim.lr_scheduler.LambdaLR(optimizer, faded(updates))
        size = course.federations * (1 if group > 1 else 4)
        for number in range(updates):
            running = family(seed, stage, number, size, group)
            if stage == "imitation":
                value = imitate(model, optimizer, running, course)
            else:
                value = reinforce(model, optimizer, running, course, reference)
            fade.step()
            report(f"{name} {stage} {number + 1}: {value:.4f}, {time.process_time() - began:.0f} s")
        save()
        reward = evaluated(seed, {name: by_model(model)}, families)[name]
        curve.append({stage: updates, "reward": reward, "seconds": time.process_time() - began})
        report(f"{name} after {stage}: reward {reward:.4f}")
    return curve


def milliseconds(model: Any, seed: int, clients: int = 10, times: int = 10) -> float:
    """Return the time of one decision of so many clients, nothing of it known before."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(
        9, len(policy.VOCABULARY), (times + 1, 8 + 7 * clients), generator=generator
    )
    began = 0.0
    for place, one in enumerate(ids.split(1)):
        if place == 1:  # the first warms up
            began = time.perf_counter()
        policy.draw(model, one, torch.tensor([True]))
    return 1000 * (time.perf_counter() - began) / times


def main(given: list[str]) -> int:
    """Train, compare, and write the adapter with its curve."""
    parser = argparse.ArgumentParser(prog="training.smollm2.train", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/smollm2-regulator.safetensors"))
    parser.add_argument("--imitation", type=int, default=COURSE.imitation)
    parser.add_argument("--reinforcement", type=int, default=COURSE.reinforcement)
    parser.add_argument("--families", type=int, default=6)
    chosen = parser.parse_args(given)
    torch.set_num_threads(1)
    course = replace(COURSE, imitation=chosen.imitation, reinforcement=chosen.reinforcement)

    def report(line: str) -> None:
        print(line, flush=True)

    torch.manual_seed(derive_seed(chosen.seed, "smollm2", "weights"))
    scratch = policy.new_model()
    pretrained = load(chosen.folder or smollm2_folder())
    about: dict[str, Any] = {"seed": chosen.seed, "course": asdict(course), "layers": [FIRST, LAST]}
    about["parameters"] = sum(one.numel() for one in pretrained.learnt().values())

    def save() -> None:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        arrays = {name: one.detach().bfloat16() for name, one in pretrained.learnt().items()}
        save_file(arrays, chosen.out, metadata={"about": json.dumps(about)})

    about["scratch"] = learn(scratch, course, chosen.seed, report, chosen.families, "scratch")
    about["smollm2"] = learn(
        pretrained, course, chosen.seed, report, chosen.families, "smollm2", save
    )
    shipped = policy.load()
    known = {**RIVALS, "shipped regulator": by_model(shipped)}
    about["rivals"] = evaluated(chosen.seed, known, chosen.families)
    about["milliseconds"] = {
        "smollm2": milliseconds(pretrained, 0),
        "regulator": milliseconds(shipped, 0),
    }
    report(json.dumps(about))
    save()
    print(chosen.out, chosen.out.stat().st_size)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
