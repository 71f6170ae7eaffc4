"""A causal language model in the server's process decides."""

from __future__ import annotations

from core import Settings
from llm.chat.model import ChatModel, find_model
from strategies.decisions.llm_agent import USES, LLMAgent, build_llm_agent


class LocalModelAgent:
    """Asks a model of transformers, by hub id or folder."""

    uses = (*USES, "agent.device")
    paths = ("agent.model",)
    may_stop = sees_credit = sees_llm_loss = asks_model = True

    @classmethod
    def from_settings(cls, settings: Settings, chat_model: ChatModel | None = None) -> LLMAgent:
        """Load the model and build the agent; with a `chat_model`, that one is asked."""
        from llm.chat.local import open_chat_model

        return build_llm_agent(settings, open_chat_model, chat_model)

    @staticmethod
    def find(settings: Settings) -> str:
        """Find the model without loading it; return the agent's name."""
        return f"llm ({find_model(settings.agent).short})"

    @staticmethod
    def package(settings: Settings) -> tuple[str, str, str] | None:
        """Name the module, extra and setting of an optional package that it needs."""
        if settings.agent.decoding != "schema":
            return None
        return "llguidance", "agents", "agent.decoding = 'schema'"


AGENT = LocalModelAgent
