"""The run's settings: one frozen, typed tree, checked where it is born.

The defaults and the documentation of every key live here and in the modules
named ``*_settings``, and nowhere else; the
``[tool.flwr.app.config]`` table of ``pyproject.toml`` and ``docs/settings.md`` are generated
from them (`core.settings.reference`). Flower's run config knows only whole numbers, numbers,
booleans and strings, so "not set" is the empty string or zero.
"""

from __future__ import annotations

from typing import Literal

from core.settings.agent import AgentSettings
from core.settings.data import DataSettings, FeatureSettings
from core.settings.declare import Section, setting
from core.settings.hardware import DEVICE, IBM, SHOTS, HardwareSettings
from core.settings.llm import DistillSettings, LlmSettings
from core.settings.privacy import PrivacySettings

EXACT = ("quantum.backend", "^exact")
PENNYLANE = ("quantum.backend", "^pennylane:")


class RunSettings(Section):
    """The run as a whole."""

    name: str = setting(
        "",
        "Name of the run; part of its results folder. Empty: the last config file's name, "
        "else the data's.",
    )
    seed: int = setting(0, "The one seed: every random choice derives from it.", ge=0, le=2**31 - 1)
    clients: int = setting(4, "Number of client nodes the run waits for.", ge=1)
    rounds: int = setting(10, "Upper bound on communication rounds.", ge=1)
    min_replies: int = setting(
        1, "Fewest valid replies a round may aggregate; it waits for as many nodes.", ge=1
    )
    wait_seconds: float = setting(
        300.0, "Longest wait for the nodes to appear, or for enough to return, seconds.", gt=0
    )
    round_timeout: float = setting(
        3600.0,
        "Longest wait for the replies of one round, seconds. A later reply is counted in the "
        "ledger and not aggregated; its client is left alone until then, for two "
        "more such waits at most, if `run.min_replies` others are left.",
        gt=0,
    )
    output: str = setting("runs", "Folder that collects the results folders.")
    folder: str = setting("", "This run's results folder; empty: made under `run.output`.")
    resume: bool = setting(
        False,
        "Go on with the interrupted run in `run.folder`; `llm-qfl run --resume` sets both.",
    )
    report: bool = setting(True, "Write `report.html` at the end.")


class QuantumSettings(Section):
    """The quantum classifier and what it runs on."""

    model: Literal["qcnn", "vqc"] = setting("qcnn", "Ansatz.")
    qubits: int = setting(4, "Number of qubits.", ge=2, le=20)
    block: Literal["su4", "paper"] = setting(
        "su4",
        "Two-qubit convolution block: 15 angles (all of SU(4)) or the paper's 3.",
        used_when=(("quantum.model", ("qcnn",)),),
    )
    uploads: int = setting(
        1,
        "Times that the features are written into the state, a trainable ring of convolution "
        "blocks between two (data re-uploading).",
        used_when=(("quantum.model", ("qcnn",)),),
        ge=1,
        le=4,
    )
    feature_reps: int = setting(
        1, "Repetitions of the ZZ feature map.", used_when=(("quantum.model", ("vqc",)),), ge=1
    )
    reps: int = setting(
        3, "Repetitions of RealAmplitudes.", used_when=(("quantum.model", ("vqc",)),), ge=1
    )
    backend: str = setting(
        "exact",
        "`exact` (our batched simulator), `pennylane:<device>`, `aer`, `aer:<fake or real IBM "
        "backend>` (its noise), `fake:<IBM backend>`, `ibm:<backend>` or `ibm:least_busy`; or "
        "one for each client, comma-separated. See docs/backends.md.",
        per_node=True,
        listed=True,
    )
    device_options: str = setting(
        "",
        "The PennyLane device's own arguments as `key=value,key=value`, for instance "
        "`c_dtype=complex64,batch_obs=true`.",
        used_when=(PENNYLANE,),
        per_node=True,
    )
    noise: str = setting(
        "",
        "Noise channels after every gate as `channel=probability,...` (`depolarizing`, "
        "`amplitude-damping`, `phase-damping`, `bit-flip`, `phase-flip`) and before the "
        "measurement (`readout`); the device must take channels, as `default.mixed` does.",
        used_when=(PENNYLANE,),
        per_node=True,
    )
    precision: Literal["single", "double"] = setting(
        "single", "Number format of the exact engine.", used_when=(EXACT,), per_node=True
    )
    device: Literal["auto", "cpu", "cuda"] = setting(
        "cpu", "Where the exact engine computes.", used_when=(EXACT,), per_node=True
    )
    threads: int = setting(
        1, "Torch threads of a client; more helps only beyond 8 qubits.", per_node=True, ge=1
    )


class TrainSettings(Section):
    """Local training of the quantum model."""

    optimizer: Literal["auto", "adam", "parameter-shift", "spsa", "cobyla"] = setting(
        "auto",
        "Local optimiser: Adam by autograd; Adam by parameter shift; SPSA; the paper's COBYLA. "
        "auto: SPSA where shots are counted (aer, fake, ibm), else Adam.",
    )
    warm_rounds: int = setting(
        0,
        "First rounds that train with Adam on the exact simulator and cost no circuits.",
        used_when=(SHOTS,),
        ge=0,
    )
    steps: int = setting(
        20, "Optimiser steps of a client in round 1; COBYLA evaluates its start besides.", ge=1
    )
    min_steps: int = setting(1, "Fewest steps that the agent may give.", ge=1)
    max_steps: int = setting(100, "Most steps that the agent may give.", ge=1)
    batch_rows: int = setting(
        0,
        "Rows of a step, drawn anew for each (COBYLA: for each round); 0: all.",
        ge=0,
    )
    learning_rate: float = setting(
        0.05,
        "Adam's step size, SPSA's first move of an angle, or COBYLA's first trust radius, in "
        "radians.",
        used_when=(("train.schedule", ("constant",)),),
        gt=0,
    )
    schedule: Literal["constant", "inverse-time"] = setting(
        "constant",
        "Learning-rate schedule; inverse-time is theorem 6.4's 2 / (mu (t + gamma)).",
        used_when=(("train.optimizer", ("auto", "adam", "parameter-shift")),),
    )
    perturbation: float = setting(
        0.2,
        "SPSA's first perturbation of every angle, radians.",
        used_when=(("train.optimizer", ("auto", "spsa")),),
        gt=0,
        le=1.5,
    )
    mu: float = setting(
        1.0,
        "Strong convexity of theorem 6.4.",
        used_when=(("train.schedule", ("inverse-time",)),),
        gt=0,
    )
    smoothness: float = setting(
        10.0,
        "Smoothness L of theorem 6.4: gamma = max(8 L / mu, E), E = `train.max_steps`.",
        used_when=(("train.schedule", ("inverse-time",)),),
        gt=0,
    )
    class_weights: Literal["none", "balanced"] = setting(
        "none", "Weights of the classes in the cross-entropy, from all sites' counts."
    )
    proximal: float = setting(
        0.0, "FedProx: weight of the squared distance to the round's global parameters.", ge=0
    )


class StopSettings(Section):
    """When the run ends before its last round."""

    rule: Literal["none", "change", "gap", "either"] = setting(
        "none",
        "Paper's criteria: the mean |L_k - L_server| changes by less than tau; or "
        "|L_server - L_LLM| < tau.",
    )
    tau: float = setting(
        0.02,
        "Tolerance of the criteria.",
        used_when=(("stop.rule", ("change", "gap", "either")),),
        gt=0,
    )
    min_rounds: int = setting(2, "No agent, rule or patience stops the run earlier.", ge=1)
    patience: int = setting(
        0, "Rounds without a better validation loss before the run stops; 0: off.", ge=0
    )
    target_accuracy: float = setting(
        0.0, "Validation accuracy that ends the run; 0: off.", ge=0, le=1
    )
    circuits: int = setting(0, "Budget of circuits over all clients; 0: off.", ge=0)
    shots: int = setting(0, "Budget of shots over all clients; 0: off.", used_when=(DEVICE,), ge=0)
    qpu_seconds: float = setting(
        0.0,
        "Budget of QPU seconds over all clients, looked at after each round; 0: off.",
        used_when=(IBM,),
        ge=0,
    )
    wall_seconds: float = setting(0.0, "Budget of wall-clock seconds of the rounds; 0: off.", ge=0)


class AggregationSettings(Section):
    """How updates become the next global parameters."""

    rule: Literal["weighted", "uniform", "median", "trimmed-mean", "krum"] = setting(
        "weighted", "Mean weighted by rows, the paper's plain mean, or a robust rule."
    )
    trim: float = setting(
        0.2,
        "Share trimmed from each end, or for krum of updates that may be lies; of three or more "
        "updates at least one.",
        used_when=(("aggregation.rule", ("trimmed-mean", "krum")),),
        gt=0,
        lt=0.5,
    )
    max_norm: float = setting(
        100.0, "An update (difference to the global parameters) of larger 2-norm is dropped.", gt=0
    )
    norm_ratio: float = setting(
        5.0,
        "So is one of a 2-norm above this many times the median of the round's updates (times its "
        "steps over the median steps, where it was given more).",
        ge=3,
    )
    clip_radius: float = setting(
        2.0,
        "An update further from the round's coordinate-wise median than this many times the "
        "median distance is moved that near (centred clipping).",
        ge=1,
    )
    max_weight: float = setting(
        3.0,
        "Most rows that a site counts for, as a multiple of the median site's: in weights of "
        "updates, evaluations and moments, and in class weights. Sites declare their own rows.",
        ge=1,
    )


class EvaluationSettings(Section):
    """Where the global model is judged."""

    mode: Literal["central", "federated"] = setting(
        "central",
        "Validation and test rows at the server, or at every node.",
    )
    baselines: bool = setting(
        True,
        "Score majority class and logistic regressions beside the quantum model; with "
        "evaluation.mode = federated each site's own regression, where each holds every class.",
    )
    backend: str = setting(
        "exact",
        "What the server judges on: the exact simulator, which costs no circuits, or a backend "
        "that `quantum.backend` names.",
        used_when=(("evaluation.mode", ("central",)),),
    )
    keep: Literal["best", "last"] = setting(
        "best", "Final model: the round of lowest validation loss, or the last."
    )


class Settings(Section):
    """Everything a run is made of."""

    run: RunSettings = RunSettings()
    data: DataSettings = DataSettings()
    features: FeatureSettings = FeatureSettings()
    quantum: QuantumSettings = QuantumSettings()
    hardware: HardwareSettings = HardwareSettings()
    train: TrainSettings = TrainSettings()
    distill: DistillSettings = DistillSettings()
    llm: LlmSettings = LlmSettings()
    agent: AgentSettings = AgentSettings()
    stop: StopSettings = StopSettings()
    aggregation: AggregationSettings = AggregationSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    privacy: PrivacySettings = PrivacySettings()
