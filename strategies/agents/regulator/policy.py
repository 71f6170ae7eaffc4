"""The regulator's model and weights, and its decisions as tokens drawn from it.

A causal transformer of about a million parameters: a Llama of 5 layers and hidden size 128 over
`VOCABULARY`. The shipped weights were trained by ``python -m training.regulator.train``; the file
holds command, seed and curve.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from core import ModelError
from llm.serialised import deserialise, read_serialised
from strategies.agents.regulator.encoding import (
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

WEIGHTS = Path(__file__).with_name("weights.json")
REMEDY = "reinstall the package, or make it again with `python -m training.regulator.train`"


def new_model() -> LlamaForCausalLM:
    """Return the architecture with fresh weights from torch's current generator, float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=5,
        num_attention_heads=4,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def load(path: Path = WEIGHTS) -> LlamaForCausalLM:
    """Return the trained model, float32, for evaluation.

    Raises
    ------
    core.ModelError
        If the file is missing or damaged.
    """
    state = deserialise(read_serialised(path, "the regulator", REMEDY), path, "the regulator")
    with torch.random.fork_rng(devices=[]):
        model = new_model()
    try:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]  # stored once
        model.load_state_dict(state)
    except (KeyError, RuntimeError):
        raise ModelError(
            f"the weights of the regulator in {path} are not those of this version's model",
            f"a vocabulary of {len(VOCABULARY)} words",
            REMEDY,
        ) from None
    model.tie_weights()
    return model.eval()


@dataclass(frozen=True)
class Choice:
    """Decisions of B federations of K clients.

    Attributes
    ----------
    tokens : Tensor of int64, shape (B, K + 1)
        ``go`` or ``stop``, then a token a client, in the order in which they were read.
    log_probability : Tensor, shape (B,)
        Of the tokens that count: after ``stop`` none do.
    """

    tokens: Tensor
    log_probability: Tensor

    @property
    def stop(self) -> npt.NDArray[np.bool_]:
        """Whether to stop, shape (B,)."""
        return np.asarray(self.tokens[:, 0].numpy() == STOP_ID)

    @property
    def levels(self) -> npt.NDArray[np.float64]:
        """Multiples of the plain steps, 0 for who sits out, shape (B, K)."""
        table = np.zeros(len(VOCABULARY))
        table[list(LEVEL_IDS)] = LEVELS
        return np.asarray(table[self.tokens[:, 1:].numpy()])


def tokens_of(
    stop: npt.NDArray[np.bool_], levels: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Return the tokens of decisions, the inverse of `Choice`; shape (B, K + 1)."""
    tokens = np.full((len(stop), levels.shape[1] + 1), SKIP_ID, dtype=np.int64)
    tokens[:, 0] = np.where(stop, STOP_ID, GO_ID)
    for token, level in zip(LEVEL_IDS, LEVELS, strict=True):
        tokens[:, 1:][levels == level] = token
    return tokens


def allowed(may_stop: Tensor, clients: int) -> Tensor:
    """Say which tokens may stand where.

    Parameters
    ----------
    may_stop : Tensor of bool, shape (B,)
        Whether ``stop`` is allowed.
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
    mask[:, 1:, [SKIP_ID, *LEVEL_IDS]] = True
    mask[:, 1, SKIP_ID] = False
    return mask


def compose(ids: Tensor, tokens: Tensor) -> Tensor:
    """Return whole texts: each token of a decision stands after what was read before it.

    Parameters
    ----------
    ids : Tensor of int64, shape (B, 8 + 7 K)
        What is read.
    tokens : Tensor of int64, shape (B, K + 1)
        The decision.

    Returns
    -------
    Tensor of int64, shape (B, 9 + 8 K)
    """
    size, clients = len(ids), tokens.shape[1] - 1
    about = ids[:, len(RUN) :].view(size, clients, len(CLIENT))
    answered = torch.cat([about, tokens[:, 1:, None]], dim=2).view(size, -1)
    return torch.cat([ids[:, : len(RUN)], tokens[:, :1], answered], dim=1)


@torch.no_grad()
def draw(
    model: LlamaForCausalLM,
    ids: Tensor,
    may_stop: Tensor,
    generator: torch.Generator | None = None,
) -> Choice:
    """Let the model decide, a token at a time.

    Parameters
    ----------
    model : LlamaForCausalLM
        The regulator.
    ids : Tensor of int64, shape (B, 8 + 7 K)
        What it reads.
    may_stop : Tensor of bool, shape (B,)
        Whether ``stop`` is allowed.
    generator : torch.Generator, optional
        Draws the tokens; without one the likeliest are taken.

    Returns
    -------
    Choice
    """
    if hasattr(model, "word_logits"):
        return _draw_at_once(model.word_logits(ids), may_stop, generator)
    clients = (ids.shape[1] - len(RUN)) // len(CLIENT)
    tokens = torch.full((len(ids), clients + 1), SKIP_ID, dtype=torch.int64)
    total, cache, given = torch.zeros(len(ids)), None, ids[:, : len(RUN)]
    shut = ~allowed(may_stop, clients)
    for place in range(clients + 1):
        out = model(input_ids=given, cache=cache, use_cache=True, logits_to_keep=1)
        cache = out.cache
        logits = out.logits[:, -1].float().masked_fill(shut[:, place], -torch.inf)
        scores = torch.log_softmax(logits, -1)
        if generator is None:
            token = scores.argmax(-1)
        else:
            token = torch.multinomial(scores.exp(), 1, generator=generator).squeeze(1)
        counts = torch.ones(len(ids)) if place == 0 else (tokens[:, 0] == GO_ID).float()
        tokens[:, place] = token
        total += counts * scores.gather(1, token.unsqueeze(1)).squeeze(1)
        begin = len(RUN) + place * len(CLIENT)
        given = torch.cat([token.unsqueeze(1), ids[:, begin : begin + len(CLIENT)]], dim=1)
    return Choice(tokens, total)


def _draw_at_once(logits: Tensor, may_stop: Tensor, generator: torch.Generator | None) -> Choice:
    """Draw every word from its own logits, shape (B, K + 1, V), or take the likeliest."""
    shut = ~allowed(may_stop, logits.shape[1] - 1)
    scores = torch.log_softmax(logits.masked_fill(shut, -torch.inf), -1)
    if generator is None:
        tokens = scores.argmax(-1)
    else:
        flat = torch.multinomial(scores.exp().flatten(0, 1), 1, generator=generator)
        tokens = flat.view(scores.shape[:2])
    counts = torch.ones(tokens.shape)
    counts[:, 1:] = (tokens[:, :1] == GO_ID).float()
    return Choice(tokens, (counts * scores.gather(2, tokens.unsqueeze(2)).squeeze(2)).sum(1))


@dataclass(frozen=True)
class TokenScores:
    """How likely a model finds the tokens at each place of B decisions.

    Attributes
    ----------
    scores : Tensor, shape (B, K + 1, V)
        Log probabilities; -inf where a token may not stand.
    counts : Tensor, shape (B, K + 1)
        1 where a place counts: after ``stop`` none does.
    tokens : Tensor of int64, shape (B, K + 1)
        The decisions.
    """

    scores: Tensor
    counts: Tensor
    tokens: Tensor

    def log_probability(self) -> Tensor:
        """Return that of the decisions, shape (B,)."""
        chosen = self.scores.gather(2, self.tokens.unsqueeze(2)).squeeze(2)
        return (self.counts * chosen).sum(1)

    def divergence(self, other: TokenScores) -> Tensor:
        """Return KL(this, other) summed over the places that count, nats, shape (B,)."""
        ours = self.scores.masked_fill(self.scores == -torch.inf, 0.0)
        theirs = other.scores.masked_fill(other.scores == -torch.inf, 0.0)
        return (self.counts * (self.scores.exp() * (ours - theirs)).sum(-1)).sum(1)


def token_scores(
    model: LlamaForCausalLM, ids: Tensor, tokens: Tensor, may_stop: Tensor
) -> TokenScores:
    """Return a model's scores of given decisions; arguments as of `draw` and `compose`."""
    if hasattr(model, "word_logits"):
        logits = model.word_logits(ids)
    else:
        text = compose(ids, tokens)[:, :-1]
        places = len(RUN) - 1 + torch.arange(tokens.shape[1]) * (len(CLIENT) + 1)
        logits = model(input_ids=text, use_cache=False, logits_to_keep=places).logits.float()
    shut = ~allowed(may_stop, tokens.shape[1] - 1)
    counts = torch.ones(tokens.shape)
    counts[:, 1:] = (tokens[:, :1] == GO_ID).float()
    return TokenScores(torch.log_softmax(logits.masked_fill(shut, -torch.inf), -1), counts, tokens)


def likelihood(model: LlamaForCausalLM, ids: Tensor, tokens: Tensor, may_stop: Tensor) -> Tensor:
    """Return the log probability of given decisions, shape (B,)."""
    return token_scores(model, ids, tokens, may_stop).log_probability()
