"""Settings from files, assignments and nodes; a later place wins over an earlier one."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from core import (
    FIELDS,
    Settings,
    SettingsError,
    UserError,
    descriptions,
    flatten,
    parse_node,
    parse_run,
    parse_settings,
)
from core.formatting import split_list
from core.settings.reference import config_tables, reference_page
from core.settings.schema import with_former
from tests.command import ROOT

CONFIGS = sorted((ROOT / "config").glob("*.toml"))
DEMO = ROOT / "config" / "demo.toml"
CHOICES: dict[str, list[Any]] = {
    "agent.kind": ["rule", "all", "random", "greedy", "bandit", "regulator"],
    "agent.rule": ["fixed", "adaptive", "incremental", "dynamic", "logarithmic", "hybrid"],
    "agent.stage": ["participation"],
    "stop.rule": ["none", "change", "gap", "either"],
    "quantum.model": ["qcnn", "vqc", "ttn", "product"],
    "quantum.backend": ["exact", "pennylane:default.qubit", "aer", "fake:manila", "ibm:x"],
    "train.optimizer": ["auto", "parameter-shift", "spsa", "cobyla"],
    "features.projection": ["lda", "pca", "random"],
    "distill.weight": [0.0, 0.5],
    "llm.federated": ["none", "ffa", "fedavg"],
    "llm.peft": ["auto", "lora"],
    "aggregation.rule": ["weighted", "uniform", "median", "trimmed-mean"],
    "evaluation.mode": ["central", "federated"],
    "run.rounds": [1, 2, 40],
    "data.source": ["dna-demo", "tweet-eval", "genomic"],
}
"""Values that contradict nothing of any shipped configuration."""


@pytest.fixture
def toml(tmp_path: Path) -> Any:
    """Return a function that writes a TOML file and returns its path."""

    def write(text: str, name: str = "own.toml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_what_is_generated_from_the_tree_is_up_to_date() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    tables = tomllib.loads(pyproject)["tool"]["flwr"]["app"]["config"]
    flat = {f"{head}.{key}": value for head, part in tables.items() for key, value in part.items()}
    assert flat == flatten(Settings())
    assert parse_settings(flat) == Settings()
    assert config_tables(flat) in pyproject
    page = (ROOT / "docs" / "settings.md").read_text()
    assert page == reference_page()
    assert all(f"- `{key} = " in page for key in FIELDS)
    assert set(descriptions()) == set(FIELDS)


def test_settings_are_frozen_and_hashable() -> None:
    settings = Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.run.rounds = 3  # type: ignore[misc]
    assert hash(settings) == hash(Settings())


def test_lambda_falls_from_round_to_round() -> None:
    distill = parse_run([], ["distill.weight=0.8", "distill.decay=0.5"])[0].distill
    assert [distill.in_round(t).weight for t in (1, 2, 4)] == [0.8, 0.4, 0.1]
    constant = parse_run([], ["distill.weight=0.3"])[0].distill
    assert constant.in_round(500) == constant
    assert distill.in_round(5000).weight == 0.0


def test_a_node_overrides_only_what_is_its_own() -> None:
    node = {"partition-id": 1, "num-partitions": 4, "site": "x", "quantum.precision": "double"}
    assert parse_settings({}, node).quantum.precision == "double"
    with pytest.raises(SettingsError, match=r"node config sets run.seed; accepted: run.allow_code"):
        parse_settings({}, {"run.seed": 3})
    with pytest.raises(SettingsError, match=r"unknown setting 'quantum\.backnd'"):
        parse_settings({}, {"quantum.backnd": "exact"})


# --- places: files, the command line ---------------------------------------------------------


def test_files_come_first_and_assignments_win(toml: Any) -> None:
    first = toml("[run]\nrounds = 3\nname = 'one'\n[quantum]\nqubits = 5\n", "one.toml")
    second = toml("[run]\nrounds = 4\n", "two.toml")
    settings, overrides = parse_run([first, second], ["quantum.qubits=6", "run.name=a=b c"])
    assert (settings.run.rounds, settings.run.name, settings.quantum.qubits) == (4, "a=b c", 6)
    assert overrides == {"run.rounds": 4, "run.name": "a=b c", "quantum.qubits": 6}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_takes_every_value(path: Path) -> None:
    for key, values in CHOICES.items():
        if key == "evaluation.mode" and path.stem == "deployed":
            continue  # its sites' files leave the server no rows
        for value in values:
            notices: list[str] = []
            settings, _ = parse_run([path], [f"{key}={value}"], notices=notices)
            assert flatten(settings)[key] == value
            assert all(line.startswith(f"{path}: ") for line in notices)


@given(st.sampled_from(CONFIGS), st.data())
@limits(max_examples=30, deadline=None)
def test_several_values_leave_settings_that_stand_alone(path: Path, data: st.DataObject) -> None:
    keys = ("agent.kind", "stop.rule", "quantum.model", "data.source", "llm.federated")
    chosen = {key: data.draw(st.sampled_from(CHOICES[key])) for key in keys}
    settings, overrides = parse_run([path], [f"{key}={value}" for key, value in chosen.items()])
    assert {key: flatten(settings)[key] for key in keys} == chosen
    assert parse_settings(overrides) == settings  # what was dropped is at its default


def test_the_notice_names_what_was_dropped_and_why() -> None:
    notices: list[str] = []
    settings, overrides = parse_run([DEMO], ["stop.rule=none", "stop.patience=0"], notices=notices)
    assert notices == [
        f"{DEMO}: stop.tau = 0.002 would be ignored because stop.rule = 'none'; dropped",
        f"{DEMO}: stop.min_rounds = 3 would be ignored because nothing stops the run; dropped",
    ]
    assert "stop.tau" not in overrides
    assert settings.stop.min_rounds == 2


def test_what_conflicts_in_one_place_is_refused(toml: Any) -> None:
    both = toml('[agent]\nkind = "all"\nfraction = 0.5\n', "both.toml")
    kind, fraction = toml('[agent]\nkind = "all"\n', "a"), toml("[agent]\nfraction = 0.5\n", "b")
    for files, words in (
        ([DEMO], ["agent.kind=all", "agent.fraction=0.5"]),
        ([both], []),
        ([DEMO, both], []),
        ([kind, fraction], []),  # an earlier file's choice does not drop what a later one sets
    ):
        with pytest.raises(SettingsError, match=r"agent.fraction .* would be ignored"):
            parse_run(files, words)
    with pytest.raises(SettingsError, match=r"train.mu .* would be ignored"):
        parse_run([DEMO], ["train.mu=2"])
    assert parse_run([fraction, kind], [])[0].agent.kind == "all"


def test_a_dropped_key_drops_what_depends_on_it(toml: Any) -> None:
    file = toml('[train]\nschedule = "inverse-time"\nmu = 2.0\n')
    notices: list[str] = []
    settings, overrides = parse_run([file], ["train.optimizer=spsa"], notices=notices)
    assert [line.split(" = ")[0].split()[-1] for line in notices] == ["train.schedule", "train.mu"]
    assert overrides == {"train.optimizer": "spsa"}
    assert settings.train.mu == 1.0


def test_unset_takes_back_a_files_key_and_what_depends_on_it() -> None:
    settings, overrides = parse_run([DEMO], [], ["agent.fraction", "data.label_noise"])
    assert (settings.agent.fraction, settings.data.label_noise) == (1.0, 0.0)
    assert "agent.fraction" not in overrides
    assert parse_run([DEMO], ["stop.patience=0"], ["stop.rule"])[0].stop.min_rounds == 2
    assert parse_run([DEMO], ["stop.tau=0.1"], ["stop.tau"])[0].stop.tau == 0.1
    with pytest.raises(SettingsError, match=r"unknown setting 'stop.taw'.*did you mean 'stop.tau'"):
        parse_run([DEMO], [], ["stop.taw"])
    with pytest.raises(SettingsError, match=r"--unset agent.model; accepted: run.name, .*; leave"):
        parse_run([DEMO], [], ["agent.model"])


@pytest.mark.parametrize(
    "written",
    [
        '"yes, often",no,"so ""so""",never',
        '"yes, often", no, "so ""so""", never',
        '["yes, often", "no", "so \\"so\\"", "never"]',
    ],
)
def test_a_class_name_may_hold_a_comma(written: str, toml: Any) -> None:
    given = ["data.source=csv", "data.path=rows.csv", f"data.labels={written}"]
    settings, overrides = parse_run([], given)
    assert split_list(settings.data.labels) == ("yes, often", "no", 'so "so"', "never")
    assert parse_settings(overrides) == settings  # as Flower hands it on
    if written[0] == "[":
        file = toml(f'[data]\nsource = "csv"\npath = "rows.csv"\nlabels = {written}\n')
        assert parse_run([file], [])[0] == settings


# --- files and assignments of any content ----------------------------------------------------

DEEP = "[" * 3000 + "]" * 3000
QUICK = limits(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
VALUES = st.one_of(
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
    ("text", "message"),
    [
        (f"run.x = {DEEP}", "is not TOML"),
        ("[run]\nrounds = " + "9" * 5000, "is not TOML"),
        ("[run]\nrounds = " + "9" * 400, "run.rounds = 999"),
        (f"[run]\nrounds = {2**63}", f"run.rounds = {2**63}; accepted: a whole number"),
        ('[run]\nname = ["a", "b"]', "run.name = ['a', 'b']; accepted: text"),
        ("[train]\nlearning_rate = 1" + "0" * 400, "train.learning_rate = 1000"),
        ("a.b.c.d = 1", "unknown setting 'a.b'"),
    ],
)
def test_what_no_parser_takes_is_one_short_line(toml: Any, text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_run([toml(text)], [])
    assert message in one_line(caught.value)
    section, _, rest = text.partition("\n")
    if "name" not in rest:  # on the command line that is a text
        with pytest.raises(SettingsError) as caught:
            parse_run([], [f"{section[1:-1]}.{rest}" if rest else text])
        one_line(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").write_text("[run\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name, message in (
        ("pipe", "no file but a pipe"),
        ("", "it is a folder"),
        ("\0", "null"),
        ("absent", "no config file '.*absent'"),
        ("file/x", r"no config file '.*file/x' \(Not a directory\)"),
        ("broken", "broken' is not TOML"),
        ("binary", "is not TOML"),
    ):
        with pytest.raises(SettingsError, match=message):
            parse_run([tmp_path / name], [])


def result_or_line(parse: Callable[[], Any]) -> Any:
    """Return what is parsed, or a user's error as its one line; anything else is raised."""
    try:
        return parse()
    except UserError as error:
        return one_line(error)


@QUICK
@given(st.one_of(st.binary(max_size=200), st.tuples(KEYS, VALUES).map(" = ".join).map(str.encode)))
@example(b"[run]\nrounds = 3\n")
def test_any_bytes_are_settings_or_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    found = result_or_line(lambda: parse_run([path], []))
    assert isinstance(found, str) or found[1].items() <= flatten(found[0]).items()


@QUICK
@given(KEYS, VALUES)
@example("hardware.account", "mine")
@example("quantum.backend", "aer")
def test_any_assignment_is_a_setting_or_one_line(key: str, value: str) -> None:
    words = [f"{key}={value}"]
    for parse in (lambda: parse_run([], words)[1], lambda: parse_node(words)):
        found = result_or_line(parse)
        assert isinstance(found, str) or set(found) <= {key}


def test_what_was_written_before_a_setting_keeps_what_was_then() -> None:
    older: dict[str, dict[str, Any]] = {
        "run": {"seed": 3},
        "stop": {"patience": 2},
        "evaluation": {"mode": "central"},
    }
    found = with_former(older)
    assert found["quantum"]["readout"] == "per-class"
    assert found["stop"] == {"patience": 2, "min_gain": 0.0}
    assert found["evaluation"] == {"mode": "central", "prior_correction": "none"}
    # Where it has no effect only its default is taken.
    without: dict[str, dict[str, Any]] = {
        "stop": {"patience": 0},
        "train": {"schedule": "constant"},
        "evaluation": {"mode": "federated"},
    }
    found = with_former(without)
    assert found["stop"] == {"patience": 0}
    assert found["evaluation"] == {"mode": "federated"}
