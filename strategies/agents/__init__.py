"""The agent's contract: what it sees, what it may decide. Light: no model is loaded here."""

from strategies.agents.contract import (
    Agent,
    Attempt,
    ClientView,
    Decision,
    HasTranscript,
    Observation,
)
