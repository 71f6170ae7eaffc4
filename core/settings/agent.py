"""Settings of the agent that decides after each round."""

from __future__ import annotations

from typing import Literal

from core import registry
from core.settings.declare import Condition, Section, below, declares, setting, used_by, when

WRITING = used_by("agent", "agent.retries") + when("agent.decoding", "auto", "schema")
"""Models that write their answer, rather than score given ones."""

OWN_CLASS = Condition(
    "agent.kind",
    lambda kind: kind not in registry.shipped("agent"),
    "a class of your own, whose arguments they are",
)


class AgentSettings(Section):
    """Who decides after each round."""

    kind: str = setting("rule", point="agent")
    """Agent: the paper's rules; everybody, fixed steps; random clients; lowest loss per cost; a
    bandit; our trained regulator; a causal LM in this process; or an OpenAI-compatible server.
    See docs/agents.md, and docs/extending/agent.md for one of your own."""
    options: str = setting("", applies_when=(OWN_CLASS,))
    """Arguments of an agent class of your own: `key=value,key=value`."""
    rule: Literal[
        "when-it-pays", "fixed", "adaptive", "incremental", "dynamic", "logarithmic", "hybrid"
    ] = setting("when-it-pays", applies_when=used_by("agent", "agent.rule"))
    """Step rule; language models fall back on it. when-it-pays: `train.steps`, half as many again
    while a round's steps lower the validation loss by more each than those of the round before. The
    paper's: next steps from r = L_Q / L_LLM."""
    max_increment: int = setting(10, applies_when=when("agent.rule", "hybrid"), ge=1)
    """Most steps that `hybrid` adds in a round."""
    fraction: float = setting(1.0, applies_when=used_by("agent", "agent.fraction"), gt=0, le=1)
    """Share of clients selected a round: by |L_k - L_server| (rule, and where a language model
    falls back on it), by chance (random), or the most that greedy and bandit select."""
    leave_out: Literal["when-harmless", "freely"] = setting(
        "freely",
        applies_when=declares("agent", "leaves_out", "one that leaves clients out", default=True),
    )
    """Whether the agent may leave clients out of a round at will, or only while coverage of
    classes, credit and the trend since everybody last trained say that it is harmless; else
    everybody trains the round."""
    stage: Literal["participation", "aggregation"] = setting(
        "participation", applies_when=used_by("agent", "agent.stage") + below("agent.fraction", 1)
    )
    """Selection decides who trains, or whose update of those trained is aggregated."""
    price: float = setting(0.005, applies_when=used_by("agent", "agent.price"), ge=0)
    """What a plain round's circuits (everybody, `train.steps`) are worth, in nats of validation
    loss."""
    idle_price: float = setting(0.0025, applies_when=used_by("agent", "agent.idle_price"), ge=0)
    """What waiting is worth, in nats of validation loss, if the clients together wait as long as
    all of them work in a plain round."""
    circuit_prices: str = setting("1", listed=True)
    """Relative price of a client's circuits: one number for all clients, or one for each,
    comma-separated."""
    bandit: Literal["ucb", "linucb"] = setting(
        "linucb", applies_when=used_by("agent", "agent.bandit")
    )
    """UCB on each client's own record, or LinUCB, a linear model that all clients share."""
    exploration: float = setting(0.3, applies_when=used_by("agent", "agent.exploration"), ge=0)
    """Width of the bandit's confidence bound."""
    online: bool = setting(False, applies_when=used_by("agent", "agent.online"))
    """The regulator goes on learning from this run's rewards."""
    model: str = setting("", applies_when=used_by("agent", "agent.model"))
    """The LLM that decides: hub id or local path (llm), or the server's name of it (endpoint)."""
    device: Literal["auto", "cpu", "cuda"] = setting(
        "auto", applies_when=used_by("agent", "agent.device")
    )
    """Where the LLM in this process computes."""
    decoding: Literal["auto", "schema", "choices"] = setting(
        "auto", applies_when=used_by("agent", "agent.decoding")
    )
    """The LLM writes JSON held to the decision's schema, or chooses from a closed set of decisions.
    `auto`: in this process it chooses if it has less than a billion parameters or llguidance is
    not installed; a server's writes."""
    max_tokens: int = setting(0, applies_when=WRITING, ge=0, le=32768)
    """Most tokens of an answer; 0: 250, and 12 for each client."""
    timeout: float = setting(
        60.0, applies_when=used_by("agent", "agent.timeout"), gt=0, resumable=True
    )
    """Longest wait for one answer, seconds; then the rule decides."""
    retries: int = setting(2, applies_when=WRITING, ge=0, le=2)
    """Times that an unusable answer is requested again before the rule decides."""
