"""What every agent is given and must return.

An observation holds numbers and our own words only: nothing that a client can write as text
reaches it, so no client can talk to a language model that decides.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClientView(_Frozen):
    """What is known of one client when a round is decided."""

    client: int = Field(description="Index of the client, from 0.")
    rows: int = Field(description="Training rows.")
    loss: float | None = Field(
        None,
        description="L_Q on its validation rows, nats: of its last trained model, or under "
        "federated evaluation of the global model.",
    )
    llm_loss: float | None = Field(
        None, description="L_LLM: validation loss of its fine-tuned language model, nats."
    )
    ratio: float | None = Field(None, description="r = L_Q / L_LLM.")
    gap: float | None = Field(
        None, description="d_k = |L_k - L_server| when both were last measured together, nats."
    )
    trend: float | None = Field(
        None, description="L_Q of its trained model less the L_Q known before, nats."
    )
    steps: int = Field(description="Optimizer steps it was last given.")
    credit: float | None = Field(
        None,
        description="Of its last round, at the server's validation rows, nats: loss of the "
        "aggregate without its model less loss of the aggregate. Above 0 it helped.",
    )
    gain: float | None = Field(
        None,
        description="Of its last round, at the server's validation rows, nats: loss of the global "
        "model before less loss of its trained model alone.",
    )
    standing: float | None = Field(
        None,
        description="Mean over its rounds of its credit as a multiple of the mean size of "
        "credit in that round; later rounds weigh more.",
    )
    chosen: int = Field(0, description="Rounds it has trained in.")
    failures: int = Field(0, description="Rounds in which it was asked and failed.")
    circuits: int = Field(0, description="Circuits it has run so far.")
    circuits_per_step: int = Field(0, description="Circuits that one more step costs.")
    circuits_fixed: int = Field(0, description="Circuits of a round besides its steps.")
    circuit_price: float = Field(1.0, description="Relative price of one of its circuits.")
    shots_per_circuit: int = Field(0, description="Shots of a circuit; 0: exact expectations.")
    busy_seconds: float = Field(0.0, description="Seconds it worked in its last round.")
    queue_seconds: float = Field(0.0, description="Seconds of these it waited in a queue.")
    seconds_per_step: float | None = Field(
        None, description="Seconds of an optimizer step in its last round, queue included."
    )
    rounds_since: int = Field(0, description="Rounds since it last trained.")

    def spend(self, steps: int) -> float:
        """Return what a round of so many steps costs: its circuits times their price."""
        return self.circuit_price * (self.circuits_fixed + steps * self.circuits_per_step)


class Observation(_Frozen):
    """What is known of the federation when a round is decided."""

    round: int = Field(description="The round to be decided, from 1.")
    rounds_left: int = Field(description="Rounds left, this one included.")
    min_steps: int = Field(description="Fewest steps a participant may be given.")
    max_steps: int = Field(description="Most steps a participant may be given.")
    plain_steps: int = Field(1, description="Steps of a plain round, `train.steps`.")
    plain_spend: float = Field(
        0.0, description="What a plain round of everybody costs: circuits times their prices."
    )
    price: float = Field(0.0, description="What plain_spend is worth, nats of validation loss.")
    idle_price: float = Field(
        0.0,
        description="What waiting is worth, nats of validation loss, if together they wait as "
        "long as all work in a plain round.",
    )
    start_loss: float | None = Field(
        None, description="Validation loss of the first parameters, before any training, nats."
    )
    classes: int = Field(2, description="Number of classes.")
    circuits_left: int | None = Field(None, description="Circuits left in the budget.")
    shots_left: int | None = Field(None, description="Shots left in the budget.")
    qpu_seconds_left: float | None = Field(None, description="QPU seconds left in the budget.")
    seconds_left: float | None = Field(None, description="Wall seconds left in the budget.")
    losses: tuple[float, ...] = Field(
        (), description="Validation loss of the global model after each round, nats."
    )
    accuracies: tuple[float, ...] = Field(
        (), description="Validation accuracy of the global model after each round."
    )
    alignments: tuple[float, ...] = Field(
        (), description="Mean over clients of |L_k - L_server| after each round, nats."
    )
    llm_loss: float | None = Field(
        None, description="L_LLM,server: mean of the clients' L_LLM weighted by rows, nats."
    )
    clients: tuple[ClientView, ...] = Field(description="The clients, by index.")


class Decision(_Frozen):
    """What happens in the round.

    A decision with ``stop`` trains nobody: the run ends before the round.
    """

    participants: tuple[int, ...] = Field(description="Indices of the clients that train.")
    steps: dict[int, int] = Field(description="Optimizer steps of each participant.")
    stop: bool = Field(False, description="End the run before this round.")
    reason: str = Field("", description="Why, in one sentence.")


class Attempt(_Frozen):
    """One question to a language model and what came of it."""

    prompt: str = Field(description="What it was asked.")
    answer: str = Field("", description="What it said, unchanged.")
    problem: str = Field("", description="Why the answer was of no use; empty: it was used.")
    notes: tuple[str, ...] = Field((), description="What was repaired in reading it.")
    prompt_tokens: int = Field(0, description="Tokens of the prompt.")
    answer_tokens: int = Field(0, description="Tokens of the answer.")
    seconds: float = Field(0.0, description="Time it took.")


class Agent(Protocol):
    """Whoever decides who trains next, for how many steps, and when to stop."""

    @property
    def name(self) -> str:
        """Name for the report, for instance ``rule (adaptive)``."""

    def decide(self, observation: Observation) -> Decision:
        """Decide the observation's round."""


@runtime_checkable
class Asked(Protocol):
    """An agent that asks a language model, and keeps how its last decision came about."""

    attempts: tuple[Attempt, ...]
    """Questions of the last decision, in order."""

    decided_by: str
    """Who decided last: the model, or whom the agent fell back on."""
