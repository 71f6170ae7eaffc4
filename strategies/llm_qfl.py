"""LlmQfl: Flower's strategy that lets an agent decide who trains, how long, and when to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from logging import INFO, WARNING
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from core import Settings, UserError, with_idle
from core.messages import (
    EVALUATE,
    TRAIN,
    UNSET,
    EvaluateIns,
    EvaluateReport,
    Parameters,
    TrainIns,
    TrainReport,
    pack_instruction,
    payload_bytes,
    unpack_parameters,
)
from core.settings.agent import COST_AWARE
from strategies.agents import Agent, Decision
from strategies.agents.guard import decide
from strategies.aggregation import aggregate, centred, check_update, longest_update, weigh
from strategies.availability import book_late, muster
from strategies.journal import (
    Journal,
    asking,
    client_event,
    decision_line,
    round_event,
    teachers_of,
)
from strategies.plausibility import check_evaluation, check_training, longest_wait
from strategies.snapshot import restored, snapshot
from strategies.state import FederationState, Member, add_costs, rows_that_count
from strategies.update_selection import drop_long, may_lose, not_judged, select, too_few, worth
from strategies.update_validation import Round, collect_evaluations, collect_updates, summed_up


class LlmQfl(Strategy):
    """The custom strategy: decisions by the agent, aggregation by one of Flower's strategies.

    Parameters
    ----------
    settings : Settings
        The run's settings.
    agent : Agent
        Who decides.
    members : sequence of Member
        The clients that reported healthy.
    projection : bytes
        The federated projection that travels with every order.
    class_weights : list of float
        Weights of the classes in the clients' loss.
    journal : Journal
        Where events go.

    Attributes
    ----------
    score : callable or None
        Validation loss at the server of any parameters, where judging them costs nothing: it gives
        each participant its credit.
    run, adapter : str
        What orders say of the run's first part and of the shared adapter (`TrainIns`).
    first_round : int
        The first that `start` runs: beyond 1 in a resumed run.
    releases : int
        Rounds whose orders went out: what a client's updates have told at most.
    """

    def __init__(
        self,
        settings: Settings,
        agent: Agent,
        members: Iterable[Member],
        projection: bytes,
        class_weights: list[float],
        journal: Journal,
    ) -> None:
        self.settings = settings
        self.agent = agent
        self.projection = projection
        self.class_weights = class_weights
        self.journal = journal
        self.state = FederationState.begin(list(members), settings)
        self.score: Callable[[ArrayRecord], float] | None = None
        self.current = Round(0, Decision(participants=(), steps={}))
        self.best_round = 0
        self.best_arrays: ArrayRecord | None = None
        self.stop_reason = ""
        self.teachers: dict[int, dict[str, float]] = {}
        self.run, self.adapter, self.first_round = UNSET, UNSET, 1
        self.releases = 0
        self._reference: Parameters = {}

    def summary(self) -> None:
        """Log what the strategy is made of."""
        log(INFO, "\t├──> Agent: %s", self.agent.name)
        log(INFO, "\t├──> Clients: %s", sorted(self.state.members))
        log(INFO, "\t└──> Aggregation: %s", self.settings.aggregation.rule)

    # --- one round, as Flower's hooks -------------------------------------------------

    def decide(self, server_round: int) -> Decision:
        """Ask the agent for a round's decision, bound it, and write it down."""
        seen = self.state.observe(server_round, self.settings)
        decision, notes, said = decide(self.agent, seen, self.settings)
        self.begin_round(server_round, decision)
        line = decision_line(self.settings.agent.kind, seen, decision, notes, said)
        if attempts := line.get("attempts"):
            self.state.ledger.add_agent_usage(server_round, asking(attempts))
        self.journal.decision(line)
        return decision

    def begin_round(self, server_round: int, decision: Decision) -> Round:
        """Open the record of a round."""
        self.current = Round(server_round, decision, wait=longest_wait(self.settings))
        return self.current

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Make one order for each participant, with its own number of steps."""
        parameters = unpack_parameters(arrays)
        messages = []
        for client in self.current.decision.participants:
            told = TrainIns(
                round=server_round,
                steps=self.current.decision.steps[client],
                step_offset=self.state.steps_done[client],
                class_weights=self.class_weights,
                projection=self.projection,
                run=self.run,
                adapter=self.adapter,
                fine_tuned=client in self.teachers,
            )
            messages.append(
                self._message(pack_instruction(parameters, told), client, TRAIN, server_round)
            )
        self.current.sent = {
            client: payload_bytes(message.content)
            for client, message in zip(self.current.decision.participants, messages, strict=True)
        }
        self._reference, self.releases = parameters, self.releases + 1
        if self.settings.privacy.dp != "none":  # before they go out: a crash may come at any time
            self.journal.released(self.releases)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check the updates, select whose count, and let Flower's strategy aggregate them.

        Raises
        ------
        UserError
            If fewer than ``run.min_replies`` updates are valid, and nobody else is left to ask.
        """
        reference, bound = self._reference, longest_update(self.settings)
        collect_updates(
            self.current,
            replies,
            self.state.client_of,
            self._believable,
            {name: array.shape for name, array in reference.items()},
            lambda update: check_update(update, reference, bound),
        )
        now = self.current
        drop_long(now, reference, self.settings)
        self.journal.underway(now.number, {k: update.cost for k, update in now.updates.items()})
        self.state.settle(now.decision.steps, now.failed, now.exhausted)
        self.teachers = teachers_of(now.updates.values(), self.teachers)
        valid = [u for _, u in sorted(self.current.updates.items()) if not u.dropped]
        if len(valid) < self.settings.run.min_replies:
            return self._without_quorum(len(valid))
        counted = select(valid, self.settings, self.state)
        self.current.counted = counted
        self.current.aggregated = tuple(update.client for update in counted)
        messages = [update.message for update in counted]
        # Rows as reported before the run, and capped: a client cannot raise its own weight later.
        weigh(messages, [self.state.weights[one.client] for one in counted])
        shares = centred(self.settings, messages)[1]
        self.current.shares = dict(zip(self.current.aggregated, shares, strict=True))
        arrays, metrics_record = aggregate(self.settings, server_round, messages, reference)
        for client, update in self.current.updates.items():
            if not update.dropped:
                ordered = self.current.decision.steps[client]
                self.state.trained(client, update.report, update.cost, ordered)
        return arrays, metrics_record

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Order every client that can pay to evaluate, where evaluation is federated."""
        if self.settings.evaluation.mode != "federated":
            return []
        split: Any = config.get("split", "validation")
        told = EvaluateIns(server_round, split, self.projection, self.run, self.adapter)
        content = pack_instruction(unpack_parameters(arrays), told)
        wanted = set(self.state.members if split == "test" else self.state.views)
        asked = sorted(wanted - self.state.absent)
        self.current.sent_to_evaluate = dict.fromkeys(asked, payload_bytes(content))
        return [self._message(content, client, EVALUATE, server_round) for client in asked]

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Add the clients' evaluations up by rows: mean loss, and accuracy from confusions."""
        reports = self.read_evaluations(replies, "validation")
        if not reports:
            return None
        for client, report in reports.items():
            self.state.evaluated(client, report.loss)
        members = self.state.members.values()
        return summed_up(reports, rows_that_count(members, "val_rows", self.settings))

    def read_evaluations(self, replies: Iterable[Message], split: str) -> dict[int, EvaluateReport]:
        """Unpack evaluation answers by client; failures are noted, empty answers left out."""

        def check(client: int, report: EvaluateReport) -> str:
            classes = len(self.state.members[client].about.classes)
            return check_evaluation(report, classes, self.state.evaluation_limits(client, split))

        reports = collect_evaluations(self.current, replies, self.state.client_of, check)
        return dict(sorted(reports.items()))

    # --- the run ------------------------------------------------------------------------

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run rounds until the agent, a criterion, a budget or `num_rounds` ends them.

        Parameters are those of Flower's `Strategy.start`. The result holds the kept model
        (``evaluation.keep``) and the metrics by round.

        Raises
        ------
        UserError
            If a round has too few valid replies or cannot be evaluated.
        """
        self.summary()
        result, arrays = Result(), initial_arrays
        train, evaluate = train_config or ConfigRecord(), evaluate_config or ConfigRecord()
        for server_round in range(self.first_round, num_rounds + 1):
            began = time.monotonic()
            if server_round == 1 and self.score is not None and self._weighs:
                self.state.start_loss = self.score(initial_arrays)
            self.muster(grid)
            if self.decide(server_round).stop:
                self.stop_reason = self.current.decision.reason
                break
            orders = self.configure_train(server_round, arrays, train, grid)
            replies = grid.send_and_receive(list(orders), timeout=timeout)
            aggregated, metrics = self.aggregate_train(server_round, replies)
            if self.stop_reason:
                break
            arrays = aggregated if aggregated is not None else arrays
            if metrics is not None:
                result.train_metrics_clientapp[server_round] = metrics
            verdict = self._evaluate(server_round, arrays, evaluate, grid, timeout, evaluate_fn)
            if verdict is None:
                break
            if self.settings.evaluation.mode == "federated":
                result.evaluate_metrics_clientapp[server_round] = verdict
            else:
                result.evaluate_metrics_serverapp[server_round] = verdict
            self._finish(arrays, verdict, began)
        book_late(grid, self.state, self.settings, self.journal.event)
        self.stop_reason = self.stop_reason or f"all {num_rounds} rounds are done"
        result.arrays = self.best_arrays if self.best_arrays is not None else arrays
        return result

    def muster(self, grid: Grid) -> frozenset[int]:
        """Book what came late, and find out whom a round can ask; return whom it cannot."""
        return muster(grid, self.state, self.settings, self.journal.event)

    def _evaluate(
        self,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
        timeout: float,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None,
    ) -> MetricRecord | None:
        """Judge a round; None if no client can pay for it, which ends the run."""
        if self.current.lost and self.state.losses:  # the model is that of the round before
            loss, accuracy = self.state.losses[-1], self.state.accuracies[-1]
            return MetricRecord({"loss": loss, "accuracy": accuracy})
        orders = list(self.configure_evaluate(server_round, arrays, config, grid))
        verdict = None
        if orders:
            verdict = self.aggregate_evaluate(
                server_round, grid.send_and_receive(orders, timeout=timeout)
            )
        elif evaluate_fn is not None:
            verdict = evaluate_fn(server_round, arrays)
        for client in self.current.exhausted:
            self.state.retire(client)
        if verdict is None and self.current.exhausted and self.state.losses:
            self._end_of_budgets()
            return None
        if verdict is None:
            raise UserError(not_judged(self.current))
        return verdict

    def _finish(self, arrays: ArrayRecord, verdict: MetricRecord, began: float) -> None:
        """Close a round: history, ledger, events, checkpoint."""
        now, state = self.current, self.state
        loss, accuracy = float(verdict["loss"]), float(verdict["accuracy"])  # type: ignore[arg-type]
        if now.lost:
            state.lose_round(now.failed, self.settings.run.min_replies)
        else:
            if self.score is not None and self._weighs:
                state.credited(worth(now, self.settings, state, self.score, loss))
            state.finish_round(now.decision.participants, loss, accuracy)
        # Training and federated evaluation each end at a barrier of their own.
        trained = with_idle({k: update.cost for k, update in now.updates.items()})
        costs = add_costs(trained, with_idle(now.evaluation))
        state.ledger.add(now.number, costs)
        best = self.best_arrays is None or loss <= min(state.losses)
        if not now.lost and (best or self.settings.evaluation.keep == "last"):
            self.best_round, self.best_arrays = now.number, arrays
        for client, update in sorted(now.updates.items()):
            self.journal.event(client_event(now, update, costs[client]))
        seconds = time.monotonic() - began
        self.journal.event(round_event(now, state, costs, loss, accuracy, seconds))
        self.checkpoint(now.number, arrays)

    def checkpoint(self, number: int, arrays: ArrayRecord) -> None:
        """Keep everything that the run needs to go on after a round; 0: before the first."""
        told = {**snapshot(self.state), "round": number, "best_round": self.best_round}
        told |= {"teachers": list(self.teachers.values()), "releases": self.releases}
        kept = None if self.best_round == number else self.best_arrays
        self.journal.checkpoint(number, arrays, kept, told)

    def resume(self, told: Mapping[str, Any], kept: ArrayRecord | None, releases: int) -> None:
        """Take up the state of `checkpoint`, the best model, and how often messages went out."""
        self.state = restored(told, list(self.state.members.values()), self.settings)
        self.best_round, self.best_arrays = int(told["best_round"]), kept
        self.teachers = {int(one["client"]): dict(one) for one in told["teachers"]}
        self.first_round = int(told["round"]) + 1
        self.releases = releases

    def _without_quorum(self, valid: int) -> tuple[None, None]:
        """Lose the round, not the run, where others are left to ask; the model stays as it is."""
        now = self.current
        if may_lose(now, self.state, self.settings):
            now.lost = True
            log(WARNING, "round %d is lost: %d valid replies; the run goes on", now.number, valid)
        elif now.exhausted and self.state.losses:
            self._end_of_budgets()
        else:
            raise UserError(too_few(now, valid, self.settings.run.min_replies))
        return None, None

    def _end_of_budgets(self) -> tuple[None, None]:
        """End the run with the model so far: too few clients could still pay for the round."""
        now = self.current
        costs = with_idle({k: update.cost for k, update in now.updates.items()})
        self.state.ledger.add(now.number, add_costs(costs, with_idle(now.evaluation)))
        who = ", ".join(str(client) for client in sorted(now.exhausted))
        self.stop_reason = f"the budget of client {who} does not pay for round {now.number}"
        return None, None

    # --- small parts --------------------------------------------------------------------

    @property
    def _weighs(self) -> bool:
        return self.settings.agent.kind in COST_AWARE

    def _message(self, content: Any, client: int, kind: str, server_round: int) -> Message:
        return Message(
            content=content,
            message_type=kind,
            dst_node_id=self.state.members[client].node_id,
            group_id=str(server_round),
        )

    def _believable(self, client: int, report: TrainReport) -> str:
        """Hold a report against the client's order and its own prices."""
        steps = self.current.decision.steps.get(client)
        limits = self.state.training_limits(client, steps or 0, self.settings)
        return check_training(report, self.current.number, steps, limits)
