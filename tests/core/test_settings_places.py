"""A later file or the command line wins over an earlier file, and no key is left that fights it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from core import SettingsError, flatten, parse_run, parse_settings, split_list
from core.formatting import join_list

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "config").glob("*.toml"))

CHOICES: dict[str, list[Any]] = {
    "agent.kind": ["rule", "all", "random", "greedy", "bandit", "regulator"],
    "agent.rule": ["fixed", "adaptive", "incremental", "dynamic", "logarithmic", "hybrid"],
    "agent.stage": ["participation"],
    "stop.rule": ["none", "change", "gap", "either"],
    "quantum.model": ["qcnn", "vqc"],
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
@limits(max_examples=40, deadline=None)
def test_several_values_leave_settings_that_stand_alone(path: Path, data: st.DataObject) -> None:
    keys = ("agent.kind", "stop.rule", "quantum.model", "data.source", "llm.federated")
    chosen = {key: data.draw(st.sampled_from(CHOICES[key])) for key in keys}
    settings, overrides = parse_run([path], [f"{key}={value}" for key, value in chosen.items()])
    assert {key: flatten(settings)[key] for key in keys} == chosen
    assert parse_settings(overrides) == settings  # what was dropped is at its default


def test_the_notice_says_what_was_dropped_and_why() -> None:
    notices: list[str] = []
    demo = ROOT / "config" / "demo.toml"
    settings, overrides = parse_run([demo], ["stop.rule=none"], notices=notices)
    assert notices == [
        f"{demo}: stop.tau = 0.002 would be ignored because stop.rule = 'none'; dropped",
        f"{demo}: stop.min_rounds = 3 would be ignored because nothing stops the run; dropped",
    ]
    assert "stop.tau" not in overrides
    assert settings.stop.min_rounds == 2


def test_what_fights_in_one_place_is_refused(tmp_path: Path) -> None:
    demo = ROOT / "config" / "demo.toml"
    own = ["agent.kind=all", "agent.fraction=0.5"]
    with pytest.raises(SettingsError, match=r"agent.fraction .* would be ignored"):
        parse_run([demo], own)
    with pytest.raises(SettingsError, match=r"train.mu .* would be ignored"):
        parse_run([demo], ["train.mu=2"])
    file = tmp_path / "own.toml"
    file.write_text('[agent]\nkind = "all"\nfraction = 0.5\n')
    with pytest.raises(SettingsError, match=r"agent.fraction .* would be ignored"):
        parse_run([file], [])
    with pytest.raises(SettingsError, match=r"agent.fraction .* would be ignored"):
        parse_run([demo, file], [])
    # An earlier file's choice does not drop what a later one sets.
    file.write_text("[agent]\nfraction = 0.5\n")
    base = tmp_path / "base.toml"
    base.write_text('[agent]\nkind = "all"\n')
    with pytest.raises(SettingsError, match=r"agent.fraction .* would be ignored"):
        parse_run([base, file], [])
    assert parse_run([file, base], [])[0].agent.kind == "all"


def test_a_key_that_was_dropped_drops_what_hangs_on_it(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[train]\nschedule = "inverse-time"\nmu = 2.0\n')
    notices: list[str] = []
    settings, overrides = parse_run([file], ["train.optimizer=spsa"], notices=notices)
    assert [line.split(" = ")[0].split()[-1] for line in notices] == ["train.schedule", "train.mu"]
    assert overrides == {"train.optimizer": "spsa"}
    assert settings.train.mu == 1.0


def test_unset_takes_a_file_s_key_back() -> None:
    demo = ROOT / "config" / "demo.toml"
    settings, overrides = parse_run([demo], [], ["agent.fraction", "data.label_noise"])
    assert (settings.agent.fraction, settings.data.label_noise) == (1.0, 0.0)
    assert "agent.fraction" not in overrides
    # What hung on it goes with it.
    settings, _ = parse_run([demo], [], ["stop.rule"])
    assert settings.stop.min_rounds == 2
    assert parse_run([demo], ["stop.tau=0.1"], ["stop.tau"])[0].stop.tau == 0.1


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("stop.taw", "unknown setting 'stop.taw'.*did you mean 'stop.tau'"),
        ("agent.model", "--unset agent.model; accepted: run.name, .*; leave it out"),
    ],
)
def test_unset_of_what_no_file_sets_is_refused(key: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        parse_run([ROOT / "config" / "demo.toml"], [], [key])


LABELS = ("yes, often", "no", 'so "so"', "never")


@pytest.mark.parametrize(
    "written",
    [
        '"yes, often",no,"so ""so""",never',
        '"yes, often", no, "so ""so""", never',
        '["yes, often", "no", "so \\"so\\"", "never"]',
    ],
)
def test_a_class_name_may_hold_a_comma(written: str, tmp_path: Path) -> None:
    source = ["data.source=csv", "data.path=rows.csv"]
    settings, overrides = parse_run([], [*source, f"data.labels={written}"])
    assert split_list(settings.data.labels) == LABELS
    assert parse_settings(overrides) == settings  # as Flower hands it on
    if written[0] == "[":
        file = tmp_path / "own.toml"
        file.write_text(f'[data]\nsource = "csv"\npath = "rows.csv"\nlabels = {written}\n')
        assert parse_run([file], [])[0] == settings


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)))
def test_any_list_comes_back(entries: list[str]) -> None:
    assert split_list(join_list(entries)) == tuple(entries)


def test_an_array_where_one_text_stands_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[run]\nname = ["a", "b"]\n')
    with pytest.raises(SettingsError, match=r"run.name = \['a', 'b'\]; accepted: text"):
        parse_run([file], [])
