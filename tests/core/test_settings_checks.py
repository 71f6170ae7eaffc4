"""A wrong setting, or settings that contradict each other, are one clear line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import FIELDS, SettingsError, fine_tunes_llm, parse_run, parse_settings, traits

CSV = "data.source=csv data.path=x"
FFA = "llm.federated=ffa"
PLAIN = "distill.weight=0 agent.kind=all"
NO_LLM = f"{PLAIN} llm.model=none"
DEEP = "quantum.model=vqc run.clients=4"
DP = "privacy.dp=central aggregation.rule=uniform"
MISTAKES = [
    # Keys, types and bounds.
    ("quantum.qubit=3", "unknown setting 'quantum.qubit'.*did you mean 'quantum.qubits'?"),
    ("rounds=3", "unknown setting 'rounds'.*did you mean 'run.rounds'?"),
    ("nonsense", "--set 'nonsense'; accepted: key=value"),
    ("run.rounds=abc", "run.rounds = 'abc'; accepted: a whole number at least 1"),
    ("run.rounds=2.5", "run.rounds = 2.5; accepted: a whole number"),
    ("run.rounds=true", "run.rounds = True; accepted: a whole number"),
    ("run.rounds=0", "run.rounds = 0; accepted: a whole number at least 1"),
    ("run.report=1", "run.report = 1; accepted: true or false"),
    (
        "quantum.model=qnn",
        "quantum.model = 'qnn'; accepted: product, .*; did you mean 'qcnn'",
    ),
    ("quantum.backend=qiskit", "quantum.backend = 'qiskit'; accepted: exact, pennylane"),
    ("quantum.backend=pennylane:", "quantum.backend = 'pennylane:'; accepted: exact, penny"),
    ("quantum.backend=fake:", "quantum.backend = 'fake:'; accepted: exact"),
    ("quantum.backend=ibm", "quantum.backend = 'ibm'; accepted: exact"),
    ("distill.weight=1.5", "distill.weight = 1.5; accepted: a number .*at most 1"),
    ("distill.decay=0", "distill.decay = 0; accepted: a number above 0 and at most 1"),
    ("distill.folds=11", "distill.folds = 11; accepted: a whole number .*at most 10"),
    ("distill.folds=1", "distill.folds = 1; accepted: 0, or 2 to 10; change distill.folds"),
    ("hardware.precision=1e-4 quantum.backend=aer", "precision = 0.0001; accepted: 0, or 0.00"),
    ("llm.rounds=0", "llm.rounds = 0; accepted: a whole number at least 1"),
    ("llm.federated=fedprox", "llm.federated = 'fedprox'; accepted: none, ffa, fedavg"),
    ("train.learning_rate=inf", "train.learning_rate = inf; accepted: a number above 0"),
    ("privacy.dp=local privacy.noise=0", "privacy.noise = 0; accepted"),
    (f"{CSV} data.labels=a", "data.labels = 'a'; accepted: two or more class names"),
    # Without effect.
    ("agent.retries=1", "agent.retries = 1 would be ignored because agent.kind = 'rule'"),
    ("agent.max_increment=3", "agent.max_increment = 3 would be ignored because agent.rule"),
    ("agent.stage=aggregation", "agent.stage = 'aggregation' would be ignored because agent.fr"),
    ("agent.kind=regulator agent.rule=hybrid", "ignored because agent.kind = 'regulator'"),
    ("agent.kind=regulator agent.fraction=0.5", "ignored because agent.kind = 'regulator'"),
    ("agent.kind=llm agent.decoding=choices agent.retries=1", "ignored because agent.decoding"),
    ("stop.min_rounds=21", "stop.min_rounds = 21 would be ignored because run.rounds = 20"),
    (
        "stop.patience=0 stop.min_rounds=5",
        "stop.min_rounds = 5 would be ignored because nothing stops",
    ),
    ("stop.tau=0.5", "stop.tau = 0.5 would be ignored because stop.rule = 'none'"),
    ("quantum.noise=readout=0.1", "ignored because quantum.backend = 'exact'; .*pennylane:…; rem"),
    ("quantum.device_options=a=1", "quantum.device_options = 'a=1' would be ignored because"),
    ("data.path=/rows", "data.path = '/rows' would be ignored because data.source"),
    ("distill.weight=0 distill.folds=5", "folds = 5 would be ignored because distill.weight"),
    ("train.mu=2", "train.mu = 2.0 would be ignored because train.sched"),
    ("train.schedule=inverse-time train.optimizer=cobyla", "because train.optimizer = 'cobyla'"),
    ("train.schedule=inverse-time train.optimizer=spsa", "ignored because train.optimizer"),
    ("train.schedule=inverse-time quantum.backend=aer", "by train.optimizer = 'auto' on aer"),
    ("hardware.shots=10", "hardware.shots = 10 would be ignored because quantum.backend"),
    ("quantum.backend=aer hardware.twirling=true", "twirling = True would be ignored"),
    ("quantum.backend=aer hardware.shots=9 hardware.precision=0.1", "because hardware.shots = 9"),
    ("train.warm_rounds=1", "train.warm_rounds = 1 would be ignored"),
    (f"{NO_LLM} llm.epochs=5", "llm.epochs = 5 would be ignored because llm.model = 'none'"),
    ("train.perturbation=0.1", "train.perturbation = 0.1 would be ignored by train.optimizer"),
    ("stop.shots=9 quantum.backend=pennylane:default.qubit", "computes exact expectations"),
    ("features.kind=one-hot features.k=3", "features.k = 3 would be ignored because features.kind"),
    ("features.kind=kmer features.candidates=kmer", "would be ignored because features.kind = 'k"),
    ("features.encoder=shared", "features.encoder = 'shared' would be ignored because llm.f"),
    (f"{FFA} features.encoder=shared features.kind=kmer", "because features.kind = 'kmer'"),
    (f"{FFA} llm.patience=2", "llm.patience = 2 would be ignored"),
    ("distill.kind=none distill.weight=0.5", "weight = 0.5 would be ignored because distill.kind"),
    ("distill.kind=smoothing distill.temperature=3", "temperature = 3.0 would be ignored"),
    ("distill.kind=smoothing distill.folds=3", "folds = 3 would be ignored because distill.kind"),
    ("distill.kind=prior distill.weight=0", "kind = 'prior' would be ignored because distill.we"),
    ("distill.kind=prior data.unlabelled=x.txt", "unlabelled = 'x.txt' would be ignored because"),
    ("data.unlabelled_rows=9", "unlabelled_rows = 9 would be ignored because data.train_rows"),
    (
        "distill.weight=some",
        "weight = 'some'; accepted: a number at least 0 and at most 1, or auto",
    ),
    ("llm.rounds=2", "llm.rounds = 2 would be ignored because llm.federated = 'none'"),
    (f"{DP} aggregation.max_norm=5", "max_norm = 5.0 would be ignored because privacy.dp"),
    (
        "quantum.layers=1",
        "layers = '1' would be ignored because quantum.model = 'qcnn'",
    ),
    (
        f"{DEEP} quantum.layers=4",
        "layers = '4' with quantum.reps = 3; accepted: whole numbers",
    ),
    (f"{DEEP} quantum.layers=0", "layers = '0' with quantum.reps = 3"),
    (f"{DEEP} quantum.layers=2.5", "layers = '2.5' with quantum.reps = 3"),
    (f"{DEEP} quantum.layers=1,3", "layers names 2 depths with run.clients = 4"),
    (f"{DEEP} quantum.layers=1,2,2,1", "accepted: a client that has all layers: nobody would"),
    (f"{DEEP} quantum.layers=1 aggregation.rule=krum", "rule = 'krum'; accepted: .*trimmed-mean"),
    (f"{DEEP} quantum.layers=1 aggregation.rule=FedAdam", "each angle is averaged over the sites"),
    (f"{DEEP} quantum.layers=1 evaluation.mode=federated", "a site cannot evaluate layers it lack"),
    (
        f"{DEEP} quantum.layers=1 quantum.qubits=auto",
        "qubits = 'auto'; accepted: ",
    ),
    (f"{DEEP} quantum.layers=1 {DP}", "noise is made for a mean of all updates in every angle"),
    (
        f"{DEEP} quantum.layers=1 privacy.secure_aggregation=true",
        "the sum of a layer that one site has is its",
    ),
    (
        "aggregation.rule=median aggregation.weighting=noise",
        "weighting = 'noise' would be ignored because aggregation.rule = 'median'",
    ),
    (
        "aggregation.rule=FedMedian aggregation.weighting=noise",
        "weighting = 'noise' would be ignored because aggregation.rule = 'FedMedian'",
    ),
    ("privacy.delta=1e-6", "privacy.delta = 1e-06 would be ignored because nothing is noised"),
    ("privacy.seeded=true", "privacy.seeded = True would be ignored"),
    ("privacy.clip=2", "privacy.clip = 2.0 would be ignored because privacy.dp = 'none'"),
    ("privacy.moment_clip=2", "privacy.moment_clip = 2.0 would be ignored"),
    # Contradictions.
    ("run.resume=true", "run.resume = True without run.folder; accepted"),
    ("train.steps=500", "train.steps = 500 with train.max_steps = 100; accepted: at most train.m"),
    ("train.min_steps=30", "train.min_steps = 30 with train.steps = 20; accepted: at most"),
    ("run.min_replies=9", "run.min_replies = 9 with run.clients = 4"),
    ("quantum.backend=aer train.warm_rounds=21", "warm_rounds = 21 with run.rounds = 20"),
    ("data.label_noise=0.1 data.noisy_clients=9", "noisy_clients = 9 with run.clients = 4"),
    ("agent.fraction=0.1 run.min_replies=3", "agent.fraction = 0.1 of 4 clients selects 1 with"),
    ("agent.kind=greedy agent.fraction=0.2 run.min_replies=2", "selects 1 with run.min_rep"),
    ("agent.kind=bandit agent.fraction=0.2 run.min_replies=2", "selects 1 with run.min_rep"),
    ("agent.kind=llm", "agent.kind = 'llm' without agent.model; accepted: .*hub id or path"),
    ("agent.circuit_prices=1,2", "agent.circuit_prices = '1,2' with run.clients = 4"),
    ("quantum.backend=exact,aer", "names 2 backends with run.clients = 4"),
    ("quantum.backend=aer train.optimizer=adam", "'adam' with quantum.backend = aer; accepted"),
    ("evaluation.backend=aer", "evaluation.backend = 'aer'; accepted: exact, or one"),
    ("data.source=csv", "data.source = 'csv' without data.path"),
    ("data.source=csv data.per_site=true", "data.per_site = True without data.labels"),
    (f"{CSV} data.label_column=text", "data.label_column are both 'text'"),
    ("data.partition=column", "data.partition = 'column' with data.source = 'dna-demo'"),
    (f"{CSV} data.partition=column", "'column' with .* without data.partition_column"),
    (f"{CSV} data.per_site=true data.labels=a,b", "'central' without data.test_path; .*federated"),
    ("data.source=tweet-eval features.kind=kmer", "'kmer' with data.source = 'tweet-eval'"),
    (
        f"{CSV} features.kind=kmer",
        "'kmer' with .* with data.kind = 'text'; .*k-mers and one-hot are of DNA",
    ),
    ("llm.model=none", "'none' with distill.weight = 'auto'; .* change distill.weight"),
    ("llm.model=none distill.weight=0 agent.rule=adaptive", "'none' with agent.rule = 'adaptive'"),
    (f"{NO_LLM} distill.features=1", "'none' with distill.features = 1.0"),
    (f"{NO_LLM} stop.rule=either", "'none' with stop.rule = 'either'"),
    (f"{NO_LLM} {FFA}", "'none' with llm.federated = 'ffa'"),
    (f"{NO_LLM} data.source=tweet-eval", "'none' with .*embeddings are made by"),
    (f"{NO_LLM} {CSV}", "'none' with .* with data.kind = 'text'; .*embeddings are made by"),
    (f"{NO_LLM} features.kind=embedding", "'none' with .*embeddings are made by"),
    (f"{NO_LLM} features.kind=kmer,embedding", "'none' with .*embeddings are made by"),
    (f"{NO_LLM} features.candidates=kmer,embedding", "'none' with .*embeddings are made by"),
    ("features.kind=foo", "'foo'; accepted: one or several of embedding, kmer, one-hot, or auto a"),
    ("features.kind=auto,kmer", "'auto,kmer'; accepted: one or several of .* or auto alone"),
    ("features.kind=kmer,kmer", "features.kind = 'kmer,kmer'; accepted: one or several of"),
    ("features.candidates=auto", "'auto'; accepted: one or several of embedding, kmer, one-hot;"),
    (f"{CSV} features.kind=one-hot", "'one-hot' with .* with data.kind = 'text'"),
    (f"{FFA} llm.peft=none", "llm.federated = 'ffa' with llm.peft = 'none'; accepted: llm.peft ="),
    (f"{FFA} distill.folds=3", "distill.folds = 3 with llm.federated = 'ffa'; .*each site's own"),
    ("distill.folds=3 distill.features=10", "folds = 3 with distill.features = 10.0; accepted"),
    ("distill.features=9 train.batch_rows=1", "9.0 with train.batch_rows = 1; .*pairs of rows"),
    ("privacy.dp=central", "privacy.dp = 'central' with aggregation.rule = 'weighted'; accepted"),
    (f"{DP} agent.kind=bandit", "agent.kind = 'bandit' with privacy.dp = 'central'; accepted"),
    (f"privacy.dp=local {FFA}", "llm.federated = 'ffa' with privacy.dp = 'local'"),
    (
        "privacy.dp=local agent.fraction=0.5 agent.stage=aggregation",
        "agent.stage = 'aggregation' with privacy.dp = 'local'; .*carry no noise",
    ),
]


@pytest.mark.parametrize(("given", "message"), MISTAKES, ids=[given for given, _ in MISTAKES])
def test_a_mistake_is_one_clear_line(given: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        parse_run([], given.split())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        "run.rounds=1",
        "train.schedule=inverse-time train.mu=2",
        "quantum.backend=pennylane:default.mixed quantum.noise=depolarizing=0.01",
        "quantum.backend=exact,aer,exact,exact evaluation.backend=aer",
        "stop.shots=9 quantum.backend=pennylane:qiskit.aer",
        "data.partition=dirichlet data.alpha=0.3",  # data.per_site has no effect: at its default
        "agent.kind=llm agent.model=gpt2 stop.min_rounds=5",  # these may stop a run
        "agent.kind=greedy stop.min_rounds=5",
        "agent.kind=bandit stop.min_rounds=5",
        "agent.kind=regulator stop.min_rounds=5",
    ],
)
def test_what_goes_together_is_accepted(given: str) -> None:
    _, overrides = parse_run([], given.split())
    assert sorted(overrides) == sorted(text.partition("=")[0] for text in given.split())


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("", True),
        ("distill.weight=0", False),
        ("distill.weight=0 agent.rule=adaptive", True),  # the paper's rules compare with its loss
        ("distill.weight=0 agent.rule=fixed", False),
        ("distill.weight=0 agent.rule=fixed stop.rule=gap", True),
        ("distill.weight=0 agent.kind=random", False),
        ("distill.weight=0 agent.kind=regulator", True),
        ("distill.weight=0 agent.kind=endpoint agent.model=x", True),
        (f"{PLAIN} distill.features=0.1", True),
        (f"{PLAIN} {FFA}", True),
        (f"{PLAIN} llm.model=dna-tiny", True),
        (NO_LLM, False),
    ],
)
def test_what_needs_a_fine_tuned_language_model(given: str, used: bool) -> None:
    assert fine_tunes_llm(parse_run([], given.split())[0]) == used


@pytest.mark.parametrize(
    ("run", "backend"),
    [
        ({"quantum.backend": "aer:brisbane", "evaluation.backend": "aer:brisbane"}, "exact"),
        ({"quantum.backend": "aer:brisbane", "train.perturbation": 0.1}, "exact"),
        ({"quantum.backend": "aer:brisbane", "hardware.shots": 100}, "exact"),
        ({"train.schedule": "inverse-time"}, "aer"),
    ],
)
def test_a_node_may_have_no_use_for_what_the_run_sets(run: dict[str, Any], backend: str) -> None:
    assert parse_settings(run, {"quantum.backend": backend}).quantum.backend == backend


def test_a_node_may_not_set_what_has_no_effect_there() -> None:
    with pytest.raises(SettingsError, match=r"hardware\.shots = 9 would be ignored"):
        parse_settings({}, {"hardware.shots": 9})
    with pytest.raises(SettingsError, match=r"'adam' with quantum\.backend = aer"):
        parse_settings({"train.optimizer": "adam"}, {"quantum.backend": "aer"})


def test_every_condition_holds_or_not_at_the_default_of_its_key() -> None:
    for key in FIELDS:
        for one in traits(key).applies_when:
            assert one.holds(FIELDS[one.key].default) in (True, False)


@settings(max_examples=30)
@given(st.dictionaries(st.text(max_size=12), st.integers() | st.text(max_size=5), max_size=3))
def test_unknown_keys_never_pass(flat: dict[str, int | str]) -> None:
    if set(flat) - set(FIELDS):
        with pytest.raises(SettingsError):
            parse_settings(flat)
