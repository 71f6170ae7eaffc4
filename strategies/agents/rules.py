"""Agents without a model of their own: the paper's rules, everybody, and chance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from core import Settings, derive_seed, selection_size
from strategies.agents import Agent, ClientView, Decision, Observation
from strategies.regulation import StepRule, closest, next_steps


@dataclass(frozen=True)
class AllAgent:
    """Plain quantum federated learning: everybody trains, always the same steps."""

    name: str = "all"

    def decide(self, observation: Observation) -> Decision:
        """Choose every client with its unchanged steps."""
        steps = {view.client: view.steps for view in observation.clients}
        return Decision.to_train(steps, "everybody trains")


@dataclass(frozen=True)
class RandomAgent:
    """A random share of clients with unchanged steps, from a generator of its own."""

    fraction: float
    seed: int
    name: str = "random"

    def decide(self, observation: Observation) -> Decision:
        """Draw the round's participants; the draw depends on seed and round only."""
        rng = np.random.default_rng(derive_seed(self.seed, "agent", observation.round))
        clients = observation.clients
        size = selection_size(len(clients), self.fraction)
        drawn = rng.choice(len(clients), size=size, replace=False)
        steps = {clients[i].client: clients[i].steps for i in sorted(drawn)}
        return Decision.to_train(steps, f"drawn at random: {size}")


@dataclass(frozen=True)
class RuleAgent:
    """The paper's rule-based agent: steps from r = L_Q / L_LLM, selection by |L_k - L_server|."""

    rule: StepRule
    max_increment: int
    fraction: float
    selects: bool

    @property
    def name(self) -> str:
        """Return ``rule (<step rule>)``."""
        return f"rule ({self.rule})"

    def decide(self, observation: Observation) -> Decision:
        """Apply the rules; in round 1 everybody trains with the initial steps."""
        clients = observation.clients
        if observation.round == 1:
            first = {view.client: view.steps for view in clients}
            return Decision.to_train(first, "first round: everybody trains")
        chosen = self._participants(observation)
        ratios = [view.ratio for view in chosen if view.ratio]
        behind = sum(ratio > 1 for ratio in ratios)
        reason = f"{behind} of {len(chosen)} behind their LLM"
        if ratios:
            reason += f" (mean r {sum(ratios) / len(ratios):.2f})"
        if len(chosen) < len(clients):
            reason += f"; {len(chosen)} closest to the server's loss"
        steps = {view.client: self._steps(view, observation.max_steps) for view in chosen}
        return Decision.to_train(steps, reason)

    def _participants(self, seen: Observation) -> tuple[ClientView, ...]:
        if not self.selects or not seen.losses:
            return seen.clients
        gaps = {v.client: math.nan if v.gap is None else v.gap for v in seen.clients}
        chosen = closest(gaps, self.fraction)
        return tuple(view for view in seen.clients if view.client in chosen)

    def _steps(self, view: ClientView, most: int) -> int:
        if view.ratio is None:
            return view.steps
        return next_steps(
            self.rule,
            view.steps,
            view.ratio,
            max_steps=most,
            max_increment=self.max_increment,
        )


def build_rule(settings: Settings) -> RuleAgent:
    """Build the paper's rule-based agent."""
    agent = settings.agent
    selects = agent.stage == "participation"
    return RuleAgent(agent.rule, agent.max_increment, agent.fraction, selects)


def build_agent(settings: Settings) -> Agent:
    """Build the agent that the settings name; models and their libraries load with theirs only."""
    kind = settings.agent.kind
    if kind == "all":
        return AllAgent()
    if kind == "random":
        return RandomAgent(settings.agent.fraction, settings.run.seed)
    if kind in ("greedy", "bandit"):
        from strategies.agents.bandits import build_bandit

        return build_bandit(settings)
    if kind in ("llm", "endpoint"):
        from strategies.agents.llm import build_llm_agent

        return build_llm_agent(settings, build_rule(settings))
    if kind == "regulator":
        from strategies.agents.regulator import build_regulator

        return build_regulator(settings)
    return build_rule(settings)
