"""What the strategy remembers between rounds, and the observation it makes of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

from core import COST_KEYS, Cost, Ledger, Settings, circuit_prices, most_steps, total
from core.messages import AdaptReport, EvaluateReport, SiteReport, TrainReport
from strategies.credit import Credit, standing, standing_variance
from strategies.decisions import ClientView, Observation
from strategies.group_credit import GroupRound
from strategies.plausibility import Limits, most_tokens
from strategies.regulation import distances, llm_loss_of, loss_ratio
from strategies.row_weights import counted_rows


@dataclass(frozen=True)
class Member:
    """A client of the run: which node it is, and what it reported of itself."""

    node_id: int
    about: SiteReport

    @property
    def client(self) -> int:
        """Index of the client, from 0."""
        return self.about.client


@dataclass
class FederationState:
    """Clients, history and ledger of a run; the strategy's only mutable state.

    Attributes
    ----------
    members : dict
        Clients by index.
    views : dict
        What is known of each client, as agents see it.
    weights : dict
        Training rows that each client counts for, see `counted_rows`.
    steps_done : dict
        Optimizer steps each client has taken, for the learning-rate schedule.
    ledger : Ledger
        Costs so far.
    losses, accuracies, alignments : list of float
        History of the global model on validation rows, and of mean |L_k - L_server|.
    participants, spends : list
        Clients that each round told to train, and what their circuits cost times their prices.
    group_rounds : list of GroupRound
        Under secure aggregation, groups of past rounds and what they were worth, the last one last.
    start_loss : float or None
        Loss of the first parameters on the server's validation rows, nats; None if unknown.
    measured : set of int
        Clients whose loss was measured in the round under way.
    owed : dict
        By client, the circuits of failed messages: what they cost may come with a later report.
    lost : int
        Rounds lost in a row for want of replies.
    resting : frozenset of int
        Who failed in a round that was lost: the next does without them.
    absent : frozenset of int
        Who takes no part in the next round: gone, or busy with an earlier message.
    unknown_nodes : frozenset of int
        Ids of nodes that are no clients of the run, and that have been reported.
    started : float
        Monotonic clock at the start, seconds.
    """

    members: dict[int, Member]
    views: dict[int, ClientView]
    weights: dict[int, int]
    steps_done: dict[int, int]
    ledger: Ledger = field(default_factory=Ledger)
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    alignments: list[float] = field(default_factory=list)
    participants: list[int] = field(default_factory=list)
    spends: list[float] = field(default_factory=list)
    group_rounds: list[GroupRound] = field(default_factory=list)
    start_loss: float | None = None
    measured: set[int] = field(default_factory=set)
    owed: dict[int, int] = field(default_factory=dict)
    lost: int = 0
    resting: frozenset[int] = frozenset()
    absent: frozenset[int] = frozenset()
    unknown_nodes: frozenset[int] = frozenset()
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        nodes = reversed(self.members.values())  # of two on one node the first is its client
        self._clients = {member.node_id: member.client for member in nodes}

    @classmethod
    def begin(cls, members: Sequence[Member], settings: Settings) -> FederationState:
        """Start with everybody at the initial number of steps."""
        steps = settings.train.steps
        prices = circuit_prices(settings.agent.circuit_prices, settings.run.clients) or ()
        weights = rows_that_count(members, "train_rows", settings)
        views = {
            member.client: ClientView(
                client=member.client,
                rows=member.about.train_rows,
                class_rows=tuple(member.about.class_rows),
                weight=weights[member.client],
                steps=steps,
                circuits_per_step=member.about.circuits_per_step,
                circuits_fixed=member.about.circuits_fixed,
                shots_per_circuit=member.about.shots_per_circuit,
                circuit_price=prices[member.client] if member.client < len(prices) else 1.0,
            )
            for member in members
        }
        return cls(
            members={member.client: member for member in members},
            views=dict(sorted(views.items())),
            weights=weights,
            steps_done=dict.fromkeys(views, 0),
        )

    def client_of(self, node_id: int) -> int | None:
        """Return the client behind a node id, or None."""
        return self._clients.get(node_id)

    def llm_loss(self) -> float | None:
        """Return L_LLM,server: the clients' LLM losses averaged by rows, nats; None if unknown."""
        views = self.views.values()
        known = [(self.weights[v.client], v.llm_loss) for v in views if v.llm_loss is not None]
        rows = sum(n for n, _ in known)
        return sum(n * loss for n, loss in known) / rows if rows else None

    def observe(self, server_round: int, settings: Settings) -> Observation:
        """Make the observation for a round to be decided."""
        stop = settings.stop
        spent = self.ledger.paid()
        circuits, shots = spent.circuits, spent.shots
        if settings.evaluation.mode == "federated":  # the final test must still fit the budget
            hidden = self.resting & self.views.keys()  # not shown, and yet they evaluate
            for about in (member.about for member in self.members.values()):
                rows = about.test_rows
                if about.client in hidden:
                    rows += about.val_rows
                circuits += rows
                shots += rows * about.shots_per_circuit
        elapsed = time.monotonic() - self.started
        return Observation(
            round=server_round,
            rounds_left=settings.run.rounds - server_round + 1,
            min_steps=settings.train.min_steps,
            max_steps=most_steps(settings, [m.about.backend for m in self.members.values()]),
            plain_steps=settings.train.steps,
            plain_spend=sum(view.cost(settings.train.steps) for view in self.views.values()),
            price=settings.agent.price,
            idle_price=settings.agent.idle_price,
            start_loss=self.start_loss,
            classes=len(next(iter(self.members.values())).about.classes),
            circuits_left=stop.circuits - circuits if stop.circuits else None,
            shots_left=stop.shots - shots if stop.shots else None,
            qpu_seconds_left=stop.qpu_seconds - spent.qpu_seconds if stop.qpu_seconds else None,
            seconds_left=stop.wall_seconds - elapsed if stop.wall_seconds else None,
            losses=tuple(self.losses),
            accuracies=tuple(self.accuracies),
            alignments=tuple(self.alignments),
            participants=tuple(self.participants),
            spends=tuple(self.spends),
            llm_loss=self.llm_loss(),
            clients=tuple(self._priced(server_round, settings)),
        )

    def _priced(self, server_round: int, settings: Settings) -> Iterator[ClientView]:
        """Yield the views; a warm round costs the circuits of federated evaluation only."""
        out, federated = self.resting | self.absent, settings.evaluation.mode == "federated"
        for client, view in self.views.items():
            if client in out:
                continue
            if server_round > settings.train.warm_rounds:
                yield view
                continue
            rows = self.members[client].about.val_rows if federated else 0
            yield replace_view(view, circuits_per_step=0, circuits_fixed=rows)

    def most_circuits(self, client: int, steps: int) -> int:
        """Return the most circuits that training for so many steps can cost a client."""
        about = self.members[client].about
        most = about.circuits_fixed + steps * about.circuits_per_step
        # On a device a job that failed is paid, and submitted once more.
        return 2 * most if about.shots_per_circuit else most

    def training_limits(self, client: int, steps: int, settings: Settings) -> Limits:
        """Return what a training reply may declare; failed messages may be paid for in it too."""
        about = self.members[client].about
        circuits = self.most_circuits(client, steps) + self.owed.get(client, 0)
        tokens = most_tokens(about, settings)
        return Limits(about.train_rows, circuits, about.shots_per_circuit, tokens)

    def evaluation_limits(self, client: int, split: str) -> Limits:
        """Return what an evaluation of ``validation`` or ``test`` rows may declare."""
        about = self.members[client].about
        rows = about.test_rows if split == "test" else about.val_rows
        circuits = rows * (2 if about.shots_per_circuit else 1) + self.owed.get(client, 0)
        return Limits(rows, circuits, about.shots_per_circuit)

    def settle(self, steps: Mapping[int, int], failed: set[int], exhausted: set[int]) -> None:
        """Note what a round's failed messages may have cost; who cannot pay sits out from now on.

        Parameters
        ----------
        steps : mapping
            Steps that each participant was given.
        failed, exhausted : set of int
            Clients whose message failed, and those of them whose own budget is spent.
        """
        for client in failed & set(self.views):
            view = self.views[client]
            self.views[client] = replace_view(view, failures=view.failures + 1)
        for client in failed & set(steps):
            owed = self.owed.get(client, 0) + self.most_circuits(client, steps[client])
            self.owed[client] = owed
        for client in exhausted:
            self.retire(client)

    def record_late(self, client: int, server_round: int, cost: Cost, ordered: int) -> None:
        """Count what a reply cost that came after its deadline; its message is no longer owed.

        Parameters
        ----------
        client, server_round : int
            Whose it is, and of which round.
        cost : Cost
            What it reported.
        ordered : int
            Most circuits that its message could cost.
        """
        self.ledger.add(server_round, {client: cost})
        left = self.owed.pop(client, 0) - ordered
        if left > 0:
            self.owed[client] = left

    def begin_at(self, loss: float) -> None:
        """Note the loss of the first parameters on the server's validation rows, nats."""
        self.start_loss = loss

    def note_availability(
        self, absent: frozenset[int], unknown: frozenset[int], quorum: int
    ) -> None:
        """Note which clients cannot take part in the next round, and unknown nodes.

        Where too few others are left, clients that failed in the last round take part again.
        """
        self.absent, self.unknown_nodes = absent, self.unknown_nodes | unknown
        left = set(self.views) - absent
        if len(left - self.resting) < min(quorum, len(left)):
            self.resting = frozenset()

    def leave_out(self, clients: Iterable[int]) -> None:
        """Leave clients out of the next round."""
        self.absent |= frozenset(clients)

    def retire(self, client: int) -> None:
        """Take a client out of the candidates: its budget is spent."""
        self.views.pop(client, None)

    def trained(self, client: int, report: TrainReport, cost: Cost, ordered: int) -> None:
        """Note what a participant reported.

        Parameters
        ----------
        client : int
            Who trained.
        report : TrainReport
            Its checked numbers.
        cost : Cost
            Its line of the ledger.
        ordered : int
            The steps m it was given: the rules go on from these, not from the steps taken.
        """
        view, llm_loss = self.views[client], llm_loss_of(report)
        self.steps_done[client] += report.steps
        self.views[client] = replace_view(
            view,
            loss=report.loss,
            llm_loss=llm_loss,
            ratio=None if llm_loss is None else loss_ratio(report.loss, llm_loss),
            trend=None if view.loss is None else report.loss - view.loss,
            steps=ordered,
            chosen=view.chosen + 1,
            circuits=view.circuits + report.circuits,
            busy_seconds=cost.busy_seconds,
            queue_seconds=report.queue_seconds,
            # Fine-tuning happens once: it says nothing of the next round's pace.
            seconds_per_step=(cost.busy_seconds - report.llm_seconds) / max(1, report.steps),
        )
        self.measured.add(client)
        self.owed.pop(client, None)

    def credited(self, found: Mapping[int, Credit]) -> None:
        """Note what the participants' models were worth at the server's validation rows."""
        scale = sum(abs(one.credit) for one in found.values()) / max(1, len(found))
        for client, one in found.items():
            if (view := self.views.get(client)) is None:
                continue
            # Its number of rounds already counts this one.
            now = one.credit, scale, max(1, view.chosen)
            self.views[client] = replace_view(
                view,
                credit=one.credit,
                gain=one.gain,
                standing=standing(view.standing, *now),
                standing_variance=standing_variance(view.standing_variance, view.standing, *now),
            )

    def grouped(self, rounds: list[GroupRound], views: dict[int, ClientView]) -> None:
        """Note the groups of past rounds, and what is known of clients after the last of them."""
        self.group_rounds, self.views = rounds, views

    def evaluated(self, client: int, loss: float) -> None:
        """Note the loss of the global model on a client's validation rows."""
        if client not in self.views:
            return
        view = self.views[client]
        ratio = None if view.llm_loss is None else loss_ratio(loss, view.llm_loss)
        self.views[client] = replace_view(view, loss=loss, ratio=ratio)
        self.measured.add(client)

    def finish_round(self, participants: Sequence[int], loss: float, accuracy: float) -> None:
        """Note the round's global model and who sat it out."""
        self.losses.append(loss)
        self.accuracies.append(accuracy)
        # A client that sat out keeps its distance of the round whose model it was measured
        # with: held against today's server loss, a stale loss would shut it out for good.
        fresh = {k: self.views[k].loss for k in self.measured}
        gaps = distances({k: value for k, value in fresh.items() if value is not None}, loss)
        present = set(participants)
        self.participants.append(len(present))
        chosen = (view for view in self.views.values() if view.client in present)
        self.spends.append(sum(view.cost(view.steps) for view in chosen))
        for client, view in self.views.items():
            absent = client not in present
            self.views[client] = replace_view(
                view,
                gap=gaps.get(client, view.gap),
                rounds_since=view.rounds_since + 1 if absent else 0,
            )
        known = [view.gap for view in self.views.values() if view.gap is not None]
        self.alignments.append(sum(known) / len(known) if known else 0.0)
        self.measured.clear()
        self.lost, self.resting = 0, frozenset()

    def lose_round(self, failed: Set[int], quorum: int) -> None:
        """Note a round without enough replies: it has no model, and who failed sits out the next.

        Parameters
        ----------
        failed : set of int
            Clients whose message failed.
        quorum : int
            Clients that a round needs; where fewer are left without them, nobody sits out.
        """
        self.lost += 1
        enough = len(set(self.views) - failed) >= quorum
        self.resting = frozenset(failed) if enough else frozenset()
        for client, view in self.views.items():
            self.views[client] = replace_view(view, rounds_since=view.rounds_since + 1)
        self.measured.clear()


def rows_that_count(members: Iterable[Member], name: str, settings: Settings) -> dict[int, int]:
    """Return the rows that each of all clients counts for (`counted_rows`).

    ``name`` says which rows: ``train_rows``, ``val_rows`` or ``test_rows``.
    """
    rows = {member.client: int(getattr(member.about, name)) for member in members}
    return counted_rows(rows, settings.aggregation.max_weight)


def replace_view(view: ClientView, **changes: object) -> ClientView:
    """Return a view with some fields changed, checked again."""
    return ClientView.model_validate({**view.model_dump(), **changes})


def cost_of(
    report: AdaptReport | TrainReport | EvaluateReport, bytes_down: int, bytes_up: int
) -> Cost:
    """Return the ledger's line of what a client reported of its work.

    Steps of the shared adapter are not those of the quantum optimizer: they are not counted.
    """
    spent = {key: value for key, value in vars(report).items() if key in COST_KEYS}
    if isinstance(report, AdaptReport):
        del spent["steps"]
    return Cost(**spent, bytes_up=bytes_up, bytes_down=bytes_down)


def add_costs(costs: Mapping[int, Cost], extra: Mapping[int, Cost]) -> dict[int, Cost]:
    """Add two sets of costs client by client."""
    keys = sorted({*costs, *extra})
    zero = Cost()
    return {k: total((costs.get(k, zero), extra.get(k, zero))) for k in keys}
