"""The cost ledger: what each client spent in each round, and its totals.

The totals are what theorems 6.5 (communication) and 6.6 (computation) bound, measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import add, attrgetter
from typing import Any


@dataclass(frozen=True)
class Cost:
    """What one client spent in one round.

    Attributes
    ----------
    steps : int
        Optimizer steps.
    jobs : int
        Jobs submitted to a device; 0 on simulators without jobs.
    circuits : int
        Circuits that a device has to run for these numbers: one a row for an expectation,
        the parameter-shift price ``rows * (1 + 2 * angles)`` for a gradient.
    shots : int
        Shots; 0 where expectations are exact.
    two_qubit_gates : int
        Two-qubit gates over all circuits.
    qpu_seconds, queue_seconds : float
        Time on a device and in its queue, seconds.
    train_seconds, llm_seconds : float
        Time of quantum training and evaluation, and of the language model, seconds.
    idle_seconds : float
        Waiting at the round's barrier for the slowest participant, seconds.
    bytes_up, bytes_down : int
        Payload of the messages from and to the client.
    llm_tokens : int
        Tokens the language model was trained on.
    """

    steps: int = 0
    jobs: int = 0
    circuits: int = 0
    shots: int = 0
    two_qubit_gates: int = 0
    qpu_seconds: float = 0.0
    queue_seconds: float = 0.0
    train_seconds: float = 0.0
    idle_seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    llm_tokens: int = 0
    llm_seconds: float = 0.0

    @property
    def busy_seconds(self) -> float:
        """Time in which the client worked, seconds."""
        return self.train_seconds + self.llm_seconds + self.queue_seconds


COST_KEYS = tuple(f.name for f in fields(Cost))
_values = attrgetter(*COST_KEYS)
ZERO = Cost()


def cost_row(cost: Cost) -> dict[str, Any]:
    """Return a cost as a line of `ledger.json`."""
    return dict(zip(COST_KEYS, _values(cost), strict=True))


def total(costs: Iterable[Cost]) -> Cost:
    """Add costs up, key by key; nothing at all is the zero cost."""
    sums = _values(ZERO)
    for cost in costs:
        sums = tuple(map(add, sums, _values(cost)))
    return Cost(*sums)


def with_idle(costs: Mapping[int, Cost]) -> dict[int, Cost]:
    """Add each client's wait at the barrier: the slowest one's busy time less its own.

    Busy times, not wall times, so that a simulation that runs clients one after another
    reports what the same round costs when they work side by side.
    """
    slowest = max((cost.busy_seconds for cost in costs.values()), default=0.0)
    return {
        client: replace(cost, idle_seconds=slowest - cost.busy_seconds)
        for client, cost in costs.items()
    }


def idle_share(costs: Iterable[Cost]) -> float:
    """Share of the clients' time that is waiting, 0 to 1; 0 when no client worked."""
    summed = total(costs)
    span = summed.idle_seconds + summed.busy_seconds
    return summed.idle_seconds / span if span > 0 else 0.0


@dataclass(frozen=True)
class AgentUsage:
    """What the decisions of a language model cost.

    Attributes
    ----------
    questions : int
        Requests, answered or not.
    prompt_tokens, answer_tokens : int
        Of all of them, as the model or its server counted them.
    seconds : float
        That the answers took. Sites wait meanwhile, which is in no client's idle time.
    """

    questions: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0


USAGE_KEYS = tuple(f.name for f in fields(AgentUsage))


@dataclass
class _Sums:
    """Sums of entries by client, and of all of them; only what was appended is added.

    Attributes
    ----------
    seen : int
        Entries that are in the sums.
    everybody : Cost
        Sum of all.
    each : dict
        Sum of each client's.
    """

    seen: int = 0
    everybody: Cost = ZERO
    each: dict[int, Cost] = field(default_factory=dict)

    def add(self, entries: Sequence[tuple[int, int, Cost]]) -> None:
        """Add the entries that were appended since the last time."""
        if self.seen > len(entries):
            self.seen, self.everybody, self.each = 0, ZERO, {}
        fresh = entries[self.seen :]
        self.seen = len(entries)
        self.everybody = total((self.everybody, *(cost for _, _, cost in fresh)))
        for _, client, cost in fresh:
            self.each[client] = total((self.each.get(client, ZERO), cost))


@dataclass
class Ledger:
    """All costs of a run, by round and client, and the agent's; the strategy appends to it.

    Sums are kept, so that asking for them costs what was appended since, not the whole run.

    Attributes
    ----------
    entries : list of (int, int, Cost)
        Round, client, cost.
    agent_usage : list of (int, AgentUsage)
        Round, what its decision cost of a language model.
    repeated : list of (int, int, Cost)
        Costs of rounds that were interrupted and repeated: paid, but in no total of the run.
    """

    entries: list[tuple[int, int, Cost]] = field(default_factory=list)
    agent_usage: list[tuple[int, AgentUsage]] = field(default_factory=list)
    repeated: list[tuple[int, int, Cost]] = field(default_factory=list)
    _sums: _Sums = field(default_factory=_Sums, init=False, repr=False, compare=False)

    def add(self, server_round: int, costs: Mapping[int, Cost]) -> None:
        """Append one round's costs, by client."""
        self.entries += [(server_round, client, costs[client]) for client in sorted(costs)]

    def add_agent_usage(self, server_round: int, usage: AgentUsage) -> None:
        """Append what a round's decision cost of a language model."""
        self.agent_usage.append((server_round, usage))

    def totals(self) -> Cost:
        """Return the sum over all entries."""
        self._sums.add(self.entries)
        return self._sums.everybody

    def paid(self) -> Cost:
        """Return the totals with what was paid twice: budgets limit these."""
        return total((self.totals(), total(cost for _, _, cost in self.repeated)))

    def of(self, client: int) -> Cost:
        """Return the sum over one client's entries."""
        return self.by_client().get(client, ZERO)

    def by_client(self) -> Mapping[int, Cost]:
        """Return the sum over each client's entries; clients without any are not in it."""
        self._sums.add(self.entries)
        return self._sums.each

    def as_json(self) -> dict[str, Any]:
        """Return ``{"entries", "totals", "clients", "agent", "repeated"}`` for `ledger.json`."""
        usage = [{"round": number, **vars(one)} for number, one in self.agent_usage]
        used = {key: sum(row[key] for row in usage) for key in USAGE_KEYS}
        repeated = total(cost for _, _, cost in self.repeated)
        return {
            **_summed(self.entries, self.totals()),
            "clients": {str(k): cost_row(cost) for k, cost in sorted(self.by_client().items())},
            "agent": {"entries": usage, "totals": used},
            "repeated": _summed(self.repeated, repeated),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Ledger:
        """Read what `as_json` has written."""
        agent_usage = [
            (entry["round"], AgentUsage(**{key: entry[key] for key in USAGE_KEYS}))
            for entry in data["agent"]["entries"]
        ]
        return cls(
            read_entries(data["entries"]), agent_usage, read_entries(data["repeated"]["entries"])
        )


def _summed(entries: Sequence[tuple[int, int, Cost]], sums: Cost) -> dict[str, Any]:
    """Return entries of `ledger.json`, and their sum."""
    rows = [{"round": number, "client": k, **cost_row(cost)} for number, k, cost in entries]
    return {"entries": rows, "totals": cost_row(sums)}


def read_entries(entries: Iterable[Mapping[str, Any]]) -> list[tuple[int, int, Cost]]:
    """Read entries of `ledger.json`: round, client, cost."""
    return [
        (entry["round"], entry["client"], Cost(**{key: entry.get(key) or 0 for key in COST_KEYS}))
        for entry in entries
    ]
