"""What is left of a run's budgets, and the steps that it pays for; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core import Settings
from core.formatting import listed
from strategies.decisions import Observation

Steps = dict[int, int]
"""Optimizer steps by client."""


@dataclass(frozen=True)
class Budget:
    """What is left of one unit, and what each client costs in it.

    Attributes
    ----------
    unit : str
        ``circuits`` or ``shots``.
    left : int
        How many are left.
    step : mapping
        Cost of an optimizer step, by client.
    fixed : mapping
        Cost of a round besides its steps, by client.
    everybody : bool
        Whether those that do not train cost what is fixed too: under federated evaluation.
    """

    unit: str
    left: int
    step: Mapping[int, int]
    fixed: Mapping[int, int]
    everybody: bool

    def for_steps(self, clients: Mapping[int, int]) -> int:
        """Return what is left for steps where these clients train."""
        who = self.fixed if self.everybody else clients
        return self.left - sum(self.fixed[k] for k in who)

    def price(self, steps: Mapping[int, int]) -> int:
        """Return what the steps of a round cost."""
        return sum(m * self.step[k] for k, m in steps.items())

    def pays(self, steps: Mapping[int, int]) -> bool:
        """Say whether a round of these steps can be paid."""
        return self.price(steps) <= self.for_steps(steps)

    def cost(self, client: int, steps: int) -> int:
        """Return what a round costs more if a client trains so many steps."""
        return steps * self.step[client] + (0 if self.everybody else self.fixed[client])


def budgets(seen: Observation, settings: Settings) -> list[Budget]:
    """Return the budgets of circuits and of shots, those that are limited."""
    everybody = settings.evaluation.mode == "federated"
    found = []
    for unit, left in (("circuits", seen.circuits_left), ("shots", seen.shots_left)):
        if left is None:
            continue
        each = {v.client: v.shots_per_circuit if unit == "shots" else 1 for v in seen.clients}
        step = {v.client: each[v.client] * v.circuits_per_step for v in seen.clients}
        fixed = {v.client: each[v.client] * v.circuits_fixed for v in seen.clients}
        found.append(Budget(unit, left, step, fixed, everybody))
    return found


def within(
    steps: Steps, limits: Sequence[Budget], fewest: int, quorum: int
) -> tuple[Steps, list[str]]:
    """Fit a round into all that is left, or say that nothing fits.

    Steps are scaled down, none below the fewest that are allowed. If even those cannot be paid,
    the costliest participants go; if no `quorum` of them can be paid, the cheapest clients train
    the fewest steps instead.

    Parameters
    ----------
    steps : dict
        Steps of each participant, at least the fewest.
    limits : sequence of Budget
        What is left.
    fewest : int
        Fewest steps of a participant.
    quorum : int
        Fewest participants of a round.

    Returns
    -------
    tuple
        The steps, none if no round can be paid, and a sentence for each change.
    """
    notes: list[str] = []
    for limit in limits:
        steps, changes = _fitted(steps, limit, fewest, quorum)
        notes += changes
        if not steps:
            return _cheapest(limits, limit, fewest, max(quorum, 1))
    return steps, notes


def _fitted(steps: Steps, limit: Budget, fewest: int, quorum: int) -> tuple[Steps, list[str]]:
    """Fit a round into one budget; no steps: not even the fewest of a quorum can be paid."""
    left = f"the {limit.left} {limit.unit} left"
    fitted, dropped = dict(steps), []
    least = dict.fromkeys(fitted, fewest)
    over = limit.price(least) - limit.for_steps(least)
    for costliest in sorted(fitted, key=lambda k: (limit.cost(k, fewest), k), reverse=True):
        if over <= 0:
            break
        del fitted[costliest]
        dropped.append(costliest)
        over -= limit.cost(costliest, fewest)
        if len(fitted) < max(quorum, 1):
            return {}, []
    notes = []
    if dropped:
        who = listed(dropped)
        notes.append(f"clients {who} dropped: {left} do not pay for them")
    if not limit.pays(fitted):
        fitted, share = _scaled(fitted, limit, fewest)
        notes.append(f"steps scaled by {share:.2f} to {left}")
    return fitted, notes


def _scaled(steps: Steps, limit: Budget, fewest: int) -> tuple[Steps, float]:
    """Scale steps by one factor that can be paid, none below the fewest.

    A client that would fall below trains the fewest steps, and the others pay for it with theirs.
    """
    raised: Steps = {}
    while True:
        free = {k: m for k, m in steps.items() if k not in raised}
        left, wanted = limit.for_steps(steps) - limit.price(raised), limit.price(free)
        scaled = {k: m * left // wanted if wanted else 0 for k, m in free.items()}
        short = [k for k, m in scaled.items() if m < fewest]
        if not short:
            fitted = {k: scaled.get(k, fewest) for k in steps}
            share = limit.price(fitted) / limit.price(steps) if raised else left / wanted
            return fitted, share
        raised |= dict.fromkeys(short, fewest)


def _cheapest(
    limits: Sequence[Budget], short: Budget, fewest: int, quorum: int
) -> tuple[Steps, list[str]]:
    """Let the clients that cost least train the fewest steps, if that can be paid."""
    ranked = sorted(short.step, key=lambda k: (short.cost(k, fewest), k))
    steps = dict.fromkeys(sorted(ranked[:quorum]), fewest)
    if not all(limit.pays(steps) for limit in limits):
        return {}, [f"the {short.left} {short.unit} left do not pay for another round"]
    who = listed(steps)
    left = f"the {short.left} {short.unit} left do not pay for those chosen"
    return steps, [f"{left}: client {who} trains {fewest} steps"]
