"""Agents that are no language models: the paper's rules, everybody, and chance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from core import Settings, derive_seed, selection_size
from strategies.agents import Agent, ClientView, Decision, Observation
from strategies.regulation import next_steps
from strategies.selection import closest


def _all(seen: Observation) -> tuple[int, ...]:
    return tuple(view.client for view in seen.clients)


@dataclass(frozen=True)
class AllAgent:
    """Plain quantum federated learning: everybody trains, always the same steps."""

    name: str = "all"

    def decide(self, observation: Observation) -> Decision:
        """Choose every client with its unchanged steps."""
        steps = {view.client: view.steps for view in observation.clients}
        return Decision(participants=_all(observation), steps=steps, reason="everybody trains")


@dataclass(frozen=True)
class RandomAgent:
    """A random share of clients with unchanged steps, from a generator of its own."""

    fraction: float
    seed: int
    name: str = "random"

    def decide(self, observation: Observation) -> Decision:
        """Draw the round's participants; the draw depends on seed and round only."""
        rng = np.random.default_rng(derive_seed(self.seed, "agent", observation.round))
        size = selection_size(len(observation.clients), self.fraction)
        drawn = rng.choice(len(observation.clients), size=size, replace=False)
        chosen = tuple(sorted(observation.clients[int(i)].client for i in drawn))
        steps = {v.client: v.steps for v in observation.clients if v.client in chosen}
        return Decision(participants=chosen, steps=steps, reason=f"drawn at random: {size}")


@dataclass(frozen=True)
class RuleAgent:
    """The paper's regulator: steps from r = L_Q / L_LLM, selection by |L_k - L_server|."""

    rule: str
    max_increment: int
    fraction: float
    selects: bool

    @property
    def name(self) -> str:
        """Return ``rule (<step rule>)``."""
        return f"rule ({self.rule})"

    def _steps(self, view: ClientView, seen: Observation) -> int:
        if view.ratio is None:
            return view.steps
        return next_steps(
            self.rule,  # type: ignore[arg-type]
            view.steps,
            view.ratio,
            max_steps=seen.max_steps,
            max_increment=self.max_increment,
        )

    def _participants(self, seen: Observation) -> tuple[int, ...]:
        if not self.selects or not seen.losses:
            return _all(seen)
        gaps = {v.client: math.nan if v.gap is None else v.gap for v in seen.clients}
        return closest(gaps, self.fraction)

    def decide(self, observation: Observation) -> Decision:
        """Apply the rules; in round 1 everybody trains with the initial steps."""
        if observation.round == 1:
            first = {view.client: view.steps for view in observation.clients}
            return Decision(
                participants=_all(observation), steps=first, reason="first round: everybody trains"
            )
        chosen = self._participants(observation)
        steps = {v.client: self._steps(v, observation) for v in observation.clients}
        ratios = [v.ratio for v in observation.clients if v.client in chosen and v.ratio]
        behind = sum(ratio > 1 for ratio in ratios)
        reason = f"{behind} of {len(chosen)} behind their LLM"
        if ratios:
            reason += f" (mean r {sum(ratios) / len(ratios):.2f})"
        if len(chosen) < len(observation.clients):
            reason += f"; {len(chosen)} closest to the server's loss"
        return Decision(participants=chosen, steps={k: steps[k] for k in chosen}, reason=reason)


def build_rule(settings: Settings) -> RuleAgent:
    """Build the paper's regulator."""
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
        from strategies.agents.llm import build_asking

        return build_asking(settings, build_rule(settings))
    if kind == "regulator":
        from strategies.agents.regulator import build_regulator

        return build_regulator(settings)
    return build_rule(settings)
