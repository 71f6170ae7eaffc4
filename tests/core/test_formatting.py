"""Figures, intervals, lists and TOML as text, and text that hides nothing."""

from __future__ import annotations

import math
import tomllib
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import is_simulated
from core.formatting import (
    byte_size,
    describe_circuits,
    difference_interval,
    display_safe,
    duration,
    figure,
    hidden_character,
    is_number,
    is_shifted,
    join_list,
    kept_rounds,
    percent,
    scored_at,
    split_list,
    toml_value,
    whole,
    wilson_interval,
)


@pytest.mark.parametrize("value", [None, "3", True, math.nan, math.inf, [1]])
def test_what_is_no_number_is_a_dash(value: Any) -> None:
    assert not is_number(value)
    for write in (figure, percent, whole, duration, byte_size):
        assert (write(value), write(value, none="none")) == ("-", "none")


def test_zero_is_a_number() -> None:
    assert is_number(0)
    written = [write(0) for write in (figure, percent, whole, duration, byte_size)]
    assert written == ["0.000", "0.0 %", "0", "0.0 s", "0 B"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (figure(0.41234, 2), "0.41"),
        (whole(5876130), "5,876,130"),
        (percent(0.9344), "93.4 %"),
        (percent(0.5, 0), "50 %"),
        # 0 and 100 per cent only where they are exact.
        (percent(498 / 500), "99.6 %"),
        (percent(498 / 500, 0), "> 99 %"),
        (percent(0.99996), "> 99.9 %"),
        (percent(0.0002), "< 0.1 %"),
        (percent(1), "100.0 %"),
        (percent(0, 0), "0 %"),
        (duration(0.25), "0.2 s"),
        (duration(9.94), "9.9 s"),
        (duration(9.96), "10 s"),
        (duration(42), "42 s"),
        (duration(59.4), "59 s"),
        (duration(59.6), "1 min 00 s"),
        (duration(61), "1 min 01 s"),
        (duration(3599.7), "1 h 00 min"),
        (duration(3725), "1 h 02 min"),
        (byte_size(999), "999 B"),
        (byte_size(999_600), "1 MB"),
        (byte_size(14200), "14.2 kB"),
        (byte_size(3.2e6), "3.2 MB"),
        (byte_size(5e9), "5 GB"),
        (scored_at({"sites": 0}, 4), "scored at 0 of 4 sites"),
        (scored_at({"sites": 3}), "scored at 3 sites"),
        (scored_at({}), ""),
        (scored_at(None), ""),
        (describe_circuits(1200, None), "1,200 circuits"),
    ],
)
def test_figures(written: str, expected: str) -> None:
    assert written == expected


@pytest.mark.parametrize(
    ("backend", "simulated"),
    [
        ("exact", True),
        ("aer:brisbane", True),
        ("fake:fake_manila", True),
        ("pennylane:lightning.qubit", True),
        ("ibm:least_busy", False),
        ("pennylane:ionq.qpu", False),
    ],
)
def test_simulators_and_hardware(backend: str, simulated: bool) -> None:
    assert is_simulated(backend) is simulated


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_wilson_interval_is_scipys(counted: tuple[int, int]) -> None:
    from scipy.stats import binomtest

    rows, hits = counted
    expected = binomtest(hits, rows).proportion_ci(method="wilson")
    found = wilson_interval(hits / rows, rows)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found is not None
    assert found[0] <= hits / rows <= found[1]


def test_newcombes_interval_follows_from_wilsons() -> None:
    # By hand from the Wilson limits of 40/50 and 30/50: (0.6696, 0.8876) and (0.4618, 0.7239).
    assert difference_interval(0.8, 0.6, 50) == pytest.approx((0.0201, 0.3637), abs=1e-3)
    low, high = difference_interval(0.81, 0.80, 100) or (0.0, 0.0)
    assert low < 0 < high


@pytest.mark.parametrize("rows", [None, 0, "100", True])
def test_without_rows_there_is_no_interval(rows: object) -> None:
    assert wilson_interval(0.5, rows) is None
    assert difference_interval(0.5, 0.4, rows) is None


@given(st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text())
def test_a_scalar_comes_back_from_toml(value: Any) -> None:
    read = tomllib.loads(f"x = {toml_value(value)}")["x"]
    assert type(read) is type(value)
    assert read == value or (read != read and value != value)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)))
def test_any_list_comes_back(entries: list[str]) -> None:
    assert split_list(join_list(entries)) == tuple(entries)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, é, 🎉, العربية", "plain, é, 🎉, العربية"),
        ("می\u200cروم 👩\u200d🔬", "می\u200cروم 👩\u200d🔬"),
        ("a\x1b[31mred\x1b[0m", r"a\x1b[31mred\x1b[0m"),
        ("a\x00b\x07c\x7fd\x9be", r"a\x00b\x07c\x7fd\x9be"),
        ("one\ntwo\r\tthree\u2028", r"one\ntwo\r\tthree\u2028"),
        ("user\u202etxt.exe\u2066\u200f", r"user\u202etxt.exe\u2066\u200f"),
        ("half \ud83d", r"half \ud83d"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        (None, ""),
        (3, "3"),
    ],
)
def test_hidden_characters_are_shown_as_escapes(text: object, shown: str) -> None:
    assert display_safe(text) == shown


@settings(max_examples=50)
@given(st.text(st.characters()))
def test_any_text_becomes_one_line_without_anything_hidden(text: str) -> None:
    shown = display_safe(text)
    shown.encode("utf-8")
    assert len(shown.splitlines()) <= 1
    categories = {unicodedata.category(x) for x in shown if x not in "\u200c\u200d"}
    assert not categories & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert display_safe(shown) == shown
    assert (hidden_character(text) == "") == (shown == text)


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ({}, ""),
        ({"best_round": 7}, "round 7"),
        ({"best_round": 7, "averaged_rounds": []}, "round 7"),
        ({"best_round": 7, "averaged_rounds": [6, 7, 8, 9]}, "rounds 6-9, mean"),
    ],
)
def test_which_rounds_a_model_is_of(summary: dict[str, Any], expected: str) -> None:
    assert kept_rounds(summary) == expected


def test_a_model_is_shifted_only_where_the_correction_was_applied() -> None:
    found = [is_shifted({"prior_correction": one}) for one in (None, {"applied": False})]
    assert [*found, is_shifted({}), is_shifted({"prior_correction": {"applied": True}})] == [
        False, False, False, True,
    ]  # fmt: skip
