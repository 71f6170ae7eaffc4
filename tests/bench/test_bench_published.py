from __future__ import annotations

import pytest

from bench.published import CASES, HEADER, Case, row, settings_of


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.data}: {case.label}")
def test_every_case_is_a_run_that_can_be_made(case: Case) -> None:
    settings = settings_of(case)
    published = "published" in case.label
    assert (settings.quantum.block == "paper") == published
    assert (settings.features.projection == "pca") == (published or "PCA" in case.label)


def test_a_row_has_a_cell_for_each_column() -> None:
    scored = {"accuracy": 0.5, "macro_f1": 0.4, "macro_recall": 0.3, "loss": 0.2}
    summary = {
        "test": scored,
        "baselines": dict.fromkeys(("majority", "logistic_projected", "logistic_full"), scored),
        "teachers": [{"accuracy": 0.9}],
        "ledger": {"circuits": 1234567},
        "rounds": 3,
        "best_round": 2,
    }
    line = row(CASES[0], 7, summary)
    assert line.count("|") == HEADER.splitlines()[0].count("|")
    assert "| 0.5000 / 0.3000 |" in line
    assert "1,234,567 | 3 (2) |" in line
