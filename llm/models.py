"""Load a language model: the frozen base for embeddings, or a classifier to fine-tune."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from core import ModelError
from llm import dna_tiny
from llm.batches import KmerTokenizer, Tokens, tokenise
from llm.device import quiet
from llm.encoders import UNLIMITED, PooledClassifier, longest_input, state_size
from llm.protocol import Kind
from llm.sources import Source, check_tokenizer, loading, resolve

DEFAULT_TOKENS = {"text": 64, "dna": 256}
HEADS = ("classifier",)
"""Modules of a classifier that are trained in full."""


@dataclass(frozen=True)
class Model:
    """A loaded language model with its tokenizer.

    Attributes
    ----------
    source : Source
        Where it came from.
    module : torch.nn.Module
        The encoder (`load_base`) or the classifier (`build_classifier`), float32 but for layers
        that were quantised, in eval mode.
    tokenizer : KmerTokenizer or a transformers tokenizer
        Its own.
    hidden : int
        Size of a hidden state.
    limit : int
        Longest input in tokens that the model can read.
    heads : tuple of str
        Modules of a classifier that are trained in full; empty for a base.
    """

    source: Source
    module: torch.nn.Module
    tokenizer: Any
    hidden: int
    limit: int
    heads: tuple[str, ...] = ()

    @property
    def encoder(self) -> torch.nn.Module:
        """What a classifier's head reads; peft adapts it in place."""
        if isinstance(self.module, PooledClassifier):
            return self.module.encoder
        base: Any = self.module.base_model
        return cast(torch.nn.Module, base)

    def tokens(self, texts: Sequence[str], kind: Kind, max_tokens: int = 0) -> Tokens:
        """Tokenise rows; `max_tokens` 0 is 64 for text and 256 for DNA.

        Raises
        ------
        core.ModelError
            If `max_tokens` is more than the model can read.
        """
        if max_tokens > self.limit:
            raise ModelError(
                f"llm.max_tokens {max_tokens} is more than {self.source.name} can read",
                f"at most {self.limit}",
                "lower it, or choose another model",
            )
        longest = max_tokens or min(DEFAULT_TOKENS[kind], self.limit)
        return tokenise(texts, self.tokenizer, longest, kind == "dna")


def load_base(model: str, kind: Kind, layers: int = 0) -> Model:
    """Load a frozen base model, without any head.

    Parameters
    ----------
    model, kind, layers : str, {"text", "dna"} and int
        As for `llm.sources.resolve`.

    Returns
    -------
    Model
        No parameter requires a gradient.

    Raises
    ------
    core.ModelError
        If the model is missing, gated, corrupt or unsuitable.
    """
    base = _load_encoder(resolve(model, kind, layers=layers))
    base.module.requires_grad_(False)
    return base


def build_classifier(
    source: Source, classes: int, quantise_on: torch.device | None = None
) -> Model:
    """Load a model with a fresh class head, from torch's current generator.

    The head reads the mean-pooled last hidden states, which does better at few rows than those
    that transformers gives (on the first token of BERT's family, on the last of decoders).

    Parameters
    ----------
    source : Source
        Which model.
    classes : int
        Outputs of the head.
    quantise_on : torch.device or None
        Load the linear layers but the head in 4 bits, to this device; None: float32, to the CPU.

    Returns
    -------
    Model
        A classifier whose output has ``logits`` (rows, classes); every parameter is trainable
        but those in 4 bits.

    Raises
    ------
    core.ModelError
        If the model is corrupt, cannot classify, or cannot be quantised.
    """
    base = _load_encoder(source, quantise_on)
    return replace(base, module=PooledClassifier(base.module, base.hidden, classes), heads=HEADS)


def count_parameters(source: Source) -> int:
    """Return how many parameters a model has, from its config; no weight is read or made.

    Raises
    ------
    core.ModelError
        If the config is missing or unsuitable.
    """
    return sum(p.numel() for p in _empty_base(source).parameters())


def empty_classifier(source: Source, classes: int) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """Return a classifier as `build_classifier` makes it, without memory behind it, and its heads.

    No weight is read: it serves to count what would be trained.

    Raises
    ------
    core.ModelError
        If the config is missing or unsuitable.
    """
    base = _empty_base(source)
    config = base.config.get_text_config()
    # Some models do not run without memory; OPT may project its last states.
    hidden = getattr(config, "word_embed_proj_dim", None) or config.hidden_size
    with torch.device("meta"):
        return PooledClassifier(base, int(hidden), classes), HEADS


def _empty_base(source: Source) -> Any:
    """Return a base model without memory behind it, float32, unlike any checkpoint's."""
    from transformers import AutoModel

    if source.packaged:
        with torch.device("meta"):
            return dna_tiny.new_model()
    config = _config(source)
    with loading(source), torch.device("meta"):
        return AutoModel.from_config(config, trust_remote_code=False)


def _load_encoder(source: Source, quantise_on: torch.device | None = None) -> Model:
    quiet()
    if source.packaged:
        if quantise_on is not None:
            given = "llm.peft qlora with llm.model dna-tiny, whose weights take 1.7 MB as they are"
            raise ModelError(given, "auto, lora or none", "set llm.peft=auto")
        encoder = dna_tiny.load().eval()
        limit = int(encoder.config.max_position_embeddings)
        return Model(source, encoder, KmerTokenizer(), dna_tiny.HIDDEN, limit)
    from transformers import AutoModel

    config, more = _config(source), {}
    if quantise_on is not None:
        from llm.quantised import loading_arguments

        more = loading_arguments(quantise_on)
    with loading(source), torch.random.fork_rng(devices=[]):
        module, info = AutoModel.from_pretrained(
            **source.loading_weights,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            **more,
        )
    missing = sorted(info["missing_keys"])
    _refuse_missing(source, [key for key in missing if not key.startswith("pooler.")])
    return _finish(source, module, config)


def _finish(source: Source, module: Any, config: Any) -> Model:
    tokenizer = _tokenizer(source)
    size = int(config.get_text_config().vocab_size)
    if len(tokenizer) > size and max(tokenizer.get_vocab().values(), default=0) >= size:
        raise ModelError(
            f"the tokenizer of llm.model {source.name} knows {len(tokenizer)} tokens and the "
            f"model only {size}",
            "a tokenizer saved with its model",
            "put the model's own tokenizer into the folder",
        )
    module.config.pad_token_id = tokenizer.pad_token_id
    if getattr(module, "is_loaded_in_4bit", False):
        from llm.quantised import keep_autograd

        keep_autograd(module)
    module.eval()
    limit = min(longest_input(module), int(min(tokenizer.model_max_length, UNLIMITED)))
    model = Model(source, module, tokenizer, 0, limit)
    with loading(source):
        return replace(model, hidden=state_size(model.encoder))


def _config(source: Source) -> Any:
    quiet()
    from transformers import AutoConfig

    with loading(source):
        config = AutoConfig.from_pretrained(**source.loading)
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"llm.model {source.name} is an encoder-decoder ({config.model_type})",
            "an encoder such as BERT, or a decoder such as GPT-2, Llama or Qwen",
            "choose another model",
        )
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(
            f"the weights of llm.model {source.name} are quantised already",
            "the model's own weights; embeddings are of the unquantised base",
            "choose the unquantised model; llm.peft=qlora makes 4 bits of it while loading",
        )
    if source.layers:
        _keep_layers(config.get_text_config(), source)
    return config


def _keep_layers(config: Any, source: Source) -> None:
    """Let a config be that of a model of the first layers only."""
    if source.layers > config.num_hidden_layers:
        raise ModelError(
            f"llm.layers {source.layers} with llm.model {source.name} of "
            f"{config.num_hidden_layers} layers",
            f"1 to {config.num_hidden_layers}, or 0 for all",
            "lower it",
        )
    config.num_hidden_layers = source.layers
    if getattr(config, "layer_types", None):  # a kind of attention each
        config.layer_types = config.layer_types[: source.layers]


def _tokenizer(source: Source) -> Any:
    from transformers import AutoTokenizer

    with loading(source):
        tokenizer = AutoTokenizer.from_pretrained(**source.loading)
    if source.folder is not None:
        check_tokenizer(source.name, Path(source.folder))
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    if tokenizer.pad_token_id is None:
        spare = tokenizer.eos_token or tokenizer.unk_token or tokenizer.bos_token
        if spare is None:
            raise ModelError(
                f"the tokenizer of llm.model {source.name} has no padding, end or unknown token",
                "a tokenizer with one of them",
                "set pad_token in its tokenizer_config.json",
            )
        tokenizer.pad_token = spare
    return tokenizer


def _refuse_missing(source: Source, keys: list[str]) -> None:
    # transformers fills missing weights with random numbers and goes on.
    if keys:
        raise ModelError(
            f"the weights of llm.model {source.name} are incomplete: {len(keys)} are missing, "
            f"the first is {keys[0]}",
            "the whole checkpoint",
            "save or download the model again",
        )
