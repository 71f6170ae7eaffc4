from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import distillation
from bench.distillation import (
    PLAIN,
    SETS,
    VARIANTS,
    Case,
    first_round,
    given_by,
    main,
    rounds_to_same_loss,
    settings_of,
    table,
)


@pytest.mark.parametrize("data", SETS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_case_is_a_run_that_can_be_made(data: str, variant: str) -> None:
    settings = settings_of(Case(data, 50, 3, variant))
    plain = settings_of(Case(data, 50, 3, PLAIN))
    assert settings.data.train_rows == 50 * settings.run.clients
    assert (settings.agent.kind, settings.run.seed) == ("all", 3)
    assert (settings.distill.weight > 0) == (variant != PLAIN)
    same = ("run", "data", "features", "quantum", "train", "llm", "agent", "stop", "aggregation")
    assert all(getattr(settings, name) == getattr(plain, name) for name in same)


def test_rounds_to_the_same_loss_by_hand() -> None:
    assert first_round([0.9, 0.7, 0.8, 0.7], 0.7) == 2
    assert first_round([0.9, 0.8], 0.7) is None

    def run(*losses: float) -> dict[str, Any]:
        return {"validation_losses": losses}

    plain = run(0.9, 0.7, 0.8)
    assert rounds_to_same_loss([(plain, plain), (run(0.7), plain)]) == "1.5 (2, 1)"
    assert rounds_to_same_loss([(plain, plain), (run(0.8, 0.8), plain)]) == "2, -"


def line(case: Case, accuracy: float) -> dict[str, Any]:
    return {
        **vars(case),
        "accuracy": accuracy,
        "macro_recall": accuracy,
        "loss": 1 - accuracy,
        "validation_losses": [0.9, 1 - accuracy],
        "given": given_by(case),
        "seconds": {"wall": 1.0},
    }


def test_differences_are_paired_by_seed() -> None:
    accuracies = {(PLAIN, 0): 0.5, (PLAIN, 1): 0.9, ("calibrated KD", 1): 0.6}
    cases = {Case("dna", 50, s, v): a for (v, s), a in accuracies.items()}
    text = table({case: line(case, accuracy) for case, accuracy in cases.items()})
    head, _, first, second = text.splitlines()
    assert first.startswith("| dna | 50 | no KD | 2 | 0.7000 ± 0.2828 | - |")
    assert second.startswith("| dna | 50 | calibrated KD | 1 | 0.6000 | -0.3000 |")
    assert len({row.count("|") for row in (head, first, second)}) == 1


def test_finished_runs_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[Case] = []

    def measure(case: Case, data: Path, store: str) -> dict[str, Any]:
        made.append(case)
        if len(made) == 3:
            raise KeyboardInterrupt
        return line(case, 0.5)

    monkeypatch.setattr(distillation, "measure", measure)
    (tmp_path / "human_vs_worm").mkdir()
    out = tmp_path / "out.jsonl"
    asked = ["--data", str(tmp_path), "--only", "dna", "--seeds", "0", "--rows", "50"]
    with pytest.raises(KeyboardInterrupt):
        main([*asked, "--out", str(out)])
    main([*asked, "--out", str(out)])
    assert made == [Case("dna", 50, 0, name) for name in (*list(VARIANTS)[:3], *list(VARIANTS)[2:])]
    main([*asked, "--out", str(out)])
    assert len(made) == 5
    assert capsys.readouterr().out.count("| dna | 50 |") == 8
