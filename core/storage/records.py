"""What may stand in the files of a run folder: types and bounds of each key.

Keys that no model names are not looked at. `core.storage.reading` reads files by these.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from core.ledger import COST_KEYS
from core.storage.record_types import (
    Amount,
    Clients,
    Count,
    Counts,
    Index,
    Key,
    Names,
    Number,
    Scalars,
    Share,
    Square,
)


class Part(BaseModel):
    """A part of a record: types are not bent, and other keys are left alone."""

    model_config = ConfigDict(strict=True, extra="ignore")


_COSTS: dict[str, Any] = dict.fromkeys(COST_KEYS, (Amount | None, None))
_PLACE: dict[str, Any] = {"round": (Index, ...), "client": (Index, ...)}
Costs = create_model("Costs", __base__=Part, **_COSTS)
Entry = create_model("Entry", __base__=Part, **_PLACE, **_COSTS)
"""A line of the ledger."""


class AgentUsageEntry(Part):
    """What a round's decision cost of a language model."""

    round: Index
    questions: Count
    prompt_tokens: Count
    answer_tokens: Count
    seconds: Amount


class AgentUsageEntries(Part):
    """``agent`` of ``ledger.json``."""

    entries: list[AgentUsageEntry] = []


class Entries(Part):
    """``underway.json``, ``repeated.json``, and ``repeated`` of ``ledger.json``."""

    entries: list[Entry] = []
    settled: Names = []


class LedgerFile(Part):
    """``ledger.json``."""

    entries: list[Entry] = []
    agent: AgentUsageEntries = AgentUsageEntries()
    repeated: Entries = Entries()
    totals: Costs = Costs()
    clients: dict[Key, Costs] = {}


class ConfigFile(Part):
    """``config.json``."""

    settings: Scalars = {}
    versions: dict[str, str] = {}
    name: str = ""
    commit: str = ""
    started: str = ""
    seed: Count = 0
    resumed: list[dict[str, Any]] = []


class Adapter(Part):
    """The language model's adapter that the sites trained together."""

    kind: str = ""
    bytes: Amount = 0
    rounds: Count = 0
    loss: Number | None = None
    accuracy: Share | None = None


class Site(Part):
    """A client of the ``prepared`` event."""

    client: Index
    site: str | None = None
    train_rows: Count = 0
    val_rows: Count = 0
    test_rows: Count = 0
    class_rows: Counts = []
    backend: str | None = None
    llm: str | None = None


class Prepared(Part):
    """The ``prepared`` event of ``metrics.jsonl``."""

    data: str = ""
    synthetic: bool = False
    kind: str = ""
    classes: Names = []
    clients: list[Site] = []
    model: str = ""
    features: str = ""
    feature_choice: str = ""
    agent: str = ""
    evaluation: str = ""
    adapter: Adapter | None = None
    angles: Count = 0
    parameters: Count = 0
    validation_rows: Count = 0
    test_rows: Count = 0
    rounds: Count = 0
    seconds: Amount = 0
    warnings: Names | None = None


_TRAINED: dict[str, Any] = {
    "aggregated": (bool, False),
    "dropped": (str, ""),
    "loss": (Number | None, None),
    "ratio": (Number | None, None),
    "accuracy": (Share | None, None),
}
Trained = create_model("Trained", __base__=Part, **_PLACE, **_COSTS, **_TRAINED)
"""A ``client`` event of ``metrics.jsonl``."""


class Round(Part):
    """A ``round`` event of ``metrics.jsonl``."""

    round: Index
    participants: Clients = []
    aggregated: Clients = []
    steps: dict[Key, Count] = {}
    loss: Number | None = None
    accuracy: Share | None = None
    alignment: Number | None = None
    llm_loss: Number | None = None
    circuits: Amount = 0
    circuits_total: Amount = 0
    jobs: Amount = 0
    idle_share: Share | None = None
    seconds: Amount = 0
    reason: str = ""
    failures: Names = []


class Resumed(Part):
    """A ``resumed`` event of ``metrics.jsonl``."""

    round: Index = 0
    clients: list[dict[str, Any]] = []
    damaged: Names = []


class End(Part):
    """The ``end`` event of ``metrics.jsonl``."""

    status: str = ""
    error: str | None = ""
    stop_reason: str = ""
    rounds: Count = 0
    seconds: Amount = 0


class AdapterEvent(Adapter):
    """An ``adapter-begin`` or ``adapter`` event of ``metrics.jsonl``."""

    round: Index = 0
    clients: Any = None
    seconds: Amount = 0
    failures: Names = []


class ShownClient(Part):
    """What an agent saw of a client."""

    client: Index
    credit: Number | None = None
    standing: Number | None = None
    seconds_per_step: Number | None = None
    circuit_price: Amount | None = None
    circuits_per_step: Amount | None = None
    circuits_fixed: Amount | None = None


class ShownObservation(Part):
    """What an agent saw."""

    plain_steps: Count | None = None
    clients: list[ShownClient] = []


class Attempt(Part):
    """A question to a language model, and its answer."""

    prompt: str = ""
    answer: str = ""
    problem: str = ""
    notes: Names = []
    prompt_tokens: Amount = 0
    answer_tokens: Amount = 0
    seconds: Amount = 0


class Decided(Part):
    """A line of ``agent.jsonl``, as far as it is shown."""

    round: Index | None = None
    participants: Clients = []
    steps: dict[Key, Count] = {}
    stop: bool = False
    reason: str = ""
    guard: Names = []
    decided_by: str = ""
    attempts: list[Attempt] | None = None
    observation: ShownObservation = ShownObservation()


class Saved(Part):
    """``state.json`` of a checkpoint, as far as any run can go on from it."""

    format: Index
    round: Index
    best_round: Index
    releases: Index
    drawn: Index = 0
    run: str
    projection: str
    class_weights: list[Amount]
    adapter: Adapter | None
    seconds: dict[str, Amount]
    judge: dict[str, Amount]
    members: list[dict[str, Any]]
    views: list[dict[str, Any]]
    ledger: LedgerFile
    losses: list[Number | None]
    accuracies: list[Number | None]
    alignments: list[Number | None]
    steps_done: dict[Key, Count]
    owed: dict[Key, Count]
    measured: list[Index]
    resting: list[Index]
    absent: list[Index]
    strangers: list[Annotated[int, Field(ge=0)]] = []
    start_loss: Number | None
    lost: Index
    elapsed: Amount
    teachers: list[Teacher]
    records: dict[str, Count]


class State(Part):
    """``state.json`` of a checkpoint, as far as it is shown."""

    round: Index = 0
    views: list[ShownClient] = []


class Bin(Part):
    """Predictions of about one confidence, and how many of them were right."""

    rows: Count
    confidence: Share
    accuracy: Share


class Scores(Part):
    """Scores on validation or test rows."""

    accuracy: Share | None = None
    macro_f1: Share | None = None
    macro_recall: Share | None = None
    loss: Number | None = None
    rows: Count | None = None
    sites: Count | None = None
    confusion: Square | None = None
    failures: Names | None = None
    unseen: Scores | None = None
    calibration: list[Bin] | None = None
    calibration_error: Share | None = None


class Teacher(Part):
    """The figures of a client's language model."""

    client: Index
    loss: Number | None = None
    raw_loss: Number | None = None
    accuracy: Share | None = None
    macro_f1: Share | None = None
    temperature: Number | None = None
    epochs: Amount | None = None
    seconds: Amount | None = None


class Spent(Part):
    """What privacy has spent."""

    dp: str = ""
    unit: str = "client"
    releases: Count | None = None
    epsilon: Number | None = None
    epsilon_if_known: Number | None = None
    delta: Number | None = None
    seeded: bool = False


class Privacy(Part):
    """``privacy`` of ``summary.json``."""

    updates: Spent | None = None
    moments: Spent | None = None
    rows: Spent | None = None


class EvaluationCost(Part):
    """What the server's own evaluations cost."""

    backend: str | None = ""
    jobs: Amount | None = 0
    circuits: Amount | None = 0
    shots: Amount | None = 0


class AgentUsage(Part):
    """What the agent's language model cost in all."""

    decisions: Count | None = 0
    asked: Count | None = 0
    fallbacks: Count | None = 0
    uninformed: Count | None = 0
    repaired: Count | None = 0
    everybody: dict[str, Count] = {}
    prompt_tokens: Amount | None = 0
    answer_tokens: Amount | None = 0
    seconds: Amount | None = 0


class PriorCorrection(Part):
    """What validation says of a shift of the classes' logits."""

    applied: bool = False
    gain: Number | None = None
    error: Number | None = None
    shift: list[Number] = []


class Summary(Part):
    """``summary.json``."""

    status: str = ""
    error: str | None = ""
    rounds: Count = 0
    best_round: Index | None = None
    averaged_rounds: list[Index] = []
    prior_correction: PriorCorrection | None = None
    stop_reason: str = ""
    test: Scores | None = None
    validation: Scores | None = None
    baselines: dict[str, Scores] | None = None
    teachers: list[Teacher] | None = None
    ledger: Costs | None = None
    simulated_circuits: Count | None = None
    seconds: dict[str, Amount] | None = None
    privacy: Privacy | None = None
    judge: EvaluationCost | None = None
    agent: AgentUsage | None = None
    adapter: Adapter | None = None
    warnings: Names | None = None
