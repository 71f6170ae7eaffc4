"""Settings of the agent that decides after each round."""

from __future__ import annotations

from typing import Literal

from core.settings.declare import Section, setting

LANGUAGE_MODELS = ("llm", "endpoint")
RULE_BASED = ("rule", *LANGUAGE_MODELS)
"""Agents that the paper's rules are, or that fall back on them."""

COST_AWARE = ("greedy", "bandit", "regulator", *LANGUAGE_MODELS)
"""Agents that weigh what a client gives against what it costs."""

MAY_STOP = ("greedy", "bandit", "regulator", *LANGUAGE_MODELS)
"""Agents that may end a run by themselves."""

KIND = "agent.kind"
WRITING = ((KIND, LANGUAGE_MODELS), ("agent.decoding", ("schema",)))
"""Models that write their answer, rather than score given ones."""


class AgentSettings(Section):
    """Who decides after each round."""

    kind: Literal["rule", "all", "random", "greedy", "bandit", "regulator", "llm", "endpoint"] = (
        setting(
            "rule",
            "Agent: the paper's rules; everybody, fixed steps; random clients; lowest loss per "
            "cost; a bandit; our trained regulator; a causal LM in this process; or an "
            "OpenAI-compatible server. See docs/agents.md.",
        )
    )
    rule: Literal["fixed", "adaptive", "incremental", "dynamic", "logarithmic", "hybrid"] = setting(
        "adaptive",
        "Step rule of REFERENCE: next steps from r = L_Q / L_LLM; language models fall back on it.",
        used_when=((KIND, RULE_BASED),),
    )
    max_increment: int = setting(
        10,
        "Most steps that `hybrid` adds in a round.",
        used_when=(("agent.rule", ("hybrid",)),),
        ge=1,
    )
    fraction: float = setting(
        1.0,
        "Share of clients selected a round: by |L_k - L_server| (rule, and where a language model "
        "falls back on it), by chance (random), or the most that greedy and bandit select.",
        used_when=((KIND, (*RULE_BASED, "random", "greedy", "bandit")),),
        gt=0,
        le=1,
    )
    stage: Literal["participation", "aggregation"] = setting(
        "participation",
        "Selection decides who trains, or whose update of those trained is aggregated.",
        used_when=((KIND, ("rule",)), ("agent.fraction", "<1")),
    )
    price: float = setting(
        0.005,
        "What a plain round's circuits (everybody, `train.steps`) are worth, in nats of "
        "validation loss.",
        used_when=((KIND, COST_AWARE),),
        ge=0,
    )
    idle_price: float = setting(
        0.0025,
        "What waiting is worth, in nats of validation loss, if the clients together wait as long "
        "as all of them work in a plain round.",
        used_when=((KIND, ("bandit", "regulator", *LANGUAGE_MODELS)),),
        ge=0,
    )
    circuit_prices: str = setting(
        "1",
        "Relative price of a client's circuits: one number for all clients, or one for each, "
        "comma-separated.",
        listed=True,
    )
    bandit: Literal["ucb", "linucb"] = setting(
        "linucb",
        "UCB on each client's own record, or LinUCB, a linear model that all clients share.",
        used_when=((KIND, ("bandit",)),),
    )
    exploration: float = setting(
        0.3, "Width of the bandit's confidence bound.", used_when=((KIND, ("bandit",)),), ge=0
    )
    online: bool = setting(
        False,
        "The regulator goes on learning from this run's rewards.",
        used_when=((KIND, ("regulator",)),),
    )
    model: str = setting(
        "",
        "The LLM that decides: hub id or local path (llm), or the server's name of it (endpoint).",
        used_when=((KIND, LANGUAGE_MODELS),),
    )
    device: Literal["auto", "cpu", "cuda"] = setting(
        "auto", "Where the LLM in this process computes.", used_when=((KIND, ("llm",)),)
    )
    decoding: Literal["schema", "choices"] = setting(
        "schema",
        "The LLM in this process writes JSON held to the decision's schema, or scores a closed "
        "set of decisions.",
        used_when=((KIND, ("llm",)),),
    )
    max_tokens: int = setting(
        0,
        "Most tokens of an answer; 0: 250, and 12 for each client.",
        used_when=WRITING,
        ge=0,
        le=32768,
    )
    timeout: float = setting(
        60.0,
        "Longest wait for one answer, seconds; then the rule decides.",
        used_when=WRITING,
        gt=0,
    )
    retries: int = setting(
        2,
        "Times that an unusable answer is asked for again before the rule decides.",
        used_when=WRITING,
        ge=0,
        le=2,
    )


def circuit_prices(text: str, clients: int) -> tuple[float, ...] | None:
    """Read `agent.circuit_prices`.

    Parameters
    ----------
    text : str
        One number, or one for each client, comma-separated.
    clients : int
        Number of clients.

    Returns
    -------
    tuple of float or None
        One positive price a client, by index; None if the text is not such a list.
    """
    try:
        prices = tuple(float(part) for part in text.split(","))
    except ValueError:
        return None
    if not all(0 < price < float("inf") for price in prices) or len(prices) not in (1, clients):
        return None
    return prices * clients if len(prices) == 1 else prices
