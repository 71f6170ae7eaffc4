"""The body of a request to an OpenAI-compatible server, and its simpler forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from llm.chat.model import Question

FORMS = ("schema", "loose", "object", "text")
"""Constrained to the schema; to the schema without bounds, which some servers do not know; to any
JSON object; to nothing."""

_BOUNDS = ("minimum", "maximum", "maxLength")


@dataclass(frozen=True)
class RequestFormat:
    """What a server was found to accept; begin with everything.

    Attributes
    ----------
    form : str
        One of `FORMS`.
    limit : str
        How it calls the most tokens of an answer.
    extras : tuple of str
        Optional parameters that it takes.
    """

    form: str = FORMS[0]
    limit: str = "max_tokens"
    extras: tuple[str, ...] = ("temperature", "seed")

    def body(self, question: Question, model: str, tokens: int, seed: int) -> dict[str, Any]:
        """Return a request's body: greedy, not streamed."""
        extras = {"temperature": 0, "seed": seed}
        return {
            "model": model,
            "messages": [dict(message) for message in question.messages],
            "stream": False,
            self.limit: tokens,
            **{name: extras[name] for name in self.extras},
            **self._format(question.schema),
        }

    def _format(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        if self.form == "text":
            return {}
        if self.form == "object":
            return {"response_format": {"type": "json_object"}}
        used = _without_bounds(schema) if self.form == "loose" else schema
        named = {"name": "decision", "strict": True, "schema": used}
        return {"response_format": {"type": "json_schema", "json_schema": named}}

    def simpler(self, complaint: str) -> RequestFormat | None:
        """Return a simpler format after a refusal, or None if there is none.

        Parameters
        ----------
        complaint : str
            The server's message; a parameter that it names is dropped before the format.
        """
        if "max_completion_tokens" in complaint and self.limit == "max_tokens":
            return replace(self, limit="max_completion_tokens")
        for name in self.extras:
            if name in complaint:
                return replace(self, extras=tuple(x for x in self.extras if x != name))
        if self.form != FORMS[-1]:
            return replace(self, form=FORMS[FORMS.index(self.form) + 1])
        return None


def _without_bounds(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {key: _without_bounds(x) for key, x in schema.items() if key not in _BOUNDS}
    return schema
