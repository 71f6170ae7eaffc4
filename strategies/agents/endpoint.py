"""A language model behind an OpenAI-compatible server decides."""

from __future__ import annotations

from core import Settings
from llm.chat.model import ChatModel
from strategies.decisions.llm_agent import USES, LLMAgent, build_llm_agent


class EndpointAgent:
    """Asks the server that the environment names."""

    uses = USES
    may_stop = sees_credit = sees_llm_loss = asks_model = True

    @classmethod
    def from_settings(cls, settings: Settings, chat_model: ChatModel | None = None) -> LLMAgent:
        """Check that the server is there, and build the agent; or ask a `chat_model`."""
        from llm.chat.endpoint import open_chat_model

        return build_llm_agent(settings, open_chat_model, chat_model)

    @classmethod
    def find(cls, settings: Settings) -> str:
        """Check that the server is there; return the agent's name."""
        return cls.from_settings(settings).name


AGENT = EndpointAgent
