"""What a loaded model is, read off the model itself: its config may name something else."""

from __future__ import annotations

import torch

UNLIMITED = 10**6
"""Tokens of a model that says no limit."""


def state_size(encoder: torch.nn.Module) -> int:
    """Return the size of an encoder's hidden states, from those of two tokens.

    Some project them after the last layer, as OPT may: ``hidden_size`` is then that of its inside.
    """
    device = next(encoder.parameters()).device
    tokens = torch.zeros(1, 2, dtype=torch.int64, device=device)
    with torch.no_grad():
        states = encoder(input_ids=tokens)
    return int(states.last_hidden_state.shape[-1])


def longest_input(module: torch.nn.Module) -> int:
    """Return how many tokens a model can read: its config's limit, and its table of positions.

    A config's limit of 0 or less means none (XLNet has -1). A table may hold fewer positions than
    rows: RoBERTa's and its relatives' begin after the padding id, OPT's after an offset.
    """
    config = module.config.get_text_config()  # type: ignore[union-attr, operator]
    limits = [int(getattr(config, "max_position_embeddings", None) or 0)]
    for name, part in module.named_modules():
        table = isinstance(part, torch.nn.Embedding) and "position" in name
        if table and "relative" not in name:
            padding = part.padding_idx
            skipped = getattr(part, "offset", 0) if padding is None else padding + 1
            limits.append(part.num_embeddings - int(skipped))
    return min((limit for limit in limits if limit > 0), default=UNLIMITED)
