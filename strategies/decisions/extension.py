"""The agent that the settings name; one of a user's own is checked wherever it is called."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from core import Settings, SettingsError, UserError, circuit_prices, parse_options, registry
from core.formatting import printable
from strategies.decisions.contract import Agent, ClientView, Decision, Observation

ACCEPTED = "a Decision, or a mapping of participants, steps, stop and reason"


@dataclass(frozen=True)
class OwnAgent:
    """A user's agent: whatever it raises or returns that is no decision is an error of one line.

    Attributes
    ----------
    agent : Any
        The user's object.
    kind : str
        What `agent.kind` calls it.
    """

    agent: Any
    kind: str

    @property
    def name(self) -> str:
        """The name that the agent gives itself, or `agent.kind`."""
        name = getattr(self.agent, "name", None)
        return printable(name) if isinstance(name, str) and name else self.kind

    def decide(self, observation: Observation) -> Decision:
        """Request a decision.

        Raises
        ------
        SettingsError
            If it raises, or returns anything else: one line that names the file.
        """
        try:
            answer = self.agent.decide(observation)
        except UserError:
            raise
        except Exception as error:
            raise registry.bad_extension("agent", self.kind, error) from error
        if not isinstance(answer, Decision | Mapping):
            raise self._no_decision(f"returns {printable(repr(answer), 60)}")
        try:
            decision = Decision.model_validate(answer)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise self._no_decision(f"returns {where}: {first['msg']}") from None
        return decision.model_copy(update={"reason": printable(decision.reason)})

    def _no_decision(self, what: str) -> SettingsError:
        given = f"agent.kind = {self.kind!r}: decide {what}"
        return SettingsError(given, ACCEPTED, "correct the file")


def build_agent(settings: Settings) -> Agent:
    """Build the agent that the settings name; models and their libraries load with theirs only.

    Raises
    ------
    SettingsError
        If it is a user's and cannot be built: one line that names the file.
    """
    kind, text = settings.agent.kind, settings.agent.options
    agent = registry.build("agent", kind, settings, parse_options("agent.options", text))
    if kind in registry.shipped("agent"):
        built: Agent = agent
        return built
    if not callable(getattr(agent, "decide", None)):
        given = f"agent.kind = {kind!r}, an object without decide"
        raise SettingsError(given, registry.POINTS["agent"].expected, "correct the file")
    return OwnAgent(agent, kind)


def find_agent(settings: Settings) -> str:
    """Find the agent, without loading a language model; return its name.

    A user's agent is asked for two decisions, on observations that are made up: what is wrong with
    it shows before anything starts. One that asks a model is not.

    Raises
    ------
    UserError
        If there is no such agent, model or server, or it does not decide.
    """
    kind = settings.agent.kind
    find = registry.declared("agent", kind, "find")
    if find is not None:
        return str(find(settings))
    if kind in registry.shipped("agent"):
        return kind  # it comes with us: nothing to find
    agent = build_agent(settings)
    if not registry.declared("agent", kind, "asks_model"):
        try:
            agent = copy.deepcopy(agent)  # an object of a notebook learns nothing from this
        except Exception:  # it holds what has no copy: its first decision is the run's
            return agent.name
        for observation in rehearsal(settings):
            agent.decide(observation)
    return agent.name


def rehearsal(settings: Settings) -> tuple[Observation, Observation]:
    """Make up what an agent might see before the first round, and before the second."""
    train, clients = settings.train, settings.run.clients
    prices = circuit_prices(settings.agent.circuit_prices, clients) or (1.0,) * clients
    views = [
        ClientView(
            client=client,
            rows=100 + client,
            steps=train.steps,
            circuits_per_step=10,
            circuits_fixed=10,
            circuit_price=price,
        )
        for client, price in enumerate(prices)
    ]
    first = Observation(
        round=1,
        rounds_left=settings.run.rounds,
        min_steps=train.min_steps,
        max_steps=train.max_steps,
        plain_steps=train.steps,
        plain_spend=sum(view.cost(train.steps) for view in views),
        price=settings.agent.price,
        idle_price=settings.agent.idle_price,
        clients=tuple(views),
    )
    trained = {"loss": 0.6, "gap": 0.1, "chosen": 1, "circuits": 50, "busy_seconds": 1.0}
    later = first.model_copy(
        update={
            "round": 2,
            "rounds_left": settings.run.rounds - 1,
            "losses": (0.5,),
            "accuracies": (0.7,),
            "alignments": (0.1,),
            "clients": tuple(view.model_copy(update=trained) for view in views),
        }
    )
    return first, later
