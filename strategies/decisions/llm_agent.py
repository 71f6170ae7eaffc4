"""An agent that asks a language model, and lets a rule decide where that gives nothing usable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from core import ModelError, Settings, derive_seed, registry
from core.formatting import printable
from core.settings.agent import AgentSettings
from llm.chat.model import Answer, ChatModel, ChatModelError, Question
from strategies.decisions import Agent, Attempt, ClientView, Decision, Observation
from strategies.decisions.control import (
    COPIED,
    copies_form,
    ignored_options,
    ignored_table,
    mirrored,
    singles_out,
    turned_round,
)
from strategies.decisions.parsing import ParsedDecision, parse_answer
from strategies.decisions.prompt import may_stop, question, retry_question
from strategies.decisions.shown import MOST_SHOWN, credit_per_cost

LABELS = "ABCDEFGHIJ"


@dataclass
class LLMAgent:
    """Asks a language model for each round's decision.

    Parameters
    ----------
    name : str
        For the report.
    chat_model : ChatModel
        The model.
    fallback : Agent
        Decides where no usable answer comes.
    retries : int
        Times that the model is asked again, with the problem, after an unusable answer.
    min_rounds : int
        Rounds before which no stop is allowed.

    Attributes
    ----------
    attempts : tuple of Attempt
        Requests of the last decision, in order.
    decided_by : str
        Who decided last.
    """

    name: str
    chat_model: ChatModel
    fallback: Agent
    retries: int = 2
    min_rounds: int = 1
    attempts: tuple[Attempt, ...] = ()
    decided_by: str = ""
    _begun: bool = field(default=False, repr=False)

    def decide(self, observation: Observation) -> Decision:
        """Ask, parse, ask again with the problem; in the end let the fallback decide.

        A model that does not answer at all is not asked again in this round: its time is up. One
        that would only stop, too early, leaves the round to the fallback; and so does one whose
        answer to a control question shows that it does not go by what it is told.

        Raises
        ------
        core.ModelError
            If the first request of a run shows that no answer will ever come: a wrong address,
            key or model name.
        """
        self.attempts, self.decided_by = (), self.name
        rule = self.fallback.decide(observation)
        options = self._options(observation, rule)
        request = question(observation, self.min_rounds, options)
        left = math.inf if observation.seconds_left is None else observation.seconds_left
        until = time.monotonic() + left
        decision = self._ask(request, observation, until, 0 if options else self.retries)
        if isinstance(decision, str):
            return self._fall_back(rule, f" instead of {self.name} ({decision})")
        problem = self._uninformed(request, decision, observation, options, until)
        if problem:
            return self._fall_back(rule, f" instead of {self.name} ({problem})")
        return self._allowed(decision, observation, rule)

    def _options(self, seen: Observation, rule: Decision) -> dict[str, Decision] | None:
        if not self.chat_model.closed:
            return None
        return choices(seen, rule, may_stop(seen, self.min_rounds))

    def _ask(
        self, request: Question, seen: Observation, until: float, retries: int
    ) -> Decision | str:
        """Return what the model decides, or why nothing came of it; the requests are recorded."""
        problem = ""
        for _ in range(1 + retries):
            first, self._begun = not self._begun, True
            try:
                answer = self.chat_model.ask(replace(request, seconds=until - time.monotonic()))
            except ChatModelError as error:
                if error.lasting and first:
                    raise ModelError(str(error)) from error
                problem = printable(str(error))
                self._record(request, error.answer, ParsedDecision(None, problem))
                break
            parsed = parse_answer(answer.text, seen, answer.truncated)
            self._record(request, answer, parsed)
            if parsed.decision is not None:
                return _explained(parsed.decision, answer)
            problem = parsed.problem
            request = retry_question(request, answer.text, problem)
        return problem

    def _uninformed(
        self,
        request: Question,
        decision: Decision,
        seen: Observation,
        options: Mapping[str, Decision] | None,
        until: float,
    ) -> str:
        """Return how a decision shows that the model does not go by the facts; empty: it may.

        Where a decision alone does not show it, a control question is asked: always of one that
        chooses, and of one that writes where it treats clients differently.
        """
        if options:
            return self._unread_options(request, seen, options, until)
        if copies_form(decision):
            return self._note(COPIED)
        other = mirrored(seen, decision) if singles_out(decision, seen) else None
        if other is None:
            return ""
        control = self._ask(question(other, self.min_rounds), other, until, 0)
        if isinstance(control, str):
            return f"a control question: {control}"
        return self._note(ignored_table(decision, control, seen))

    def _unread_options(
        self, request: Question, seen: Observation, options: Mapping[str, Decision], until: float
    ) -> str:
        first = _label(request, self.attempts[-1].answer)
        turned = question(seen, self.min_rounds, turned_round(options))
        control = self._ask(turned, seen, until, 0)
        if isinstance(control, str):
            return f"a control question: {control}"
        second = _label(turned, self.attempts[-1].answer)
        if not first or not second:  # a decision of its own, none of the options
            return ""
        return self._note(ignored_options(first, second, options))

    def _note(self, uninformed: str) -> str:
        """Put on record how the last answer shows it; return it as a problem."""
        if not uninformed:
            return ""
        last = self.attempts[-1].model_copy(update={"uninformed": uninformed})
        self.attempts = (*self.attempts[:-1], last)
        return f"uninformed: {uninformed}"

    def _fall_back(self, rule: Decision, why: str, *, stop: bool = False) -> Decision:
        """Return the fallback's decision with the reason that it decides."""
        self.decided_by = self.fallback.name
        reason = printable(f"{self.fallback.name}{why}: {rule.reason}")
        return rule.model_copy(update={"stop": stop or rule.stop, "reason": reason})

    def _allowed(self, decision: Decision, seen: Observation, rule: Decision) -> Decision:
        """Add the fallback's participants to a stop that the guard will refuse."""
        if not decision.stop or decision.participants or may_stop(seen, self.min_rounds):
            return decision
        why = f", since {self.name} would stop ({decision.reason})"
        return self._fall_back(rule, why, stop=True)

    def _record(self, request: Question, answer: Answer, parsed: ParsedDecision) -> None:
        attempt = Attempt(
            prompt=request.text,
            answer=answer.text,
            problem=parsed.problem,
            notes=parsed.notes,
            prompt_tokens=answer.prompt_tokens,
            answer_tokens=answer.answer_tokens,
            seconds=answer.seconds,
        )
        self.attempts = (*self.attempts, attempt)


def _label(request: Question, answer: str) -> str:
    """Return the label of the option that an answer repeats; empty if none."""
    return next((label for label, text in request.options.items() if text == answer), "")


def _explained(decision: Decision, answer: Answer) -> Decision:
    """Add to the reason of a choice from a closed set how likely it was."""
    if not answer.likelihoods:
        return decision
    best = max(answer.likelihoods.values())
    reason = f"{decision.reason} (probability {best:.2f} among {len(answer.likelihoods)} options)"
    return decision.model_copy(update={"reason": reason})


def choices(seen: Observation, rule: Decision, stop_allowed: bool) -> dict[str, Decision]:
    """Return a closed set of sensible decisions, for models too small to write one.

    Parameters
    ----------
    seen : Observation
        What is known.
    rule : Decision
        What the rule would do.
    stop_allowed : bool
        Whether the run may end here.

    Returns
    -------
    dict
        By label (A, B, ...); each decision's reason is its name, and no two decide the same. Credit
        per cost ranks a client that has not trained yet between those that helped and those that
        harmed, by its rows per cost.
    """
    ranked = sorted(seen.clients, key=lambda view: credit_per_cost(view, seen), reverse=True)
    half = ranked[: math.ceil(len(ranked) / 2)]
    helped = [view for view in seen.clients if (view.credit or 0) > 0]
    waited = sorted(seen.clients, key=lambda view: view.rounds_since, reverse=True)[: len(half)]
    plain, double = seen.plain_steps, 2 * seen.plain_steps

    def choice(name: str, views: Iterable[ClientView], steps: int) -> Decision:
        bounded = max(seen.min_steps, min(seen.max_steps, steps))
        return Decision.to_train(dict.fromkeys(sorted(v.client for v in views), bounded), name)

    offered = [
        choice("everybody trains plain steps", seen.clients, plain),
        choice("everybody trains double steps", seen.clients, double),
        choice("everybody trains half the steps", seen.clients, plain // 2),
        rule.model_copy(update={"reason": "the rule decides"}),
        choice("the half with most credit per cost, plain steps", half, plain),
        choice("the half with most credit per cost, double steps", half, double),
        choice("the client with most credit per cost, double steps", ranked[:1], double),
        choice("those whose credit is above 0, plain steps", helped, plain),
        choice("the half that waited longest, plain steps", waited, plain),
    ]
    distinct: dict[object, Decision] = {}
    for decision in offered:
        if decision.participants:
            distinct.setdefault(frozenset(decision.steps.items()), decision)
    stop = [Decision.to_stop("stop the run now")] if stop_allowed else []
    return dict(zip(LABELS, [*distinct.values(), *stop], strict=False))


RULES = ("agent.rule", "agent.fraction")
"""Settings of the rule that decides where a language model gives nothing usable."""

USES = (
    *RULES,
    "agent.price",
    "agent.idle_price",
    "agent.model",
    "agent.decoding",
    "agent.max_tokens",
    "agent.timeout",
    "agent.retries",
)
"""Settings that every agent of a language model reads."""


def build_llm_agent(
    settings: Settings,
    open_chat_model: Callable[[AgentSettings, int, int], ChatModel],
    chat_model: ChatModel | None = None,
) -> LLMAgent:
    """Build an agent that asks a language model.

    Parameters
    ----------
    settings : Settings
        The run's settings.
    open_chat_model : callable
        Opens the model: agent's settings, number of clients in an answer, seed.
    chat_model : ChatModel or None
        The model to ask; None: the one that is opened.

    Raises
    ------
    core.UserError
        If there is no such model or server.
    """
    agent = settings.agent
    if chat_model is None:
        seed = derive_seed(settings.run.seed, "agent")
        keys = min(settings.run.clients, MOST_SHOWN + 1)  # of an answer's steps
        chat_model = open_chat_model(agent, keys, seed)
    return LLMAgent(
        name=f"{agent.kind} ({chat_model.name})",
        chat_model=chat_model,
        fallback=registry.find("agent", "rule").from_settings(settings),
        retries=agent.retries,
        min_rounds=settings.stop.min_rounds,
    )
