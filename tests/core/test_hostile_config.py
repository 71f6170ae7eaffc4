"""Config files and assignments of any content end in settings or in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core import SettingsError, UserError, parse_node, parse_run

DEEP = "[" * 3000 + "]" * 3000
QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TOML = st.one_of(
    st.text(max_size=40),
    st.integers(min_value=-(10**450), max_value=10**450).map(str),
    st.floats().map(str),
    st.sampled_from([DEEP, "9" * 400, "9" * 5000, "{a = 1}", "[1, [2]]", "1979-05-27", "inf", '"']),
)
KEYS = st.sampled_from(["run.rounds", "run.name", "train.learning_rate", "run", "x", "run.seed.a"])


def one_line(error: UserError) -> str:
    text = str(error)
    assert "\n" not in text.strip()
    assert len(text) < 1000
    return text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"run.x = {DEEP}", "is not TOML"),
        ("[run]\nrounds = " + "9" * 5000, "is not TOML"),
        ("[run]\nrounds = " + "9" * 400, "run.rounds = 999"),
        (f"[run]\nrounds = {2**63}", f"run.rounds = {2**63}; accepted: a whole number"),
        ("[train]\nlearning_rate = 1" + "0" * 400, "train.learning_rate = 1000"),
        ("a.b.c.d = 1", "unknown setting 'a.b'"),
    ],
)
def test_what_no_parser_takes_is_one_short_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        parse_run([path], [])
    assert told in one_line(caught.value)
    section, _, rest = text.partition("\n")
    with pytest.raises(SettingsError) as caught:
        parse_run([], [f"{section[1:-1]}.{rest}" if rest else text])
    one_line(caught.value)


def test_a_pipe_or_a_folder_is_no_config(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, told in (("pipe", "no file but a pipe"), ("", "it is a folder"), ("\0", "null")):
        with pytest.raises(SettingsError, match=told):
            parse_run([tmp_path / name], [])


@QUICK
@given(st.one_of(st.binary(max_size=200), st.tuples(KEYS, TOML).map(" = ".join).map(str.encode)))
def test_any_bytes_are_settings_or_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    try:
        parse_run([path], [])
    except UserError as error:
        one_line(error)


@QUICK
@given(KEYS, TOML)
def test_any_assignment_is_a_setting_or_one_line(key: str, value: str) -> None:
    for parse in (lambda words: parse_run([], words), parse_node):
        try:
            parse([f"{key}={value}"])
        except UserError as error:
            one_line(error)
