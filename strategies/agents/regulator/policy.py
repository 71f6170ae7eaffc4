"""Decisions as next words: drawing them from the model, and how likely it finds given ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from strategies.agents.regulator.vocabulary import (
    CLIENT,
    GO_ID,
    LEVEL_IDS,
    LEVELS,
    RUN,
    SKIP_ID,
    STOP_ID,
    VOCABULARY,
)

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

CHOICES = (SKIP_ID, *LEVEL_IDS)


@dataclass(frozen=True)
class Choice:
    """Decisions of B federations of K clients.

    Attributes
    ----------
    words : Tensor of int64, shape (B, K + 1)
        ``go`` or ``stop``, then a word a client, in the order in which they were read.
    log_probability : Tensor, shape (B,)
        Of the words that count: after ``stop`` none do.
    """

    words: Tensor
    log_probability: Tensor

    @property
    def stop(self) -> npt.NDArray[np.bool_]:
        """Whether to stop, shape (B,)."""
        return np.asarray(self.words[:, 0].numpy() == STOP_ID)

    @property
    def levels(self) -> npt.NDArray[np.float64]:
        """Multiples of the plain steps, 0 for who sits out, shape (B, K)."""
        table = np.zeros(len(VOCABULARY))
        table[list(LEVEL_IDS)] = LEVELS
        return np.asarray(table[self.words[:, 1:].numpy()])


def words_of(stop: npt.NDArray[np.bool_], levels: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the words of decisions, the inverse of `Choice`; shape (B, K + 1)."""
    words = np.full((len(stop), levels.shape[1] + 1), SKIP_ID, dtype=np.int64)
    words[:, 0] = np.where(stop, STOP_ID, GO_ID)
    for word, level in zip(LEVEL_IDS, LEVELS, strict=True):
        words[:, 1:][levels == level] = word
    return words


def allowed(may_stop: Tensor, clients: int) -> Tensor:
    """Say which words may stand where.

    Parameters
    ----------
    may_stop : Tensor of bool, shape (B,)
        Whether ``stop`` may be said.
    clients : int
        K.

    Returns
    -------
    Tensor of bool, shape (B, K + 1, V)
        Somebody has to train: the client of most merit is never skipped.
    """
    mask = torch.zeros(len(may_stop), clients + 1, len(VOCABULARY), dtype=torch.bool)
    mask[:, 0, GO_ID] = True
    mask[:, 0, STOP_ID] = may_stop
    mask[:, 1:, list(CHOICES)] = True
    mask[:, 1, SKIP_ID] = False
    return mask


def compose(ids: Tensor, words: Tensor) -> Tensor:
    """Return whole texts: what was said stands after what was read before it.

    Parameters
    ----------
    ids : Tensor of int64, shape (B, 8 + 7 K)
        What is read.
    words : Tensor of int64, shape (B, K + 1)
        What is said.

    Returns
    -------
    Tensor of int64, shape (B, 9 + 8 K)
    """
    size, clients = len(ids), words.shape[1] - 1
    about = ids[:, len(RUN) :].view(size, clients, len(CLIENT))
    told = torch.cat([about, words[:, 1:, None]], dim=2).view(size, -1)
    return torch.cat([ids[:, : len(RUN)], words[:, :1], told], dim=1)


@torch.no_grad()
def draw(
    model: LlamaForCausalLM,
    ids: Tensor,
    may_stop: Tensor,
    generator: torch.Generator | None = None,
) -> Choice:
    """Let the model decide, a word at a time.

    Parameters
    ----------
    model : LlamaForCausalLM
        The regulator.
    ids : Tensor of int64, shape (B, 8 + 7 K)
        What it reads.
    may_stop : Tensor of bool, shape (B,)
        Whether ``stop`` may be said.
    generator : torch.Generator, optional
        Draws the words; without one the likeliest are taken.

    Returns
    -------
    Choice
    """
    clients = (ids.shape[1] - len(RUN)) // len(CLIENT)
    words = torch.full((len(ids), clients + 1), SKIP_ID, dtype=torch.int64)
    total, cache, given = torch.zeros(len(ids)), None, ids[:, : len(RUN)]
    shut = ~allowed(may_stop, clients)
    for place in range(clients + 1):
        out = model(input_ids=given, cache=cache, use_cache=True, logits_to_keep=1)
        cache = out.cache
        logits = out.logits[:, -1].float().masked_fill(shut[:, place], -torch.inf)
        scores = torch.log_softmax(logits, -1)
        if generator is None:
            word = scores.argmax(-1)
        else:
            word = torch.multinomial(scores.exp(), 1, generator=generator).squeeze(1)
        words[:, place] = word
        counts = torch.ones(len(ids)) if place == 0 else (words[:, 0] == GO_ID).float()
        total += counts * scores.gather(1, word.unsqueeze(1)).squeeze(1)
        begin = len(RUN) + place * len(CLIENT)
        given = torch.cat([word.unsqueeze(1), ids[:, begin : begin + len(CLIENT)]], dim=1)
    return Choice(words, total)


@dataclass(frozen=True)
class Opinion:
    """What a model thinks of the words at each place of B decisions.

    Attributes
    ----------
    scores : Tensor, shape (B, K + 1, V)
        Log probabilities; -inf where a word may not stand.
    counts : Tensor, shape (B, K + 1)
        1 where a place counts: after ``stop`` none does.
    words : Tensor of int64, shape (B, K + 1)
        What was said.
    """

    scores: Tensor
    counts: Tensor
    words: Tensor

    def log_probability(self) -> Tensor:
        """Return that of what was said, shape (B,)."""
        said = self.scores.gather(2, self.words.unsqueeze(2)).squeeze(2)
        return (self.counts * said).sum(1)

    def divergence(self, other: Opinion) -> Tensor:
        """Return KL(this, other) summed over the places that count, nats, shape (B,)."""
        held = self.scores.masked_fill(self.scores == -torch.inf, 0.0)
        theirs = other.scores.masked_fill(other.scores == -torch.inf, 0.0)
        return (self.counts * (self.scores.exp() * (held - theirs)).sum(-1)).sum(1)


def opinion(model: LlamaForCausalLM, ids: Tensor, words: Tensor, may_stop: Tensor) -> Opinion:
    """Return what a model thinks of given decisions; arguments as of `draw` and `compose`."""
    text = compose(ids, words)[:, :-1]
    places = len(RUN) - 1 + torch.arange(words.shape[1]) * (len(CLIENT) + 1)
    logits = model(input_ids=text, use_cache=False, logits_to_keep=places).logits.float()
    shut = ~allowed(may_stop, words.shape[1] - 1)
    counts = torch.ones(words.shape)
    counts[:, 1:] = (words[:, :1] == GO_ID).float()
    return Opinion(torch.log_softmax(logits.masked_fill(shut, -torch.inf), -1), counts, words)


def likelihood(model: LlamaForCausalLM, ids: Tensor, words: Tensor, may_stop: Tensor) -> Tensor:
    """Return the log probability of given decisions, shape (B,)."""
    return opinion(model, ids, words, may_stop).log_probability()
