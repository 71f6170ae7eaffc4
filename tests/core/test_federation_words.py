"""Figures, conditions and TOML in words."""

from __future__ import annotations

import math
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import (
    byte_size,
    duration,
    figure,
    is_number,
    percent,
    scored_at,
    toml_value,
    whole,
)


@pytest.mark.parametrize("value", [None, "3", True, math.nan, math.inf, [1]])
def test_what_is_no_number_is_a_dash(value: Any) -> None:
    assert not is_number(value)
    for write in (figure, percent, whole, duration, byte_size):
        assert write(value) == "-"
        assert write(value, none="none") == "none"


def test_nought_is_a_number() -> None:
    assert is_number(0)
    said = [write(0) for write in (figure, percent, whole, duration, byte_size)]
    assert said == ["0.000", "0.0 %", "0", "0.0 s", "0 B"]


def test_figures() -> None:
    assert percent(0.9344) == "93.4 %"
    assert percent(0.5, 0) == "50 %"
    assert figure(0.41234, 2) == "0.41"
    assert whole(5876130) == "5,876,130"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.25, "0.2 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (42, "42 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (61, "1 min 01 s"),
        (3599.7, "1 h 00 min"),
        (3725, "1 h 02 min"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [(999, "999 B"), (999_600, "1 MB"), (14200, "14.2 kB"), (3.2e6, "3.2 MB"), (5e9, "5 GB")],
)
def test_byte_sizes(count: float, said: str) -> None:
    assert byte_size(count) == said


def test_sites_that_scored() -> None:
    assert scored_at({"sites": 0}, 4) == "scored at 0 of 4 sites"
    assert scored_at({"sites": 3}) == "scored at 3 sites"
    assert scored_at({}) == scored_at(None) == ""


@given(st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text())
def test_a_scalar_comes_back_from_toml(value: Any) -> None:
    read = tomllib.loads(f"x = {toml_value(value)}")["x"]
    assert type(read) is type(value)
    assert read == value or (read != read and value != value)
