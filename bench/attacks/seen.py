"""What an attacker sees of a run: each site's updates and moments, as they pass the server.

A run of the synthetic demo in this process whose messages are noted on their way. The sums of
secure aggregation are taken of these single updates: its masks leave exactly the sum of a group
(to its fixed-point precision), so this is all that a server learns there of the updates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from flwr.app import Message

from bench.attacks.lies import BASE
from bench.grid import run_with_events
from core import Settings, parse_run
from core.messages import ARRAYS, CONFIG, TRAIN, Parameters, unpack_parameters
from data import Projection, Split, load_server, load_site, raw_features, with_kind
from llm_qfl.process import FIRST_NODE
from quantum import Classifier, build_classifier

Floats = npt.NDArray[np.float64]


@dataclass
class Round:
    """A round as the server sees it: the model that went out, and what each site sent back."""

    sent: Parameters
    updates: dict[int, Parameters] = field(default_factory=dict)


@dataclass
class Seen:
    """Everything that one run's server saw, and what only the sites and the referee know.

    Attributes
    ----------
    settings : Settings
        Of the run, features and qubits as it took them.
    rounds : dict
        By number.
    projection : Projection
        From features to angles.
    accuracy : float
        Of the kept model on the test rows.
    circuits, bytes : int
        What the run cost.
    """

    settings: Settings
    rounds: dict[int, Round]
    projection: Projection
    accuracy: float
    circuits: int
    bytes: int

    def classifier(self, precision: str = "single") -> Classifier:
        """Build the run's circuit on the exact simulator."""
        changes = {"qubits": self.projection.qubits, "precision": precision}
        quantum = self.settings.quantum.model_copy(update=changes)
        return build_classifier(quantum, 2)

    def features(self, rows: Split) -> Floats:
        """Return the raw features of rows, (rows, d)."""
        kind = with_kind(self.settings.features, self.projection.kinds)
        return np.asarray(raw_features(rows.texts, "dna", kind, _no_model), np.float64)

    def angles(self, rows: Split) -> npt.NDArray[np.float32]:
        """Return the projected features of rows, (rows, n), radians."""
        return self.projection.apply(self.features(rows))

    def site(self, client: int) -> Split:
        """Return a site's training rows: what the attacker is after."""
        return load_site(self.settings, client, self.settings.run.clients)[1].train

    def server(self) -> tuple[Split, Split]:
        """Return rows like the sites': those that an attacker may have, and those of no site."""
        held = load_server(self.settings)
        return held.validation, held.test


def _no_model(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    raise RuntimeError("these features need no language model")


def watch(*given: str) -> Seen:
    """Drive a run of the synthetic demo and note what its server sees."""
    without = "llm.model=none" in given  # then no other setting of the model has an effect
    base = [one for one in BASE if not (without and one.startswith("llm."))]
    settings, _ = parse_run([], [*base, *given])
    rounds: dict[int, Round] = {}
    projection: list[bytes] = []

    def note(message: Message, reply: Message) -> Message:
        if message.metadata.message_type == TRAIN and not reply.has_error():
            number, client = int(message.metadata.group_id), message.metadata.dst_node_id
            sent = unpack_parameters(message.content.array_records[ARRAYS])
            now = rounds.setdefault(number, Round(sent))
            now.updates[client - FIRST_NODE] = unpack_parameters(
                reply.content.array_records[ARRAYS]
            )
            projection[:] = [message.content.config_records[CONFIG]["projection"]]  # type: ignore[list-item]
        return reply

    summary, _ = run_with_events(settings, note)
    ledger = summary["ledger"]
    return Seen(
        settings,
        rounds,
        Projection.from_bytes(projection[0]),
        summary["test"]["accuracy"],
        int(ledger["circuits"]),
        int(ledger["bytes_up"] + ledger["bytes_down"]),
    )
