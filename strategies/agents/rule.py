"""The paper's rule-based agent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from core import Settings
from strategies.decisions import ClientView, Decision, Observation
from strategies.regulation import StepRule, closest, next_steps, steps_that_pay


@dataclass(frozen=True)
class RuleAgent:
    """The paper's rule-based agent: steps from r = L_Q / L_LLM, selection by |L_k - L_server|."""

    rule: StepRule
    max_increment: int
    fraction: float
    selects: bool
    uses: ClassVar[tuple[str, ...]] = ("agent.rule", "agent.fraction", "agent.stage")
    may_stop: ClassVar[bool] = False

    @classmethod
    def from_settings(cls, settings: Settings) -> RuleAgent:
        """Build the agent."""
        agent = settings.agent
        selects = agent.stage == "participation"
        return cls(agent.rule, agent.max_increment, agent.fraction, selects)

    @staticmethod
    def fixed_steps(settings: Settings) -> bool:
        """Whether no client is given other steps than its first."""
        return settings.agent.rule == "fixed"

    @staticmethod
    def needs_llm(settings: Settings) -> bool:
        """Whether the steps follow from the loss of a fine-tuned language model."""
        return settings.agent.rule not in ("fixed", "when-it-pays")

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
        if self.rule == "when-it-pays":
            return self._paying(chosen, observation)
        ratios = [view.ratio for view in chosen if view.ratio]
        behind = sum(ratio > 1 for ratio in ratios)
        reason = f"{behind} of {len(chosen)} behind their LLM"
        if ratios:
            reason += f" (mean r {sum(ratios) / len(ratios):.2f})"
        steps = {view.client: self._steps(view, observation.max_steps) for view in chosen}
        return Decision.to_train(steps, reason + _selection(chosen, observation))

    def _paying(self, chosen: tuple[ClientView, ...], seen: Observation) -> Decision:
        steps = steps_that_pay(seen.plain_steps, seen.losses, max_steps=seen.max_steps)
        more = steps > seen.plain_steps
        reason = "each step pays more than before: more of them" if more else "steps as at first"
        return Decision.to_train(
            {view.client: steps for view in chosen}, reason + _selection(chosen, seen)
        )

    def _participants(self, seen: Observation) -> tuple[ClientView, ...]:
        if not self.selects or not seen.losses:
            return seen.clients
        gaps = {v.client: math.nan if v.gap is None else v.gap for v in seen.clients}
        chosen = set(closest(gaps, self.fraction))
        return tuple(view for view in seen.clients if view.client in chosen)

    def _steps(self, view: ClientView, most: int) -> int:
        if view.ratio is None or self.rule == "when-it-pays":
            return view.steps
        return next_steps(
            self.rule,
            view.steps,
            view.ratio,
            max_steps=most,
            max_increment=self.max_increment,
        )


def _selection(chosen: tuple[ClientView, ...], seen: Observation) -> str:
    if len(chosen) == len(seen.clients):
        return ""
    return f"; {len(chosen)} closest to the server's loss"


AGENT = RuleAgent
