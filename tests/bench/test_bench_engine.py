from __future__ import annotations

import pytest

from bench.engine import BACKENDS, gradient_step, main, milliseconds, row


def test_a_row_gives_the_others_as_ratios_to_ours() -> None:
    times = dict(zip(BACKENDS, (2.0, 50.0, 100.0), strict=True))
    assert row(4, 32, times) == "| 4 | 32 | 2.0 | 50 (25x) | 100 (50x) |"
    assert row(4, 32, {BACKENDS[0]: 2.0}) == "| 4 | 32 | 2.0 | not tried | not tried |"


def test_a_step_takes_time() -> None:
    assert milliseconds(gradient_step("exact", 2, 4), limit=0.05) > 0


def test_a_slow_simulator_is_not_tried_with_more_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--qubits", "2", "--rows", "2", "4", "--limit", "0.0001"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("| 2 | 4 | ")
    assert lines[-1].endswith("| not tried | not tried |")
