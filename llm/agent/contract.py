"""What every agent is given and must return.

An observation holds numbers and our own words only: nothing that a client can write as text
reaches it, so no client can talk to a language model that decides.
"""

from __future__ import annotations

from typing import Protocol

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
    circuits: int = Field(0, description="Circuits it has run so far.")
    circuits_per_step: int = Field(0, description="Circuits that one more step costs.")
    circuits_fixed: int = Field(0, description="Circuits of a round besides its steps.")
    shots_per_circuit: int = Field(0, description="Shots of a circuit; 0: exact expectations.")
    busy_seconds: float = Field(0.0, description="Seconds it worked in its last round.")
    rounds_since: int = Field(0, description="Rounds since it last trained.")


class Observation(_Frozen):
    """What is known of the federation when a round is decided."""

    round: int = Field(description="The round to be decided, from 1.")
    rounds_left: int = Field(description="Rounds left, this one included.")
    min_steps: int = Field(description="Fewest steps a participant may be given.")
    max_steps: int = Field(description="Most steps a participant may be given.")
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


class Agent(Protocol):
    """Whoever decides who trains next, for how many steps, and when to stop."""

    @property
    def name(self) -> str:
        """Name for the report, for instance ``rule (adaptive)``."""

    def decide(self, observation: Observation) -> Decision:
        """Decide the observation's round."""
