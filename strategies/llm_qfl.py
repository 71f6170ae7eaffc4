"""LlmQfl: Flower's strategy that lets an agent decide who trains, how long, and when to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from logging import INFO, WARNING
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from core import Cost, with_idle
from core.accounting import Releases
from core.formatting import listed
from core.messages import (
    EVALUATE,
    TRAIN,
    UNSET,
    EvaluateIns,
    Parameters,
    TrainIns,
    pack_instruction,
    pack_parameters,
    payload_bytes,
    unpack_parameters,
)
from core.settings.secure import quorum, quorum_words
from strategies.aggregation import aggregate
from strategies.aggregators import build_aggregator
from strategies.availability import poll_clients, record_late_replies
from strategies.context import RunContext
from strategies.decisions import Decision
from strategies.decisions.guard import decide
from strategies.journal import (
    AGGREGATION,
    RECENT,
    client_event,
    cost_of_questions,
    decision_line,
    round_event,
    teachers_of,
)
from strategies.kept_model import KeptModel
from strategies.plausibility import longest_wait
from strategies.privacy_budget import affordable, after_round
from strategies.regulation import rate_left
from strategies.secure_round import rounds_of
from strategies.snapshot import restored, snapshot
from strategies.state import FederationState, add_costs, rows_that_count
from strategies.update_selection import credit_round, may_lose, not_evaluated, select
from strategies.update_validation import (
    Round,
    collect_evaluations,
    summed_up,
)

EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


class LlmQfl(Strategy):
    """The custom strategy: decisions by the agent, aggregation by one of Flower's strategies.

    Parameters
    ----------
    context : RunContext
        Settings, clients, agent, evaluator and journal of the run.

    Attributes
    ----------
    state : FederationState
        Clients, history and ledger.
    current : Round
        The round under way.
    kept : KeptModel
        The model that is kept so far (``evaluation.keep``).
    stop_reason : str
        Why the run ended; empty before.
    teachers : dict
        Figures of each client's language model, by client.
    first_round : int
        The first that `start` runs: beyond 1 in a resumed run.
    releases : Releases
        How often a client's updates were released, at most: whose messages went out.
    """

    def __init__(self, context: RunContext) -> None:
        self.context, self.settings = context, context.settings
        self.agent, self.journal = context.agent, context.journal
        self.state = FederationState.begin(context.federation.members, context.settings)
        self.current = Round(0, Decision(participants=(), steps={}))
        self.kept = KeptModel(context.settings.evaluation.keep)
        self.stop_reason = ""
        self.teachers: dict[int, dict[str, float]] = {}
        self.first_round = 1
        self.releases = Releases()
        self.aggregator = self._aggregator_before = build_aggregator(context.settings)
        self._reference: Parameters = {}
        keys = context.federation.exchange
        self.updates = rounds_of(context.settings, context.run_id, context.depths, keys)

    def summary(self) -> None:
        """Log what the strategy is made of."""
        log(INFO, "\t├──> Agent: %s", self.agent.name)
        log(INFO, "\t├──> Clients: %s", listed(self.state.members))
        log(INFO, "\t└──> Aggregation: %s", self.settings.aggregation.rule)

    # --- one round, as Flower's hooks -------------------------------------------------

    def decide(self, server_round: int) -> Decision:
        """Request the agent's decision for a round, bound it, and write it down."""
        seen = self.state.observe(server_round, self.settings)
        decision, notes, decider = decide(self.agent, seen, self.settings)
        decision = affordable(self.settings, self.state, self.releases, decision, server_round)
        self.begin_round(server_round, decision)
        line = decision_line(self.settings.agent.kind, seen, decision, notes, decider)
        if attempts := line.get("attempts"):
            self.state.ledger.add_agent_usage(server_round, cost_of_questions(attempts))
        self.journal.decision(line)
        return decision

    def begin_round(self, server_round: int, decision: Decision) -> None:
        """Open a round: what is sent and answered from now on belongs to it."""
        self.current = Round(server_round, decision, wait=longest_wait(self.settings))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Make one message for each participant, with its own number of steps."""
        self._reference = unpack_parameters(arrays)
        self.releases = after_round(self.settings, self.state, self.releases, self.current.decision)
        packed, same = pack_parameters(self._reference), self._same_for_all  # once for everybody
        train, losses, gain = self.settings.train, self.state.losses, self.settings.stop.min_gain
        plateau = train.schedule == "plateau"
        rate = rate_left(losses, train.plateau_rounds, gain) if plateau else 1.0
        messages = []
        weights, head = self.context.federation.class_weights, self.journal.chain.head
        alike = TrainIns(
            server_round, 0, 0, weights, fine_tuned=False, rate=rate, log=head, **same
        )  # what is each one's own follows
        groups = self.updates.plan(grid, self.current, self.state, self._reference, alike)
        for client, group in groups.items():
            instruction = replace(
                alike,
                steps=self.current.decision.steps[client],
                step_offset=self.state.steps_done[client],
                fine_tuned=client in self.teachers,
                group=group,
            )
            content = pack_instruction(packed, instruction)
            self.current.sent[client] = payload_bytes(content)
            messages.append(self._message(content, client, TRAIN, server_round))
        if self.settings.privacy.dp != "none":  # before they go out: a crash may come at any time
            self.journal.released(self.releases.count)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check the updates, select whose count, and let Flower's strategy aggregate them.

        Raises
        ------
        UserError
            If fewer than ``run.min_replies`` updates are valid, and no other client is left.
        """
        now, settings, reference = self.current, self.settings, self._reference
        self.updates.collect(now, replies, self.state)
        self.journal.underway(now.number, {k: update.cost for k, update in now.updates.items()})
        self.updates.settle(now, self.state)
        self.state.settle(now.decision.steps, now.failed, now.exhausted)
        self.teachers = teachers_of(now.updates.values(), self.teachers)
        valid = [update for _, update in sorted(now.updates.items()) if not update.dropped]
        if len(valid) < quorum(settings):
            return self._without_quorum(len(valid))
        counted = select(valid, settings, self.state)
        parts = self.updates.parts(counted, self.state)
        if self.context.credits:
            self._aggregator_before = self.aggregator.copy()
        found = aggregate(settings, server_round, parts, self.aggregator, reference)
        self.updates.note(now, counted, found.shares)
        for update in valid:
            ordered = now.decision.steps[update.client]
            self.state.trained(update.client, update.report, update.cost, ordered)
        return found.arrays, None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Request an evaluation of every client that can pay, where evaluation is federated."""
        if self.settings.evaluation.mode != "federated":
            return []
        split: Any = config.get("split", "validation")
        instruction = EvaluateIns(round=server_round, split=split, **self._same_for_all)
        content = pack_instruction(unpack_parameters(arrays), instruction)
        wanted = set(self.state.members if split == "test" else self.state.views)
        clients = sorted(wanted - self.state.absent)
        self.current.sent_to_evaluate.update(dict.fromkeys(clients, payload_bytes(content)))
        return [self._message(content, client, EVALUATE, server_round) for client in clients]

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Add the clients' evaluations up by rows: mean loss, and accuracy from confusions."""
        reports = collect_evaluations(self.current, replies, self.state, "validation")
        if not reports:
            return None
        for client, report in reports.items():
            self.state.evaluated(client, report.loss)
        members = self.state.members.values()
        return summed_up(reports, rows_that_count(members, "val_rows", self.settings))

    # --- the run ------------------------------------------------------------------------

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> Result:
        """Run rounds until the agent, a criterion, a budget or `num_rounds` ends them.

        Parameters are those of Flower's `Strategy.start`. The result holds the model of the best
        round, or of the last one (``evaluation.keep``), and the metrics by round.

        Raises
        ------
        UserError
            If a round has too few valid replies or cannot be evaluated.
        """
        self.summary()
        result, arrays = Result(), initial_arrays
        train, evaluate = train_config or ConfigRecord(), evaluate_config or ConfigRecord()
        central = self.settings.evaluation.mode == "central"
        at_server, at_clients = result.evaluate_metrics_serverapp, result.evaluate_metrics_clientapp
        for server_round in range(self.first_round, num_rounds + 1):
            began = time.monotonic()
            if server_round == 1 and self.context.evaluator and self.context.credits:
                self.state.begin_at(self.context.evaluator.loss(initial_arrays))
            poll_clients(grid, self.state, self.settings, self.journal.event)
            self.updates.before(grid, self.state, server_round)
            if self.decide(server_round).stop:
                self.stop_reason = self.current.decision.reason
                break
            messages = list(self.configure_train(server_round, arrays, train, grid))
            replies = grid.send_and_receive(messages, timeout=timeout)
            aggregated, _ = self.aggregate_train(server_round, replies)
            if self.stop_reason:
                break
            arrays = aggregated if aggregated is not None else arrays
            scores = self._evaluate(server_round, arrays, evaluate, grid, timeout, evaluate_fn)
            if scores is not None:
                (at_server if central else at_clients)[server_round] = scores
                self._finish_round(arrays, scores, began)
            if scores is None or self.stop_reason:
                break
        record_late_replies(grid, self.state, self.settings, self.journal.event)
        self.stop_reason = self.stop_reason or f"all {num_rounds} rounds are done"
        return replace(result, arrays=self.kept.arrays if self.kept.arrays is not None else arrays)

    def _evaluate(
        self,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
        timeout: float,
        evaluate_fn: EvaluateFn | None,
    ) -> MetricRecord | None:
        """Evaluate a round; None if no client can pay for it, which ends the run."""
        if self.current.lost and self.state.losses:  # the model is that of the round before
            loss, accuracy = self.state.losses[-1], self.state.accuracies[-1]
            return MetricRecord({"loss": loss, "accuracy": accuracy})
        scores = None
        if messages := list(self.configure_evaluate(server_round, arrays, config, grid)):
            replies = grid.send_and_receive(messages, timeout=timeout)
            scores = self.aggregate_evaluate(server_round, replies)
        elif evaluate_fn is not None:
            scores = evaluate_fn(server_round, arrays)
        for client in self.current.exhausted:
            self.state.retire(client)
        if scores is not None:
            return scores
        if not (self.current.exhausted and self.state.losses):
            raise not_evaluated(self.current)
        self._end_of_budgets()
        return None

    def _finish_round(self, arrays: ArrayRecord, scores: MetricRecord, began: float) -> None:
        """Close a round: history, ledger, events, checkpoint."""
        now, state, evaluator = self.current, self.state, self.context.evaluator
        loss, accuracy = float(scores["loss"]), float(scores["accuracy"])  # type: ignore[arg-type]
        if now.lost:
            state.lose_round(now.failed, quorum(self.settings))
        else:
            loss_of = evaluator.credit_loss if evaluator and self.context.credits else None
            rule = self._aggregator_before, self._reference
            credit_round(now, self.settings, state, loss_of, arrays, *rule)
            state.finish_round(now.decision.participants, loss, accuracy)
        costs = self._close_ledger()
        if not now.lost:
            self.kept.add(now.number, arrays, state.losses)
        clients = [client_event(now, update, costs[k]) for k, update in sorted(now.updates.items())]
        event = round_event(now, state, costs, loss, accuracy, time.monotonic() - began)
        for one in (*clients, event):
            self.journal.event(one)
        self.checkpoint(now.number, arrays)
        self.stop_reason = self.context.watch({**event, "clients": clients})

    def checkpoint(self, number: int, arrays: ArrayRecord) -> None:
        """Store everything that the run needs to go on after a round; 0: before the first."""
        aggregation, kept = self.aggregator.state()
        stored = {
            **snapshot(self.state),
            "aggregation": aggregation,
            "round": number,
            "best_round": self.kept.round,
            "teachers": list(self.teachers.values()),
            "releases": self.releases.count,
            "drawn": self.releases.drawn,
            **self.context.facts(),
        }
        best = None if self.kept.round == number else self.kept.arrays
        extra = {AGGREGATION: kept, RECENT: self.kept.packed()}
        self.journal.checkpoint(number, arrays, best, stored, extra)

    def resume(
        self,
        stored: Mapping[str, Any],
        best: ArrayRecord | None,
        releases: int,
        extra: Mapping[str, Parameters],
    ) -> None:
        """Restore the state of `checkpoint`, the best model, and how often messages went out.

        ``extra`` are the arrays of `AGGREGATION` and `RECENT`; `Aggregator.restore` says what it
        refuses.
        """
        self.aggregator.restore(stored.get("aggregation", {}), extra[AGGREGATION])
        self.state = restored(stored, self.context.federation.members, self.settings)
        self.kept.restore(int(stored["best_round"]), best, extra[RECENT])
        self.teachers = {int(one["client"]): dict(one) for one in stored["teachers"]}
        self.first_round = int(stored["round"]) + 1
        self.releases = Releases(releases, int(stored.get("drawn", 0)))

    def _without_quorum(self, valid: int) -> tuple[None, None]:
        """Lose the round, not the run, where other clients are left; the model stays as it is."""
        now = self.current
        if may_lose(now, self.state, self.settings):
            now.lose()
            log(WARNING, "round %d is lost: %d valid replies; the run goes on", now.number, valid)
        elif now.exhausted and self.state.losses:
            self._end_of_budgets()
        else:
            raise now.too_few_replies(valid, *quorum_words(self.settings))
        return None, None

    def _end_of_budgets(self) -> None:
        """End the run with the model so far: too few clients could still pay for the round."""
        self._close_ledger()
        who = listed(self.current.exhausted)
        number = self.current.number
        self.stop_reason = f"the budget of client {who} does not pay for round {number}"

    def _close_ledger(self) -> dict[int, Cost]:
        """Add the round's costs to the ledger; training and evaluation end at a barrier each."""
        now = self.current
        trained = with_idle({k: update.cost for k, update in now.updates.items()})
        costs = add_costs(trained, with_idle(now.evaluation))
        costs = add_costs(costs, self.updates.take_costs())
        self.state.ledger.add(now.number, costs)
        return costs

    @property
    def _same_for_all(self) -> dict[str, Any]:
        """What every message of the run says."""
        return {
            "projection": self.context.federation.projection,
            "run": self.context.run_id or UNSET,
            "adapter": self.context.adapter_digest,
        }

    def _message(self, content: RecordDict, client: int, kind: str, server_round: int) -> Message:
        return Message(
            content=content,
            message_type=kind,
            dst_node_id=self.state.members[client].node_id,
            group_id=str(server_round),
        )
