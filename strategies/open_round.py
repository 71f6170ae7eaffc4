"""Updates that reach the server one by one, each in the clear: what a run does by default.

`strategies.secure_round` has the same methods for updates that it sees sums of only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

from core import Cost, Settings
from core.messages import Parameters, TrainIns
from strategies.aggregators import Contribution
from strategies.state import FederationState
from strategies.update_validation import Round, Update, checked_update, collect_updates, drop_long


@dataclass
class OpenRounds:
    """The updates of a run's rounds, from messages to what is aggregated.

    Attributes
    ----------
    settings : Settings
        The run's settings.
    reference : dict of arrays
        The global parameters of the round under way.
    depths : collection of int
        Angles of the circuits that sites may have; empty: of the global one only.
    """

    settings: Settings
    reference: Parameters = field(default_factory=dict)
    depths: Collection[int] = ()

    def before(self, grid: Grid, state: FederationState, server_round: int) -> None:
        """Do what is to be done before a round is decided."""

    def plan(
        self,
        grid: Grid,
        now: Round,
        state: FederationState,
        reference: Parameters,
        instruction: TrainIns,
    ) -> dict[int, bytes]:
        """Begin a round; return whom it trains, with the group that each gets.

        `instruction` has what all participants are to do alike.
        """
        self.reference = reference
        return dict.fromkeys(now.decision.participants, b"")

    def take(self, client: int, reply: Message) -> Parameters:
        """Read a client's parameters out of its reply."""
        return checked_update(reply, self.reference, self.settings, self.depths)

    def collect(self, now: Round, replies: Iterable[Message], state: FederationState) -> None:
        """Sort training replies into updates and failures."""
        collect_updates(now, replies, state, self.settings, self.take)

    def settle(self, now: Round, state: FederationState) -> None:
        """Drop what must not count, now that all replies are there."""
        drop_long(now, self.reference, self.settings)

    def parts(self, counted: Sequence[Update], state: FederationState) -> list[Contribution]:
        """Return what is aggregated of the updates that count."""
        # Rows as reported before the run, and capped: a client cannot raise its own weight later.
        weights, weighting = state.weights, self.settings.aggregation.weighting
        return [update.weighing(weights[update.client], weighting) for update in counted]

    def note(self, now: Round, counted: Sequence[Update], shares: Sequence[float]) -> None:
        """Note what was aggregated, and by how much each part was moved to the others."""
        now.count(counted, shares)

    def take_costs(self) -> dict[int, Cost]:
        """Return what messages beside training and evaluation cost in the round, by client."""
        return {}
