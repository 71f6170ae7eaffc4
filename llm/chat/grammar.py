"""Constrain a model's answer to a JSON Schema while it is written (llguidance)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import torch

from core import ModelError


def grammar_tokenizer(tokenizer: Any, size: int, ends: list[int], name: str) -> Any:
    """Make llguidance's view of a tokenizer, once for a model.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        The model's own.
    size, ends : int and list of int
        How many tokens the model gives scores for, and those that end an answer.
    name : str
        What the user calls the model.

    Raises
    ------
    core.ModelError
        If the tokenizer cannot be used for grammars, or does not belong to the model.
    """
    from llguidance.hf import from_tokenizer

    highest = max(tokenizer.get_vocab().values(), default=0)
    try:
        if highest >= size:
            raise ValueError(f"it knows {highest + 1} tokens and the model {size}")
        return from_tokenizer(tokenizer, n_vocab=size, eos_token=ends or None)
    except Exception as error:  # the library raises its own and plain ones
        raise ModelError(
            f"the tokenizer of agent.model {name} cannot constrain an answer to a schema ({error})",
            "a fast tokenizer of transformers, saved with its model",
            "set agent.decoding=choices, or choose another model",
        ) from error


class ConstrainedDecoder:
    """Constrains one answer, token by token.

    Parameters
    ----------
    tokenizer : llguidance.LLTokenizer
        From `grammar_tokenizer`.
    schema : mapping
        JSON Schema of the answer.
    read : int
        Tokens of the question, which come first in what `allow` and `ends` are given.
    deadline : float
        Monotonic time after which nothing more is written.

    Attributes
    ----------
    complete : bool
        Whether the answer is whole.
    late : bool
        Whether the deadline has passed.
    """

    def __init__(
        self, tokenizer: Any, schema: Mapping[str, Any], read: int, deadline: float
    ) -> None:
        from llguidance import LLMatcher

        # As the prompt shows JSON: free whitespace would let a weak model write nothing else.
        grammar = LLMatcher.grammar_from_json_schema(
            json.dumps(schema),
            overrides={"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "},
        )
        self._matcher = LLMatcher(tokenizer, grammar, log_level=0)
        if self._matcher.is_error():
            raise ValueError(f"no grammar for this schema: {self._matcher.get_error()}")
        self._seen = read
        self._deadline = deadline
        self.late = False

    @property
    def complete(self) -> bool:
        """Whether the answer is whole."""
        return bool(self._matcher.is_accepting()) and not self._matcher.is_error()

    def allow(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Forbid every token that cannot go on from here; a logits processor.

        Parameters
        ----------
        ids : Tensor, shape (1, tokens)
            Question and answer so far.
        scores : Tensor, shape (1, vocabulary)
            The next token's logits.
        """
        if bool(torch.isnan(scores).any()):
            raise ValueError("its scores are no numbers")
        self._advance(ids)
        mask = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8)
        allowed = torch.zeros(scores.shape[-1], dtype=torch.bool)
        size = min(len(mask), len(allowed))
        allowed[:size] = mask[:size] > 0
        return scores.masked_fill(~allowed.to(scores.device), float("-inf"))

    def ends(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Say whether the answer is whole or its time is up; a stopping criterion."""
        self._advance(ids)
        self.late = time.monotonic() > self._deadline
        over = self.late or self._matcher.is_stopped()
        return torch.full((ids.shape[0],), over, dtype=torch.bool, device=ids.device)

    def _advance(self, ids: torch.Tensor) -> None:
        """Let the grammar follow what was written since the last call."""
        new = ids[0, self._seen :].tolist()
        if new and not self._matcher.is_stopped():
            self._matcher.consume_tokens(new)
        self._seen = ids.shape[1]
