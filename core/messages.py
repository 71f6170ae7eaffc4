"""The messages between server and clients: their types, and how they are packed and unpacked.

Flower's strategies and mods want exactly one `ArrayRecord` and one `ConfigRecord` in an
instruction, and one `ArrayRecord` and one `MetricRecord` in a training reply; text travels in a
`ConfigRecord`. No message carries a row, a label or text of a row.

Every message validates itself when it is built: exact keys and types, finite numbers within
bounds. What a client sent is read in `core.received` only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from core.formatting import hidden_character, printable

PREPARE, TRAIN, EVALUATE = "query.prepare", "train", "evaluate"
ADAPT, ADOPT, REJOIN = "train.adapt", "query.adopt", "query.rejoin"
PROBE = "query.probe"
"""Message types: Flower's category, and our action behind the dot."""

ARRAYS, CONFIG, METRICS, ABOUT = "arrays", "config", "metrics", "about"
"""Keys of the records in a message."""

USER_ERROR_CODE = 1001
"""Code of a reply that carries a user's mistake at a client, in one line."""

BUDGET_CODE = 1002
"""Code of a reply of a client whose own budget does not pay for the work."""

WEIGHT_KEY = "num-examples"
"""Flower's usual name of a reply's weight in the aggregation."""

NO_ENCODER = "none"
"""Encoder of features that no model makes (Flower cannot size an empty string)."""

UNSET = "none"
"""An absent text of a message, for the same reason."""

T = TypeVar("T")
Parameters = dict[str, npt.NDArray[Any]]

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

MOST_ROWS = 10**9
MOST_LOSS = 28.0
"""Nats: probabilities count as at least 1e-12 (`data.metrics`), whose -log is 27.6."""


def _shown(text: str) -> str:
    """Refuse what could take over a terminal or turn a line round."""
    if hidden := hidden_character(text):
        raise ValueError(f"character {hidden} cannot be shown")
    return text


Count = Annotated[int, Field(ge=0, le=2**53)]
Rows = Annotated[int, Field(ge=0, le=MOST_ROWS)]
Share = Annotated[float, Field(ge=0, le=1)]
LEAST_WEIGHT = 0.05
Weight = Annotated[float, Field(ge=LEAST_WEIGHT, le=1)]
"""The part of its rows that a site counts for: at 0 a mean of it alone would be no number."""
Loss = Annotated[float, Field(ge=0, le=MOST_LOSS)]
Objective = Annotated[float, Field(ge=-1e-3, le=1e9)]
"""A value that is minimised; the KL term of equal distributions may be a rounding error below 0."""
Seconds = Annotated[float, Field(ge=0, le=1e8)]
Text = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_shown)]


@dataclass(frozen=True, config=STRICT)
class SiteReport:
    """A client's answer to PREPARE.

    Attributes
    ----------
    client : int
        Index of the client, from 0.
    site : str
        The site's own name, for the operator; it reaches no prompt.
    train_rows, val_rows, test_rows : int
        Rows the client holds.
    class_rows : list of int
        Training rows of each class.
    classes : list of str
        Class names.
    data, kind, features, backend, llm : str
        What it runs on, in words.
    encoder : str
        Identity of the model that all sites must have alike, since its embeddings are the
        features or its adapter is trained together; or `NO_ENCODER`.
    adapter_bytes : int
        Size of the adapter that is trained together, bytes; 0 if none is.
    circuits_per_step, circuits_fixed : int
        Circuits of one optimizer step, and of a round besides its steps.
    shots_per_circuit : int
        Shots of a circuit; 0 where expectations are exact.
    seconds : float
        Time it took to prepare.
    rows_digest : str
        Which secret of the site's, and a digest of all its rows that is keyed with it.
    notes : str
        What the user should know of the site's rows (repeated rows, cleaned texts ...), counts
        only; or `UNSET`.
    length : int
        Letters of each of its sequences, where all have one length and the features may need it;
        else 0.
    """

    client: Annotated[int, Field(ge=0, le=10**6)]
    site: Text
    train_rows: Rows
    val_rows: Rows
    test_rows: Rows
    class_rows: list[Rows]
    classes: list[Text]
    data: Text
    kind: Text
    features: Text
    backend: Text
    llm: Text
    encoder: Text
    adapter_bytes: Count
    circuits_per_step: Count
    circuits_fixed: Count
    shots_per_circuit: Count
    seconds: Seconds
    rows_digest: Text
    notes: Text = UNSET
    length: Rows = 0


@dataclass(frozen=True, config=STRICT)
class RejoinIns:
    """A run goes on: ``run`` is Flower's id of its first part."""

    run: str


@dataclass(frozen=True, config=STRICT)
class AdaptIns:
    """A round of training the shared adapter: ``round`` from 1, of `llm.rounds`."""

    round: int


@dataclass(frozen=True, config=STRICT)
class AdaptReport:
    """A client's part in a round of the shared adapter; numbers only.

    ``loss`` is the mean training loss of its steps, nats; ``start`` stands for what the sites
    drew from the shared seed, which must be the same everywhere.
    """

    rows: Rows
    round: Count
    steps: Count
    loss: Objective
    start: Annotated[int, Field(ge=0, lt=2**63)]
    reused: Annotated[int, Field(ge=0, le=1)]
    llm_tokens: Count
    llm_seconds: Seconds


@dataclass(frozen=True, config=STRICT)
class AdoptReport:
    """How a client evaluates the shared adapter; loss and accuracy on its validation rows."""

    rows: Rows
    loss: Objective
    accuracy: Share
    llm_seconds: Seconds


@dataclass(frozen=True, config=STRICT)
class ProbeReport:
    """How linear probes do on a client's validation rows.

    ``losses`` are in nats, of each kind of features in alphabetical order those of each shrinkage
    and of each number of qubits; ``spreads`` are how far they are from those with most qubits, root
    mean square over rows. All 0 where it has no such rows.
    """

    rows: Rows
    losses: list[Loss]
    spreads: list[Loss]


@dataclass(frozen=True, config=STRICT)
class TrainIns:
    """How a participant is to train, besides the parameters.

    Attributes
    ----------
    round : int
        The round, from 1.
    steps : int
        Optimizer steps to take.
    step_offset : int
        Steps that the client has taken before, for the learning-rate schedule.
    class_weights : list of float
        Weights of the classes, all ones if unweighted.
    projection : bytes
        The federated projection (`data.Projection.to_bytes`).
    run : str
        Flower's id of the run, of a resumed one that of its first part: whose jobs and budgets
        these are; or `UNSET`.
    adapter : str
        Digest of the shared adapter, or `UNSET`.
    fine_tuned : bool
        Whether the client has fine-tuned its language model in this run; a restarted client
        may have lost it.
    rate : float
        What ``train.schedule = plateau`` has left of the learning rate, a share.
    group : bytes
        Whose updates are summed with this one (`core.secagg.Group`); empty: it goes out alone.
    log : str
        Head of the run's log when the message was made (`core.storage.chain`), or `UNSET`.
    """

    round: int
    steps: int
    step_offset: int
    class_weights: list[float]
    projection: bytes
    run: str
    adapter: str
    fine_tuned: bool
    rate: float = 1.0
    group: bytes = b""
    log: str = UNSET


@dataclass(frozen=True, config=STRICT, kw_only=True)
class CircuitReport:
    """What the circuits of an answer cost; seconds on the device, in its queue, and of the rest."""

    jobs: Count
    circuits: Count
    shots: Count
    two_qubit_gates: Count
    qpu_seconds: Seconds
    queue_seconds: Seconds
    train_seconds: Seconds


@dataclass(frozen=True, config=STRICT)
class TrainReport(CircuitReport):
    """What a participant answers besides its parameters; numbers only.

    Losses are mean negative log-likelihoods in nats; ``loss`` and ``llm_loss`` on the
    client's validation rows, ``train_loss`` the last value of the training objective.
    ``distill_weight`` and ``distill_temperature`` are lambda and tau of the round, 0 without one.
    ``weight`` is by what its rows count with ``aggregation.weighting = noise``.
    """

    rows: Rows
    round: Count
    steps: Count
    loss: Loss
    accuracy: Share
    train_loss: Objective
    llm_loss: Annotated[float, Field(ge=0, le=1e9)]
    llm_accuracy: Share
    llm_macro_f1: Share
    llm_raw_loss: Annotated[float, Field(ge=0, le=1e9)]
    llm_temperature: Annotated[float, Field(ge=0, le=1e9)]
    llm_epochs: Count
    llm_reused: Annotated[int, Field(ge=0, le=1)]
    llm_tokens: Count
    llm_seconds: Seconds
    llm_cut: Rows = 0
    distill_weight: Share = 0.0
    distill_temperature: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    weight: Weight = 1.0


@dataclass(frozen=True, config=STRICT)
class EvaluateIns:
    """What a client is to evaluate; ``split`` is ``validation`` or ``test``, the rest as above."""

    round: int
    split: Literal["validation", "test"]
    projection: bytes
    run: str
    adapter: str


@dataclass(frozen=True, config=STRICT)
class EvaluateReport(CircuitReport):
    """Evaluation on a client's rows; confusions are C x C, rows true, flattened.

    The baselines' confusions come with the test split only: logistic regressions fitted on the
    client's own training rows. They are empty where those rows lack a class: such a model would
    only repeat what its site happens to hold.
    """

    rows: Rows
    loss: Loss
    confusion: list[Rows]
    logistic_projected: list[Rows]
    logistic_full: list[Rows]


class Instruction(Protocol):
    """What a server tells a client besides arrays: a dataclass of numbers, texts and bytes."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


def pack_parameters(parameters: Mapping[str, npt.NDArray[Any]]) -> ArrayRecord:
    """Put named arrays into Flower's record, in sorted order of their names."""
    return ArrayRecord({name: Array(np.asarray(parameters[name])) for name in sorted(parameters)})


def unpack_parameters(record: ArrayRecord) -> Parameters:
    """Take named arrays out of Flower's record; each is a copy that may be written."""
    return {name: np.array(array.numpy()) for name, array in record.items()}


def pack_instruction(parameters: Parameters | ArrayRecord, config: Instruction) -> RecordDict:
    """Pack parameters and what is to be done with them.

    Packed parameters are taken as they are: the messages of a round share them.
    """
    packed = parameters if isinstance(parameters, ArrayRecord) else pack_parameters(parameters)
    values = dataclasses.asdict(config)
    sized = {key: value for key, value in values.items() if value != b""}  # Flower cannot size it
    return RecordDict({ARRAYS: packed, CONFIG: ConfigRecord(sized)})


def read_instruction(message: Message, kind: type[T]) -> tuple[Parameters, T]:
    """Unpack an instruction."""
    config: dict[str, Any] = dict(message.content.config_records[CONFIG])
    return read_parameters(message), kind(**config)


def pack_report(
    metrics: AdaptReport | AdoptReport | ProbeReport | TrainReport | EvaluateReport,
    parameters: Parameters | None = None,
) -> RecordDict:
    """Pack the answer to an instruction, with parameters or moments where it has some."""
    values = dataclasses.asdict(metrics)
    record = RecordDict({METRICS: MetricRecord({WEIGHT_KEY: values["rows"], **values})})
    if parameters is not None:
        record[ARRAYS] = pack_parameters(parameters)
    return record


def read_parameters(message: Message) -> Parameters:
    """Unpack the parameters of an instruction."""
    return unpack_parameters(message.content.array_records[ARRAYS])


def first_problem(error: ValidationError) -> str:
    """Describe in one printable line a message's first wrong field."""
    problem = error.errors(include_url=False)[0]
    key = printable(".".join(map(str, problem["loc"])), 40)
    if problem["type"] == "missing":
        return f"{key} is missing"
    if problem["type"] == "unexpected_keyword_argument":
        return f"{key} is no field of it"
    return printable(f"{key} = {printable(repr(problem['input']), 60)}: {problem['msg']}")


def pack_site_report(about: SiteReport, moments: Parameters | None = None) -> RecordDict:
    """Pack a client's answer to PREPARE, with its feature moments, or to REJOIN without them."""
    record = RecordDict({ABOUT: ConfigRecord(dataclasses.asdict(about))})
    if moments is not None:
        record[ARRAYS] = pack_parameters(moments)
    return record


def payload_bytes(content: RecordDict) -> int:
    """Return the bytes that a message's records carry, as Flower counts them."""
    size = sum(record.count_bytes() for record in content.array_records.values())
    size += sum(record.count_bytes() for record in content.config_records.values())
    return size + sum(record.count_bytes() for record in content.metric_records.values())
