from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import (
    FIELDS,
    Settings,
    SettingsError,
    descriptions,
    flatten,
    parse_run,
    parse_settings,
    traits,
)
from core.settings.reference import config_tables, reference_page, toml_value

ROOT = Path(__file__).resolve().parents[2]


def test_defaults_are_themselves_accepted() -> None:
    assert parse_settings(flatten(Settings())) == Settings()


def test_flower_config_in_pyproject_is_the_tree() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tables = pyproject["tool"]["flwr"]["app"]["config"]
    flat = {
        f"{head}.{key}": value for head, table in tables.items() for key, value in table.items()
    }
    assert flat == flatten(Settings())
    assert parse_settings(flat) == Settings()
    assert config_tables() in (ROOT / "pyproject.toml").read_text()


def test_reference_page_is_true_and_names_every_key() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    assert page == reference_page()
    assert all(f"`{key}`" in page for key in FIELDS)
    assert set(descriptions()) == set(FIELDS)


def test_every_condition_names_a_key() -> None:
    for key, field in FIELDS.items():
        for other in traits(key).applies_when:
            assert other.holds(FIELDS[other.key].default) in (True, False), (key, field)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("quantum.qubit=3", "unknown setting 'quantum.qubit'.*did you mean 'quantum.qubits'?"),
        ("rounds=3", "unknown setting 'rounds'.*did you mean 'run.rounds'?"),
        ("run.rounds=abc", "run.rounds = 'abc'; accepted: a whole number at least 1"),
        ("run.rounds=2.5", "run.rounds = 2.5; accepted: a whole number"),
        ("run.rounds=true", "run.rounds = True; accepted: a whole number"),
        ("run.rounds=0", "run.rounds = 0; accepted: a whole number at least 1"),
        ("run.report=1", "run.report = 1; accepted: true or false"),
        ("quantum.model=qnn", "quantum.model = 'qnn'; accepted: qcnn, vqc"),
        ("quantum.backend=qiskit", "quantum.backend = 'qiskit'; accepted: exact, pennylane"),
        ("distill.weight=1.5", "distill.weight = 1.5; accepted: a number .*at most 1"),
        ("distill.folds=1", "distill.folds = 1; accepted: 0, or 2 to 10; set distill.folds = 2"),
        ("llm.rounds=0", "llm.rounds = 0; accepted: a whole number at least 1"),
        ("llm.federated=fedprox", "llm.federated = 'fedprox'; accepted: none, ffa, fedavg"),
        ("distill.decay=0", "distill.decay = 0; accepted: a number above 0 and at most 1"),
        ("distill.folds=11", "distill.folds = 11; accepted: a whole number .*at most 10"),
        (
            "train.steps=500",
            "train.steps = 500 with train.max_steps = 100; accepted: at mo",
        ),
        ("run.min_replies=9", "run.min_replies = 9 with run.clients = 4"),
        ("stop.min_rounds=11", "stop.min_rounds = 11 would be ignored because run.rounds = 10"),
        ("agent.retries=1", "agent.retries = 1 would be ignored because agent.kind = 'rule'"),
        ("stop.min_rounds=5", "stop.min_rounds = 5 would be ignored because nothing stops"),
        (
            "quantum.backend=pennylane:",
            "quantum.backend = 'pennylane:'; accepted: exact, penny",
        ),
        ("train.learning_rate=inf", "train.learning_rate = inf; accepted: a number above 0"),
        (
            "agent.stage=aggregation",
            "agent.stage = 'aggregation' would be ignored because agent.fr",
        ),
        ("agent.max_increment=3", "agent.max_increment = 3 would be ignored because agent.rule"),
        ("stop.tau=0.5", "stop.tau = 0.5 would be ignored because stop.rule = 'none'"),
        (
            "quantum.noise=readout=0.1",
            "quantum.noise = 'readout=0.1' would be ignored because quantum.backend = 'exact'; "
            r"accepted: quantum.backend = pennylane:…; remove quantum.noise or change quantum",
        ),
        ("quantum.device_options=a=1", "quantum.device_options = 'a=1' would be ignored because"),
        ("data.path=/rows", "data.path = '/rows' would be ignored because data.source"),
        ("data.source=csv", "data.source = 'csv' without data.path"),
        ("nonsense", "--set 'nonsense'; accepted: key=value"),
    ],
)
def test_a_mistake_is_one_clear_line(assignment: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        parse_run([], [assignment])
    assert "\n" not in str(caught.value)


def test_folds_and_features_are_refused_together() -> None:
    with pytest.raises(
        SettingsError,
        match=r"distill.folds = 3 with distill.features = 10.0; accepted: distill",
    ):
        parse_run([], ["distill.folds=3", "distill.features=10"])


def test_what_only_some_agents_use() -> None:
    asked = ["agent.kind=llm", "agent.model=gpt2"]
    with pytest.raises(SettingsError, match=r"agent.retries = 1 would be ignored because agent.d"):
        parse_run([], [*asked, "agent.decoding=choices", "agent.retries=1"])
    settings, _ = parse_run([], [*asked, "stop.min_rounds=5"])  # it may stop the run by itself
    assert settings.stop.min_rounds == 5
    for kind in ("greedy", "bandit", "regulator"):
        settings, _ = parse_run([], [f"agent.kind={kind}", "stop.min_rounds=5"])
        assert settings.stop.min_rounds == 5
    for ignored in ("agent.rule=hybrid", "agent.fraction=0.5"):
        with pytest.raises(SettingsError, match=r"would be ignored because agent.kind = 'regula"):
            parse_run([], ["agent.kind=regulator", ignored])
    for kind in ("greedy", "bandit"):
        few = [f"agent.kind={kind}", "agent.fraction=0.2", "run.min_replies=2", "run.clients=4"]
        with pytest.raises(SettingsError, match=r"selects 1 with run.min_replies = 2"):
            parse_run([], few)


def test_lambda_falls_from_round_to_round() -> None:
    distill = parse_run([], ["distill.weight=0.8", "distill.decay=0.5"])[0].distill
    assert [distill.in_round(t).weight for t in (1, 2, 4)] == [0.8, 0.4, 0.1]
    constant = parse_run([], ["distill.weight=0.3"])[0].distill
    assert constant.in_round(500) == constant
    assert distill.in_round(5000).weight == 0.0


def test_distillation_without_weight_has_no_further_settings() -> None:
    with pytest.raises(SettingsError, match=r"distill.folds = 5 would be ignored because distill"):
        parse_run([], ["distill.weight=0", "distill.folds=5"])


def test_ignored_through_a_chain_of_conditions() -> None:
    with pytest.raises(SettingsError, match=r"train.mu = 2.0 would be ignored because train.sched"):
        parse_run([], ["train.mu=2"])
    settings, _ = parse_run([], ["train.schedule=inverse-time", "train.mu=2"])
    assert settings.train.mu == 2.0
    with pytest.raises(
        SettingsError, match=r"would be ignored because train\.optimizer = 'cobyla'"
    ):
        parse_run([], ["train.schedule=inverse-time", "train.optimizer=cobyla"])


def test_a_condition_on_the_start_of_a_text() -> None:
    given = ["quantum.backend=pennylane:default.mixed", "quantum.noise=depolarizing=0.01"]
    assert parse_run([], given)[0].quantum.noise == "depolarizing=0.01"


def test_a_condition_on_an_unused_key_sees_its_default() -> None:
    settings, _ = parse_run([], ["data.partition=dirichlet", "data.alpha=0.3"])  # per_site unused
    assert settings.data.alpha == 0.3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["agent.fraction=0.1", "run.min_replies=3"],
            "agent.fraction = 0.1 of 4 clients selects",
        ),
        (
            ["data.source=tweet-eval", "data.partition=column", "data.partition_column=user"],
            "data.partition = 'column' with data.source = 'tweet-eval'",
        ),
        (
            ["llm.federated=ffa", "llm.peft=none"],
            "llm.federated = 'ffa' with llm.peft = 'none'; accepted: llm.peft = ",
        ),
        (
            ["llm.federated=ffa", "distill.folds=3"],
            "distill.folds = 3 with llm.federated = .ffa.; accepted: llm.federated = .none. .fol",
        ),
        (
            ["distill.features=100", "train.batch_rows=1"],
            "distill.features = 100.0 with train.batch_rows = 1; accepted: .* compares pairs",
        ),
        (["features.encoder=shared"], "features.encoder = 'shared' would be ignored because llm.f"),
        (["llm.rounds=2"], "llm.rounds = 2 would be ignored because llm.federated = 'none'"),
        (
            ["llm.federated=ffa", "features.encoder=shared", "features.kind=kmer"],
            "features.encoder = 'shared' would be ignored because features.kind = 'kmer'",
        ),
        (["llm.federated=ffa", "llm.patience=2"], "llm.patience = 2 would be ignored"),
        (
            ["data.source=tweet-eval", "features.kind=kmer"],
            "features.kind = 'kmer' with data.source = 'tweet",
        ),
        (
            ["data.source=csv", "data.path=x", "data.labels=a"],
            "data.labels = 'a'; accepted: two or more class names",
        ),
    ],
)
def test_contradictions_are_told_before_anything_starts(given: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_run([], given)


def test_one_round_needs_no_other_change() -> None:
    assert parse_run([], ["run.rounds=1"])[0].run.rounds == 1


def test_files_come_first_and_assignments_win(tmp_path: Path) -> None:
    first, second = tmp_path / "one.toml", tmp_path / "two.toml"
    first.write_text("[run]\nrounds = 3\nname = 'one'\n[quantum]\nqubits = 5\n")
    second.write_text("[run]\nrounds = 4\n")
    settings, given_keys = parse_run([first, second], ["quantum.qubits=6", "run.name=a=b c"])
    assert (settings.run.rounds, settings.run.name, settings.quantum.qubits) == (4, "a=b c", 6)
    assert given_keys == {"run.rounds": 4, "run.name": "a=b c", "quantum.qubits": 6}


def test_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no config file '.*absent.toml'"):
        parse_run([tmp_path / "absent.toml"], [])
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"no config file '.*file/x' \(Not a directory\)"):
        parse_run([tmp_path / "file" / "x"], [])
    broken = tmp_path / "broken.toml"
    broken.write_text("[run\n")
    with pytest.raises(SettingsError, match=r"broken.toml' is not TOML"):
        parse_run([broken], [])
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"is not TOML"):
        parse_run([broken], [])


def test_a_node_overrides_only_what_is_its_own() -> None:
    node = {"partition-id": 1, "num-partitions": 4, "site": "x", "quantum.precision": "double"}
    assert parse_settings({}, node).quantum.precision == "double"
    with pytest.raises(SettingsError, match=r"node config sets run.seed; accepted: data.source"):
        parse_settings({}, {"run.seed": 3})
    with pytest.raises(SettingsError, match=r"unknown setting 'quantum\.backnd'"):
        parse_settings({}, {"quantum.backnd": "exact"})


def test_settings_are_frozen_and_hashable() -> None:
    settings = Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.run.rounds = 3  # type: ignore[misc]
    assert hash(settings) == hash(Settings())


@given(st.text(max_size=40))
def test_any_text_survives_toml(text: str) -> None:
    assert tomllib.loads(f"x = {toml_value(text)}")["x"] == text


@given(st.dictionaries(st.text(max_size=12), st.integers() | st.text(max_size=5), max_size=3))
def test_unknown_keys_never_pass(flat: dict[str, int | str]) -> None:
    if any(key not in FIELDS for key in flat):
        with pytest.raises(SettingsError):
            parse_settings(flat)
