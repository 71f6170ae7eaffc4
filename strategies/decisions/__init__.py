"""Decisions: what an agent sees, what it may decide, and what bounds it. Light."""

from strategies.decisions.contract import (
    Agent,
    Attempt,
    ClientView,
    Decision,
    HasTranscript,
    Observation,
)
