"""Settings of the agent that decides after each round."""

from __future__ import annotations

from typing import Literal

from core.settings.declare import Section, below, setting, when

LANGUAGE_MODELS = ("llm", "endpoint")
RULE_BASED = ("rule", *LANGUAGE_MODELS)
"""Agents that follow the paper's rules, or fall back on them."""

COST_AWARE = ("greedy", "bandit", "regulator", *LANGUAGE_MODELS)
"""Agents that weigh what a client gives against what it costs; they may also stop the run."""

NEED_CREDIT = ("bandit", "regulator")
"""Agents that learn from each client's credit."""

KIND = "agent.kind"
WRITING = when(KIND, *LANGUAGE_MODELS) + when("agent.decoding", "schema")
"""Models that write their answer, rather than score given ones."""


class AgentSettings(Section):
    """Who decides after each round."""

    kind: Literal["rule", "all", "random", "greedy", "bandit", "regulator", "llm", "endpoint"] = (
        setting("rule")
    )
    """Agent: the paper's rules; everybody, fixed steps; random clients; lowest loss per cost; a
    bandit; our trained regulator; a causal LM in this process; or an OpenAI-compatible server.
    See docs/agents.md."""
    rule: Literal["fixed", "adaptive", "incremental", "dynamic", "logarithmic", "hybrid"] = setting(
        "adaptive", applies_when=when(KIND, *RULE_BASED)
    )
    """Step rule of REFERENCE: next steps from r = L_Q / L_LLM; language models fall back on it."""
    max_increment: int = setting(10, applies_when=when("agent.rule", "hybrid"), ge=1)
    """Most steps that `hybrid` adds in a round."""
    fraction: float = setting(
        1.0, applies_when=when(KIND, *RULE_BASED, "random", "greedy", "bandit"), gt=0, le=1
    )
    """Share of clients selected a round: by |L_k - L_server| (rule, and where a language model
    falls back on it), by chance (random), or the most that greedy and bandit select."""
    stage: Literal["participation", "aggregation"] = setting(
        "participation", applies_when=when(KIND, "rule") + below("agent.fraction", 1)
    )
    """Selection decides who trains, or whose update of those trained is aggregated."""
    price: float = setting(0.005, applies_when=when(KIND, *COST_AWARE), ge=0)
    """What a plain round's circuits (everybody, `train.steps`) are worth, in nats of validation
    loss."""
    idle_price: float = setting(
        0.0025, applies_when=when(KIND, "bandit", "regulator", *LANGUAGE_MODELS), ge=0
    )
    """What waiting is worth, in nats of validation loss, if the clients together wait as long as
    all of them work in a plain round."""
    circuit_prices: str = setting("1", listed=True)
    """Relative price of a client's circuits: one number for all clients, or one for each,
    comma-separated."""
    bandit: Literal["ucb", "linucb"] = setting("linucb", applies_when=when(KIND, "bandit"))
    """UCB on each client's own record, or LinUCB, a linear model that all clients share."""
    exploration: float = setting(0.3, applies_when=when(KIND, "bandit"), ge=0)
    """Width of the bandit's confidence bound."""
    online: bool = setting(False, applies_when=when(KIND, "regulator"))
    """The regulator goes on learning from this run's rewards."""
    model: str = setting("", applies_when=when(KIND, *LANGUAGE_MODELS))
    """The LLM that decides: hub id or local path (llm), or the server's name of it (endpoint)."""
    device: Literal["auto", "cpu", "cuda"] = setting("auto", applies_when=when(KIND, "llm"))
    """Where the LLM in this process computes."""
    decoding: Literal["schema", "choices"] = setting("schema", applies_when=when(KIND, "llm"))
    """The LLM in this process writes JSON held to the decision's schema, or scores a closed set of
    decisions."""
    max_tokens: int = setting(0, applies_when=WRITING, ge=0, le=32768)
    """Most tokens of an answer; 0: 250, and 12 for each client."""
    timeout: float = setting(60.0, applies_when=WRITING, gt=0, resumable=True)
    """Longest wait for one answer, seconds; then the rule decides."""
    retries: int = setting(2, applies_when=WRITING, ge=0, le=2)
    """Times that an unusable answer is requested again before the rule decides."""
