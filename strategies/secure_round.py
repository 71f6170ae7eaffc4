"""Secure aggregation at the server: groups and their sums. It sees no single update.

`SecureRounds` lives as long as the run; what of a round it holds is the next one's to replace. A
group that cannot be opened is left out with its reason; the run goes on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from logging import WARNING
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from flwr.app import Message
from flwr.common.logger import log
from flwr.serverapp import Grid

from core import Cost, Settings, UserError, derive_seed
from core.formatting import listed
from core.messages import UNSET, Parameters, TrainIns, TrainReport
from core.received import ReplyError, read_masked
from core.secure_messages import work_digest
from core.settings.secure import LEAST, quorum, quorum_words, shortens
from core.summed import length, longer_than, mean_of
from strategies.aggregators import Contribution
from strategies.grouping import make_groups
from strategies.open_round import OpenRounds
from strategies.secure_exchange import MOST_BYTES, SecureExchange, opened, too_few, too_few_keys
from strategies.state import FederationState
from strategies.update_validation import Round, Update, refuse
from strategies.updates import longest_norms, update_norm

if TYPE_CHECKING:
    from core.secagg import Answer, Group, Masked


@dataclass(frozen=True)
class GroupUpdate:
    """What the server knows of a group: the weighted mean of its members' models.

    Attributes
    ----------
    clients : tuple of int
        Whose updates were summed, ascending.
    contribution : Contribution
        The mean, the sum of weights, and the members' figures averaged.
    steps : int
        Optimizer steps that its members were given, on average.
    """

    clients: tuple[int, ...]
    contribution: Contribution
    steps: int


@dataclass
class SecureRounds(OpenRounds):
    """The server's side of secure aggregation.

    Attributes
    ----------
    exchange : SecureExchange
        The clients' keys, and the messages beside training.
    groups : tuple of Group
        Those of the round.
    masked : dict
        Masked updates of the round, by client.
    opened : list of GroupUpdate
        The sums that were opened in the round.
    lost : dict
        Why a group's sum was not used, by its members.
    """

    exchange: SecureExchange = field(kw_only=True)
    groups: tuple[Group, ...] = ()
    masked: dict[int, Masked] = field(default_factory=dict)
    opened: list[GroupUpdate] = field(default_factory=list)
    lost: dict[tuple[int, ...], str] = field(default_factory=dict)
    _grid: Grid | None = None

    def before(self, grid: Grid, state: FederationState, server_round: int) -> None:
        """Request the keys that are missing; who sends none takes no part in the round.

        Raises
        ------
        UserError
            If too few are left.
        """
        here = set(state.views) - state.absent
        lacking = self.exchange.request_keys(grid, state, here, server_round)
        state.leave_out(lacking)
        if lacking and len(here - set(lacking)) < min(quorum(self.settings), len(state.views)):
            accepted, instead = quorum_words(self.settings)
            raise UserError(
                too_few_keys(len(here - set(lacking)), lacking),
                accepted,
                f"mend those clients and go on with llm-qfl run --resume{instead}",
            )

    def take_costs(self) -> dict[int, Cost]:
        """Return what the round's own messages cost, and forget it."""
        return self.exchange.take_costs()

    # --- a round ------------------------------------------------------------------------------

    def plan(
        self,
        grid: Grid,
        now: Round,
        state: FederationState,
        reference: Parameters,
        instruction: TrainIns,
    ) -> dict[int, bytes]:
        """Put the participants into groups; return each one's as it is sent."""
        self._grid, self.reference = grid, reference
        work = work_digest(reference, instruction)
        privacy, number = self.settings.privacy, now.number
        seed = derive_seed(self.settings.run.seed, "groups", number)
        past = [one.groups for one in state.group_rounds]
        chosen = now.decision.participants
        parts: tuple[tuple[int, ...], ...] = make_groups(
            chosen, privacy.group_size, np.random.default_rng(seed), past
        )
        weights = self._weights(state, chosen)
        self.masked, self.opened, self.lost = {}, [], {}
        if len(chosen) < (least := max(LEAST, privacy.group_size)):
            for client in chosen:
                now.fail(client, f"{len(chosen)} clients are there, of at least {least} of a sum")
            parts = ()
        group = self.exchange.group
        self.groups = tuple(group(number, clients, weights, work) for clients in parts)
        return {k: data for g in self.groups for data in (g.to_bytes(),) for k in g.clients}

    def _weights(self, state: FederationState, clients: Sequence[int]) -> dict[int, float]:
        """Return what the clients weigh, 1 on average: by rows, or all alike."""
        from core import registry

        rule = self.settings.aggregation.rule
        if registry.declared("aggregation", rule, "equal_weights", False):
            return dict.fromkeys(clients, 1.0)
        mean = sum(state.weights[k] for k in clients) / len(clients)
        return {k: state.weights[k] / mean for k in clients}

    def take(self, client: int, reply: Message) -> Parameters:
        """Read a client's masked update; there are no parameters to be seen.

        Raises
        ------
        ValueError
            If it is not what the client's group asks for.
        """
        from core import secagg

        group = self.group_of(client)
        data = read_masked(reply, MOST_BYTES)
        self.masked[client] = secagg.read_masked(data, group, client, length(self.reference))
        return {}

    def group_of(self, client: int) -> Group:
        """Return the round's group that a client is in."""
        return next(group for group in self.groups if client in group.clients)

    def settle(self, now: Round, state: FederationState) -> None:
        """Request what takes the masks off, and open each group's sum.

        Members of a group that is not opened are left out with the reason. Who has lost its keys is
        requested new ones before the next round.
        """
        self.exchange.forget_keys(now.keyless)
        ready = [group for group in self.groups if self._enough(group, now)]
        assert self._grid is not None  # a round begins with its plan
        answers = self.exchange.request_answers(self._grid, ready, self.masked, now, state)
        found = [one for group in ready if (one := self._opened(group, answers, now))]
        self.opened = self._without_long(found, now)
        self._note(now, [1.0] * len(self.opened))

    def parts(self, counted: Sequence[Update], state: FederationState) -> list[Contribution]:
        """Return the means of the groups."""
        return [one.contribution for one in self.opened]

    def note(self, now: Round, counted: Sequence[Update], shares: Sequence[float]) -> None:
        """Note whose sums were aggregated."""
        now.count(counted, [1.0] * len(counted))
        self._note(now, shares)

    def _note(self, now: Round, shares: Sequence[float]) -> None:
        now.note_sums(self._facts(shares), {one.clients: one.contribution for one in self.opened})

    def _enough(self, group: Group, now: Round) -> bool:
        """Whether enough masked updates came; a group of fewer is lost without UNMASK."""
        if why := too_few(group, self.masked, "updates"):
            self._lose(group.clients, now, why)
        return not why

    def _opened(
        self, group: Group, answers: Mapping[int, Answer], now: Round
    ) -> GroupUpdate | None:
        """Open a group's sum; None if that cannot be done."""
        found = opened(group, self.masked, answers, now)
        if isinstance(found, str):
            self._lose(group.clients, now, found)
            return None
        total = np.asarray(found.vector, np.float64)
        try:
            self._check_sum(total, sum(group.weight_of(client) for client in found.members))
        except ReplyError as error:
            self._lose(group.clients, now, str(error))
            return None
        reports = [now.updates[k].report for k in found.members]
        contribution = Contribution(
            mean_of(total, self.reference), float(total[-1]), averaged(reports)
        )
        steps = [now.decision.steps[k] for k in found.members]
        return GroupUpdate(tuple(found.members), contribution, round(np.mean(steps)))

    def _check_sum(self, total: npt.NDArray[np.float64], weight: float) -> None:
        """Refuse a sum that no honest members have: they shorten their own updates."""
        bound = self.settings.aggregation.max_norm
        least = 0.0 if self.settings.aggregation.weighting == "noise" else weight * (1 - 1e-6)
        fits = 0 < total[-1] <= weight * (1 + 1e-6) and total[-1] >= least
        refuse("" if fits else f"its weights add up to {total[-1]:.6g} instead of {weight:.6g}")
        if shortens(self.settings) and (more := longer_than(total, bound)):
            refuse(f"its sum is {more:.1%} longer than updates of norm {bound:g} can make it")

    def _lose(self, clients: tuple[int, ...], now: Round, why: str) -> None:
        """Leave a group out of the round."""
        self.lost[clients] = why
        text = f"group {listed(clients)}: {why}"
        now.failures.append(text)
        log(WARNING, "%s, %s", now.title, text)
        for client in clients:
            now.leave_out(client, f"its {text}")

    def _without_long(self, found: list[GroupUpdate], now: Round) -> list[GroupUpdate]:
        """Leave out groups whose means are much longer than most; of two neither is."""
        if not shortens(self.settings):
            return found
        ratio = self.settings.aggregation.norm_ratio
        norms = [update_norm(one.contribution.arrays, self.reference) for one in found]
        bounds = longest_norms(norms, [one.steps for one in found], ratio)
        for one, norm, bound in zip(found, norms, bounds, strict=True):
            if norm > bound:
                why = (
                    f"norm {norm:.3g} of its mean is above {bound:.3g}, {ratio:g} times the median"
                )
                self._lose(one.clients, now, why)
        return [one for one, *pair in zip(found, norms, bounds, strict=True) if pair[0] <= pair[1]]

    def _facts(self, shares: Sequence[float]) -> list[dict[str, Any]]:
        """Return the round's groups, for its event: who was summed, and why another was not."""
        summed = {one.clients: share for one, share in zip(self.opened, shares, strict=True)}
        found = []
        for group in self.groups:
            inside = next((c for c in summed if set(c) <= set(group.clients)), ())
            why = next((w for c, w in self.lost.items() if set(c) <= set(group.clients)), "")
            one = {"clients": group.clients, "threshold": group.threshold, "summed": inside}
            found.append({**one, "clipped": summed.get(inside), "lost": why})
        return found


def averaged(reports: Sequence[TrainReport]) -> TrainReport:
    """Return one report of a group: rows are added, losses and accuracy averaged by rows."""
    rows = sum(report.rows for report in reports)
    means = {
        name: sum(getattr(r, name) * r.rows for r in reports) / max(1, rows)
        for name in ("loss", "accuracy", "train_loss")
    }
    steps = round(sum(report.steps for report in reports) / len(reports))
    return TrainReport(**{**asdict(reports[0]), **means, "rows": rows, "steps": steps})


def rounds_of(
    settings: Settings,
    run: str,
    depths: Collection[int] = (),
    exchange: SecureExchange | None = None,
) -> OpenRounds:
    """Return how updates reach the server, by the settings; with keys that are there already."""
    if settings.privacy.secure_aggregation:
        found = exchange or SecureExchange(settings, run=run or UNSET)
        return SecureRounds(settings, exchange=found)
    return OpenRounds(settings, depths=depths)
