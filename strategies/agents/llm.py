"""An agent that asks a language model, and lets a rule decide where that brings nothing."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

from core import ModelError, Settings, derive_seed
from core.formatting import printable
from llm.chat.model import Answer, Question, Speaker, SpeakerError, open_speaker
from strategies.agents import Agent, Attempt, Decision, Observation
from strategies.agents.choices import choices
from strategies.agents.parsing import Reading, read_answer
from strategies.agents.prompt import as_answer, asked_again, may_stop, question


@dataclass
class AskingAgent:
    """Asks a language model for each round's decision.

    Parameters
    ----------
    name : str
        For the report.
    speaker : Speaker
        The model.
    fallback : Agent
        Who decides where no usable answer comes.
    retries : int
        Times that an unusable answer is told back and asked for anew.
    min_rounds : int
        Rounds before which no stop is allowed.
    closed : bool
        Whether the model chooses from a closed set of decisions.

    Attributes
    ----------
    attempts : tuple of Attempt
        Questions of the last decision, in order.
    decided_by : str
        Who decided last.
    """

    name: str
    speaker: Speaker
    fallback: Agent
    retries: int = 2
    min_rounds: int = 1
    closed: bool = False
    attempts: tuple[Attempt, ...] = ()
    decided_by: str = ""
    _begun: bool = field(default=False, repr=False)

    def decide(self, observation: Observation) -> Decision:
        """Ask, read, ask again with the problem told; in the end let the fallback decide.

        A model that does not answer at all is not asked again in this round: its time is up. One
        that would only stop, too early, leaves the round to the fallback.

        Raises
        ------
        core.ModelError
            If the first question of a run shows that no answer will ever come: a wrong address,
            key or model name.
        """
        self.attempts, self.decided_by, problem = (), self.name, ""
        first, self._begun = not self._begun, True
        rule = self.fallback.decide(observation)
        asked = self._question(observation, rule)
        left = math.inf if observation.seconds_left is None else observation.seconds_left
        until = time.monotonic() + left
        for _ in range(1 + self.retries):
            try:
                answer = self.speaker.ask(replace(asked, seconds=until - time.monotonic()))
            except SpeakerError as error:
                if error.lasting and first and not self.attempts:
                    raise ModelError(str(error)) from error
                problem = printable(str(error))
                self._note(asked, error.answer, Reading(None, problem))
                break
            reading = read_answer(answer.text, observation, answer.truncated)
            self._note(asked, answer, reading)
            if reading.decision is not None:
                return self._allowed(_explained(reading.decision, answer), observation, rule)
            problem = reading.problem
            asked = asked_again(asked, answer.text, problem)
        self.decided_by = self.fallback.name
        why = f"{self.fallback.name} instead of {self.name} ({problem})"
        return rule.model_copy(update={"reason": printable(f"{why}: {rule.reason}")})

    def _allowed(self, said: Decision, seen: Observation, rule: Decision) -> Decision:
        """Add the fallback's participants to a stop that the guard will refuse."""
        if not said.stop or said.participants or may_stop(seen, self.min_rounds):
            return said
        self.decided_by = self.fallback.name
        why = f"{self.fallback.name}, since {self.name} would stop ({said.reason}): {rule.reason}"
        return rule.model_copy(update={"stop": True, "reason": printable(why)})

    def _question(self, seen: Observation, rule: Decision) -> Question:
        if not self.closed:
            return question(seen, self.min_rounds)
        offered = choices(seen, rule, may_stop(seen, self.min_rounds))
        return question(
            seen,
            self.min_rounds,
            {label: (one.told, as_answer(one.decision, seen)) for label, one in offered.items()},
        )

    def _note(self, asked: Question, answer: Answer, reading: Reading) -> None:
        """Put a question and what came of it on record."""
        attempt = Attempt(
            prompt=asked.text,
            answer=answer.text,
            problem=reading.problem,
            notes=reading.notes,
            prompt_tokens=answer.prompt_tokens,
            answer_tokens=answer.answer_tokens,
            seconds=answer.seconds,
        )
        self.attempts = (*self.attempts, attempt)


def _explained(decision: Decision, answer: Answer) -> Decision:
    """Add to the reason of a choice from a closed set how likely it was."""
    if not answer.likelihoods:
        return decision
    best = max(answer.likelihoods.values())
    reason = f"{decision.reason} (probability {best:.2f} among {len(answer.likelihoods)} options)"
    return decision.model_copy(update={"reason": reason})


def build_asking(
    settings: Settings, fallback: Agent, speaker: Speaker | None = None
) -> AskingAgent:
    """Build the agent of `agent.kind = llm` or `endpoint`.

    Parameters
    ----------
    settings : Settings
        The run's settings.
    fallback : Agent
        Who decides where no usable answer comes.
    speaker : Speaker or None
        Who is asked; None: the model that the settings name.

    Raises
    ------
    core.UserError
        If there is no such model or server.
    """
    agent = settings.agent
    if speaker is None:
        seed = derive_seed(settings.run.seed, "agent")
        speaker = open_speaker(agent, settings.run.clients, seed)
    closed = agent.kind == "llm" and agent.decoding == "choices"
    return AskingAgent(
        name=f"{agent.kind} ({speaker.name})",
        speaker=speaker,
        fallback=fallback,
        retries=0 if closed else agent.retries,
        min_rounds=settings.stop.min_rounds,
        closed=closed,
    )
