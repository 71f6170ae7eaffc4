"""SmolLM2 with adapters that says the regulator's words, all of them after one reading.

The observation is the regulator's (`strategies.agents.regulator.encoding`): the same numbers in the
same bins, a letter each, written as a small table. The words are read off where a line ends, so a
decision is one forward pass and no writing. Layers below `FIRST` are frozen and see the same text
whatever is learnt, so what they make of a text is computed once and kept.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from core import ModelError
from llm.sources import find_generator
from strategies.agents.regulator.encoding import CLIENT, LEVEL_IDS, RUN, SKIP_ID, VOCABULARY
from strategies.agents.regulator.policy import GO_ID, STOP_ID

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

FIRST, LAST = 8, 18
"""Of SmolLM2's 30 layers: the first that has adapters, and the first that is left out. Those below
are frozen; those above only prepare the next of 49,152 words."""

RANK = 8
KEPT = 30_000
"""Texts whose states are kept; one of ten clients takes 0.14 MB."""

WORDS = {
    GO_ID: " go",
    STOP_ID: " stop",
    SKIP_ID: " skip",
    **dict(zip(LEVEL_IDS, (" quarter", " half", " plain", " double", " four"), strict=True)),
}
"""The model's own word for each of the regulator's."""

HEADER = "Columns: cost speed own teacher credit record since"
NAMES = ("round", " left", " loss", " drop", " trend", " wait", " price", " idle")


class FrozenLayers:
    """The embedding and the lowest layers; a copy of a model shares them, and what they kept.

    Parameters
    ----------
    base : LlamaForCausalLM
        The pretrained model.
    tokenizer : PreTrainedTokenizerBase
        Its tokenizer.
    first : int
        How many layers.
    """

    def __init__(self, base: LlamaForCausalLM, tokenizer: Any, first: int) -> None:
        self.embed, self.rotary = base.model.embed_tokens, base.model.rotary_emb
        self.layers = base.model.layers[:first]
        self.letters = torch.tensor([_letter(word, tokenizer) for word in VOCABULARY])
        self.header = _ids(HEADER, tokenizer)
        self.names = torch.cat([_ids(name, tokenizer) for name in NAMES])
        self.clients = _ids(" clients", tokenizer)
        self.line, self.arrow = _ids("\n", tokenizer), _ids(" ->", tokenizer)
        self.kept: OrderedDict[bytes, Tensor] = OrderedDict()

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenLayers:
        """Return this very object."""
        return self

    def text(self, ids: Tensor) -> Tensor:
        """Return the tokens of observations, shape (B, T); arguments as of `Pretrained`."""
        size, letters = len(ids), self.letters[ids]
        width, clients = len(CLIENT), (ids.shape[1] - len(RUN)) // len(CLIENT)
        count = self.letters[[VOCABULARY.index("loss0") + min(clients, 20)]]

        def each(tokens: Tensor) -> Tensor:
            return tokens.expand(size, len(tokens))

        run = torch.stack([each(self.names), letters[:, : len(RUN)]], dim=2).view(size, -1)
        rows = letters[:, len(RUN) :].reshape(size * clients, width)
        ends = [tokens.expand(len(rows), 1) for tokens in (self.line, self.arrow)]
        table = torch.cat([ends[0], rows, ends[1]], dim=1).view(size, -1)
        head = [each(self.header), each(self.line), run, each(self.clients), each(count)]
        return torch.cat([*head, table, each(self.line), each(self.arrow)], dim=1)

    def places(self, clients: int) -> Tensor:
        """Return where the words stand: first that on the run, at the end, then the clients'."""
        head = len(self.header) + 1 + 2 * len(RUN) + 2
        width = len(CLIENT) + 2
        return torch.tensor(
            [head + width * clients + 1, *range(head + width - 1, head + width * clients, width)]
        )

    @torch.no_grad()
    def states(self, ids: Tensor) -> Tensor:
        """Return what the layers make of the texts, bfloat16, shape (B, T, D)."""
        keys = [row.numpy().tobytes() for row in ids]
        new = {key: place for place, key in enumerate(keys) if key not in self.kept}
        for part in torch.split(torch.tensor(list(new.values()), dtype=torch.int64), 32):
            if len(part):
                tokens = self.text(ids[part])
                states = through(self.layers, self.embed(tokens), self.rotary)
                for place, one in zip(part.tolist(), states, strict=True):
                    self.kept[keys[place]] = one.clone()
        found = torch.stack([self.kept[key] for key in keys])
        while len(self.kept) > KEPT:
            self.kept.popitem(last=False)
        return found


def through(layers: Any, states: Tensor, rotary: Any) -> Tensor:
    """Send states, shape (B, T, D), through layers; attention is causal."""
    turns = rotary(states, position_ids=torch.arange(states.shape[1])[None])
    for layer in layers:
        states = layer(states, attention_mask=None, position_embeddings=turns)
    return states


class Pretrained(nn.Module):
    """The adapted layers on frozen ones, and a word's row of the head for each word.

    Parameters
    ----------
    base : LlamaForCausalLM
        The pretrained model, bfloat16.
    tokenizer : PreTrainedTokenizerBase
        Its tokenizer.
    first, last : int
        Layers that get adapters; those from `last` on are left out.
    rank : int
        Of the adapters (LoRA).
    """

    def __init__(
        self,
        base: LlamaForCausalLM,
        tokenizer: PreTrainedTokenizerBase,
        first: int = FIRST,
        last: int = LAST,
        rank: int = RANK,
    ) -> None:
        super().__init__()
        from peft import LoraConfig, inject_adapter_in_model

        base.requires_grad_(False)
        self.frozen = FrozenLayers(base, tokenizer, first)
        names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        chosen = base.model.layers[first:last]
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names)
        self.layers = inject_adapter_in_model(config, chosen)
        self.norm = base.model.norm
        rows = [int(_ids(word, tokenizer)[0]) for word in WORDS.values()]
        self.head = nn.Parameter(0.05 * base.lm_head.weight[rows].float())
        self.words = torch.tensor(list(WORDS))

    def word_logits(self, ids: Tensor) -> Tensor:
        """Return the logits of every word, shape (B, K + 1, V), of observations (B, 8 + 7 K)."""
        clients = (ids.shape[1] - len(RUN)) // len(CLIENT)
        states = through(self.layers, self.frozen.states(ids), self.frozen.rotary)
        states = self.norm(states[:, self.frozen.places(clients)]).float()
        logits = torch.full((*states.shape[:2], len(VOCABULARY)), -torch.inf)
        logits[:, :, self.words] = states @ self.head.T
        return logits

    def learnt(self) -> dict[str, Tensor]:
        """Return what was trained, by name."""
        return {name: one for name, one in self.named_parameters() if one.requires_grad}


def _letter(word: str, tokenizer: Any) -> int:
    """Return the token of a bin: its number as a letter; a question mark for what is not known."""
    number = word.lstrip("abcdefghijklmnopqrstuvwxyz")
    if number.isdecimal():
        return int(_ids(f" {chr(ord('A') + int(number))}", tokenizer)[0])
    return int(_ids(" ?", tokenizer)[0])


def _ids(text: str, tokenizer: Any) -> Tensor:
    return torch.tensor(tokenizer.encode(text, add_special_tokens=False))


def load(folder: Path | str, **window: int) -> Pretrained:
    """Return a fresh model on the pretrained one in a folder; adapters begin at nothing."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    return Pretrained(base, AutoTokenizer.from_pretrained(folder), **window)


def smollm2_folder() -> Path:
    """Return the folder of the packaged SmolLM2, as transformers reads it.

    Raises
    ------
    core.ModelError
        If its package is not installed.
    """
    source = find_generator("smollm2", "agent.model", "the packaged model")
    return Path(source.loading["pretrained_model_name_or_path"])


def restore(model: Pretrained, adapter: Path) -> Pretrained:
    """Give a fresh model what `train` wrote."""
    from safetensors.torch import load_file

    arrays, learnt = load_file(adapter), model.learnt()
    if {name: one.shape for name, one in arrays.items()} != {k: v.shape for k, v in learnt.items()}:
        raise ModelError(
            f"{adapter} holds other arrays than this model's adapters",
            "a file that python -m training.smollm2.train wrote",
            "make it again",
        )
    with torch.no_grad():
        for name, one in learnt.items():
            one.copy_(arrays[name])
    return model.eval()
