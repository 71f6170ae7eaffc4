"""What all chat models have in common: question, answer, error, and how one is found."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from core import UserError
from core.settings.agent import AgentSettings
from llm.sources import Source, find_generator

Messages = tuple[Mapping[str, str], ...]
"""A chat: each message has ``role`` (system, user or assistant) and ``content``."""

SETTING = "agent.model"
ACCEPTED = (
    "smollm2, a folder of a causal language model of transformers, a hub id such as gpt2, or a "
    "GGUF file"
)

CHOICE = "option"
"""Key of a written answer that names the label of one of the options."""

SMALL = 1e9
"""Parameters below which a model chooses among options rather than write a decision."""


@dataclass(frozen=True)
class Question:
    """A request to a chat model.

    Attributes
    ----------
    messages : tuple of mapping
        The chat so far.
    schema : dict
        JSON Schema of the answer, for models whose decoding can be constrained to one.
    options : dict
        A closed set of answers by their label; empty: the answer is free within the schema.
    seconds : float
        What the run has left: an answer that takes longer is of no use, whatever `agent.timeout`.
    """

    messages: Messages
    schema: Mapping[str, Any]
    options: Mapping[str, str] = field(default_factory=dict)
    seconds: float = math.inf

    @property
    def text(self) -> str:
        """The chat as one text, for the record."""
        return "\n\n".join(f"[{m['role']}]\n{m['content']}" for m in self.messages)


@dataclass(frozen=True)
class Answer:
    """A chat model's response.

    Attributes
    ----------
    text : str
        Its text, or of a closed set the option that it finds likeliest.
    prompt_tokens, answer_tokens : int
        Tokens read and written; 0 where a server does not say.
    seconds : float
        Time it took.
    truncated : bool
        Whether the limit of tokens cut it off.
    likelihoods : dict
        Of a closed set: each option's probability within the set, by label.
    """

    text: str = ""
    prompt_tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0
    truncated: bool = False
    likelihoods: Mapping[str, float] = field(default_factory=dict)


class ChatModelError(UserError):
    """No answer came: too late, unreachable, or an error instead.

    Parameters
    ----------
    message : str
        Why, in one line.
    lasting : bool
        Whether asking again cannot help: a wrong address, key or model name.
    answer : Answer
        What had come until then.
    """

    def __init__(self, message: str, *, lasting: bool = False, answer: Answer | None = None):
        super().__init__(message)
        self.lasting = lasting
        self.answer = answer or Answer()


class ChatModel(Protocol):
    """A language model that answers questions."""

    @property
    def name(self) -> str:
        """Its short name, for the record."""

    @property
    def closed(self) -> bool:
        """Whether it chooses among options rather than write a decision (`agent.decoding`)."""

    def ask(self, question: Question) -> Answer:
        """Answer a question within `agent.timeout` seconds, `Answer.seconds` filled in.

        Raises
        ------
        ChatModelError
            If no answer came.
        """


def chosen_option(answer: Answer, options: Mapping[str, str]) -> Answer:
    """Return the option that a written answer names: the label alone, or JSON that holds it.

    An answer that names none stays as it is, and is refused where it is read.
    """
    text = answer.text.strip()
    named = re.search(rf'"{CHOICE}"\s*:\s*"([^"]*)"', text)
    label = named[1] if named else text.strip("`*'\".:() ")
    return replace(answer, text=options[label]) if label in options else answer


def timed(ask: Callable[[], Answer]) -> Answer:
    """Return an answer with the seconds that it took; an error's partial answer gets them too."""
    began = time.monotonic()
    try:
        return replace(ask(), seconds=time.monotonic() - began)
    except ChatModelError as error:
        error.answer = replace(error.answer, seconds=time.monotonic() - began)
        raise


def time_limit(timeout: float, question: Question) -> tuple[float, str]:
    """Return the seconds that an answer may take, and the setting that sets them."""
    if question.seconds < timeout:
        return max(0.0, question.seconds), "stop.wall_seconds"
    return timeout, "agent.timeout"


def answer_tokens(settings: AgentSettings, clients: int) -> int:
    """Return the most tokens of an answer: `agent.max_tokens`, or room for each client.

    A client takes about six tokens (``"12": 20,``), a tokenizer of single letters ten.
    """
    return settings.max_tokens or 250 + 12 * clients


def find_model(settings: AgentSettings) -> Source:
    """Find the model of an agent in this process; nothing is loaded.

    Raises
    ------
    core.ModelError
        If it is missing, not a model, gated or not reachable.
    """
    return find_generator(settings.model, SETTING, ACCEPTED)
