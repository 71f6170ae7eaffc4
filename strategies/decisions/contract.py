"""What every agent is given and must return.

An observation holds numbers and our own words only: nothing that a client can write as text
reaches it, so no client can influence a language model that decides by what it writes.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict


class _Frozen(BaseModel):
    """An immutable record; the string below a field is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ClientView(_Frozen):
    """What is known of one client when a round is decided."""

    client: int
    """Index of the client, from 0."""
    rows: int
    """Training rows."""
    class_rows: tuple[int, ...] = ()
    """Training rows of each class, as the client reports them; empty: not known."""
    weight: int = 0
    """Rows that it counts for in the average (`aggregation.max_weight`); 0: all of them."""
    loss: float | None = None
    """L_Q on its validation rows, nats: of its last trained model, or under federated evaluation
    of the global model."""
    llm_loss: float | None = None
    """L_LLM: validation loss of its fine-tuned language model, nats."""
    ratio: float | None = None
    """r = L_Q / L_LLM."""
    gap: float | None = None
    """d_k = |L_k - L_server| when both were last measured together, nats."""
    trend: float | None = None
    """L_Q of its trained model less the L_Q known before, nats."""
    steps: int
    """Optimizer steps it was last given."""
    credit: float | None = None
    """Of its last round, at the server's validation rows, nats: loss of the aggregate without its
    model less loss of the aggregate. Above 0 it helped. Under secure aggregation it is estimated
    from what groups were worth."""
    gain: float | None = None
    """Of its last round, at the server's validation rows, nats: loss of the global model before
    less loss of its trained model alone; not known under secure aggregation."""
    standing: float | None = None
    """Mean over its rounds of its credit as a multiple of the mean size of credit in that round;
    later rounds weigh more."""
    standing_variance: float | None = None
    """Variance of these multiples about their mean, with the same weights."""
    chosen: int = 0
    """Rounds it has trained in."""
    failures: int = 0
    """Rounds in which it was asked and failed."""
    circuits: int = 0
    """Circuits it has run so far."""
    circuits_per_step: int = 0
    """Circuits that one more step costs."""
    circuits_fixed: int = 0
    """Circuits of a round besides its steps."""
    circuit_price: float = 1.0
    """Relative price of one of its circuits."""
    shots_per_circuit: int = 0
    """Shots of a circuit; 0: exact expectations."""
    busy_seconds: float = 0.0
    """Seconds it worked in its last round."""
    queue_seconds: float = 0.0
    """Seconds of these it waited in a queue."""
    seconds_per_step: float | None = None
    """Seconds of an optimizer step in its last round, queue included."""
    rounds_since: int = 0
    """Rounds since it last trained."""

    def cost(self, steps: int) -> float:
        """Return what a round of so many steps costs: its circuits times their price."""
        return self.circuit_price * (self.circuits_fixed + steps * self.circuits_per_step)


class Observation(_Frozen):
    """What is known of the federation when a round is decided."""

    round: int
    """The round to be decided, from 1."""
    rounds_left: int
    """Rounds left, this one included."""
    min_steps: int
    """Fewest steps a participant may be given."""
    max_steps: int
    """Most steps a participant may be given."""
    plain_steps: int = 1
    """Steps of a plain round, `train.steps`."""
    plain_spend: float = 0.0
    """What a plain round of everybody costs: circuits times their prices."""
    price: float = 0.0
    """What plain_spend is worth, nats of validation loss."""
    idle_price: float = 0.0
    """What waiting is worth, nats of validation loss, if together they wait as long as all work in
    a plain round."""
    start_loss: float | None = None
    """Validation loss of the first parameters, before any training, nats."""
    classes: int = 2
    """Number of classes."""
    circuits_left: int | None = None
    """Circuits left in the budget."""
    shots_left: int | None = None
    """Shots left in the budget."""
    qpu_seconds_left: float | None = None
    """QPU seconds left in the budget."""
    seconds_left: float | None = None
    """Wall seconds left in the budget."""
    losses: tuple[float, ...] = ()
    """Validation loss of the global model after each round, nats."""
    accuracies: tuple[float, ...] = ()
    """Validation accuracy of the global model after each round."""
    alignments: tuple[float, ...] = ()
    """Mean over clients of |L_k - L_server| after each round, nats."""
    participants: tuple[int, ...] = ()
    """Clients that were told to train in each round."""
    spends: tuple[float, ...] = ()
    """What the circuits of each round's instructions cost, times their prices."""
    llm_loss: float | None = None
    """L_LLM,server: mean of the clients' L_LLM weighted by rows, nats."""
    clients: tuple[ClientView, ...]
    """The clients, by index."""


class Decision(_Frozen):
    """What happens in the round.

    A decision with ``stop`` trains nobody: the run ends before the round.
    """

    participants: tuple[int, ...]
    """Indices of the clients that train."""
    steps: dict[int, int]
    """Optimizer steps of each participant."""
    stop: bool = False
    """End the run before this round."""
    reason: str = ""
    """Why, in one sentence."""

    @classmethod
    def to_train(cls, steps: dict[int, int], reason: str) -> Decision:
        """Return the decision that these clients train, each for its number of steps."""
        return cls(participants=tuple(steps), steps=steps, reason=reason)

    @classmethod
    def to_stop(cls, reason: str) -> Decision:
        """Return the decision that the run ends."""
        return cls(participants=(), steps={}, stop=True, reason=reason)


class Attempt(_Frozen):
    """One request to a language model and what came of it."""

    prompt: str
    """What it was asked."""
    answer: str = ""
    """What it said, unchanged."""
    problem: str = ""
    """Why the answer was of no use; empty: it was used."""
    notes: tuple[str, ...] = ()
    """What was repaired in reading it."""
    uninformed: str = ""
    """Of a control question: how its answer shows that the model does not go by the table; empty:
    it does, or this was no control."""
    prompt_tokens: int = 0
    """Tokens of the prompt."""
    answer_tokens: int = 0
    """Tokens of the answer."""
    seconds: float = 0.0
    """Time it took."""


class Agent(Protocol):
    """Decides before each round who trains, for how many steps, and whether to stop.

    What else an agent's class may declare, as class attributes or, where marked, as a static method
    of the settings (docs/extending/agent.md):

    ``uses``
        Settings that it reads, for instance ``("agent.fraction",)``.
    ``may_stop``
        False: it never ends the run, so that ``stop.min_rounds`` has no effect.
    ``leaves_out``
        False: everybody trains in every round, so that ``agent.leave_out`` has no effect.
    ``sees_credit``, ``needs_credit``
        The server evaluates each client's model for it; it is refused where that cannot be.
    ``sees_llm_loss``, ``needs_llm`` (or of the settings)
        With ``llm.model = auto`` sites fine-tune a model for it; it is refused without one.
    ``fixed_steps`` (or of the settings)
        It never raises the steps of a client.
    ``asks_model``
        It asks a language model: when a run goes on, it is not asked about earlier rounds again.
    ``repeats``
        False: it draws from a generator that nobody can repeat, so that an audit cannot either.
    """

    @property
    def name(self) -> str:
        """Name for the report, for instance ``rule (adaptive)``."""

    def decide(self, observation: Observation) -> Decision:
        """Decide the observation's round."""


@runtime_checkable
class HasTranscript(Protocol):
    """An agent that asks a language model, and records how its last decision came about."""

    attempts: tuple[Attempt, ...]
    """Requests of the last decision, in order."""

    decided_by: str
    """Who decided last: the model, or the agent's fallback."""
