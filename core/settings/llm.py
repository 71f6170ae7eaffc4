"""Settings of the local language model and of its distillation."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field

from core import registry
from core.settings.declare import (
    AUTO,
    Auto,
    Condition,
    Conditions,
    Section,
    declares,
    setting,
    unless,
    used_by,
    when,
)

if TYPE_CHECKING:
    Share: TypeAlias = float  # what trains gets a number: `DistillSettings.in_round`
    Positive: TypeAlias = float
else:
    Share = Annotated[float, Field(ge=0, le=1)] | Auto
    Positive = Annotated[float, Field(gt=0)] | Auto

TAUGHT = ("kl", "permuted")
"""Kinds of distillation whose soft labels are a local model's."""
WEIGHTS = {"smoothing": 0.1}
"""lambda by kind where `distill.weight` is `auto` and nothing else is clearly better."""
WEIGHT, TEMPERATURE = 0.3, 2.0

DISTILLED = unless("distill.kind", "none") + unless("distill.weight", 0.0)
MODEL = unless("llm.model", "none")
LEARNS = MODEL + declares("model", "learns", "a model that is fitted", default=True)


def is_auto(value: object) -> bool:
    """Whether a setting of a number says that a site is to choose."""
    return value == AUTO


def reads(key: str) -> Conditions:
    """Require a language model that reads a setting."""
    return MODEL + used_by("model", key)


def adapted(key: str) -> Conditions:
    """Require low-rank adapters."""
    return reads(key) + when("llm.peft", "auto", "lora", "qlora")


ENCODERS = (
    # Of the files of a user's own only those travel that the extension points name.
    Condition(
        "llm.encoder",
        lambda name: name != "none" and not registry.OWN_FILE.fullmatch(name),
        "auto, a name, a hub id or a folder; an own file is named by llm.model",
    ),
)


def _embedding(key: str) -> Conditions:
    """Require a language model that reads a setting as teacher or to make the features."""
    (model,) = used_by("model", key)
    other = Condition("llm.encoder", lambda name: name != "auto", "a model's name")
    return (
        replace(
            model, holds=lambda name: name != "none" and bool(model.holds(name)), or_else=other
        ),
    )


class DistillSettings(Section):
    """Distillation of the LLM into the quantum model, and its controls."""

    kind: Literal["kl", "smoothing", "none", "prior", "permuted"] = setting(
        "kl",
        applies_when=unless("distill.weight", 0.0),
    )
    """Towards what: `kl`, the local model's soft labels; `smoothing`, equal shares of all classes,
    which is label smoothing; `none`, the labels alone. Two controls: `prior`, the site's shares of
    the classes for every row; `permuted`, soft labels of other rows of the same class."""
    weight: Share = setting(AUTO, applies_when=unless("distill.kind", "none"))
    """lambda: weight of the KL term, 0 turns it off. auto: each site chooses by the validation loss
    of a linear model that learns from the same rows; 0.3 (`smoothing`: 0.1) unless another is
    better by more than a standard error, which 0 often is."""
    temperature: Positive = setting(
        2.0,
        applies_when=when("distill.kind", "kl", "prior", "permuted")
        + unless("distill.weight", 0.0),
    )
    """tau: softens both distributions in the KL term; of `smoothing` it is 1. auto: chosen with the
    weight, 2 unless another is clearly better."""
    decay: float = setting(1.0, applies_when=DISTILLED, gt=0, le=1)
    """lambda of round t is that of the first times decay^(t - 1); 1: the same in every round."""
    calibrate: bool = setting(True)
    """Fit the teacher's temperature on rows that it has not seen; its soft labels and L_LLM depend
    on it."""
    folds: int = setting(
        0,
        applies_when=when("distill.kind", *TAUGHT) + unless("distill.weight", 0.0),
        ge=0,
        le=10,
    )
    """Cross-fitting: k models, each fine-tuned without one k-th of the training rows, which get
    their soft labels from it; 2 to 10, 0: one model, which labels its own training rows."""
    features: float = setting(0.0, ge=0)
    """Weight of similarity-preserving distillation: pairs of a step's rows that are alike to the
    teacher's hidden states shall be alike to the read-outs. The term is at most 2 / rows."""

    @property
    def active(self) -> bool:
        """Whether there is a KL term."""
        return self.kind != "none" and self.weight != 0

    @property
    def taught(self) -> bool:
        """Whether a local model is needed: its soft labels, or its hidden states."""
        return self.features > 0 or self.transfers

    @property
    def transfers(self) -> bool:
        """Whether rows without labels are of use: a teacher has soft labels of them."""
        return self.active and self.kind in TAUGHT

    @property
    def usual_weight(self) -> float:
        """Lambda, or with ``auto`` the one that is kept unless another is clearly better."""
        if not self.active:
            return 0.0
        return WEIGHTS.get(self.kind, WEIGHT) if is_auto(self.weight) else float(self.weight)

    @property
    def usual_temperature(self) -> float:
        """Tau, or with ``auto`` the one that is kept unless another is clearly better."""
        if self.kind == "smoothing":
            return 1.0
        return TEMPERATURE if is_auto(self.temperature) else float(self.temperature)

    def in_round(
        self, server_round: int, weight: float | None = None, temperature: float | None = None
    ) -> DistillSettings:
        """Return the settings of a round, from 1, with its own lambda and tau, both numbers.

        Parameters
        ----------
        server_round : int
            The round.
        weight, temperature : float, optional
            What a site has chosen; None: `usual_weight`, `usual_temperature`.
        """
        first = self.usual_weight if weight is None else weight
        tau = self.usual_temperature if temperature is None else temperature
        own = {"weight": first * self.decay ** (server_round - 1), "temperature": tau}
        return self.model_copy(update=own)


class LlmSettings(Section):
    """The local language model."""

    model: str = setting("auto", per_node=True, point="model")
    """The teacher: a language model by name, local folder or hub id; `tfidf`; `soft-labels`; or
    `module:attribute` of your own. auto: dna-tiny for DNA, minilm for text, and fine-tuned only
    where something uses the outcome (distillation, the rule, a criterion, an agent that sees its
    loss); none: no language model. Each node its own teacher."""
    options: str = setting(
        "",
        applies_when=declares(
            "model", "takes_options", "`soft-labels`, `tfidf` or your own", default=True
        ),
        per_node=True,
    )
    """Arguments of a local model that is no transformer: `key=value,key=value`."""
    encoder: str = setting(
        "auto",
        applies_when=unless("features.kind", "kmer") + when("llm.federated", "none"),
        per_node=True,
    )
    """The model whose embeddings are the features, the same on every node; auto: `llm.model`."""
    peft: Literal["auto", "lora", "qlora", "none"] = setting("auto", applies_when=reads("llm.peft"))
    """Fine-tune low-rank adapters and the head (lora), the same on a base of 4 bits (qlora), or all
    weights (none); auto: qlora on CUDA from a billion parameters on, else lora."""
    device: Literal["auto", "cpu", "cuda"] = setting(
        "auto", applies_when=_embedding("llm.device"), per_node=True
    )
    """Where it is fine-tuned and embeds; auto: CUDA where torch has it."""
    layers: int = setting(0, applies_when=_embedding("llm.layers"), ge=0)
    """First layers of a transformer that embeddings and teacher use; 0: all. Where `llm.encoder` is
    another model, those of the teacher alone. Middle layers of a decoder say more of a text than
    its last, and the rest costs nothing."""
    rank: int = setting(8, applies_when=adapted("llm.rank"), ge=1)
    """LoRA rank r."""
    alpha: int = setting(16, applies_when=adapted("llm.alpha"), ge=1)
    """LoRA alpha."""
    dropout: float = setting(0.0, applies_when=adapted("llm.dropout"), ge=0, lt=1)
    """LoRA dropout."""
    targets: str = setting("auto", applies_when=adapted("llm.targets"), listed=True)
    """Adapted layers: auto (all linear layers of the encoder) or names, comma-separated (the
    paper's `q_proj,v_proj`)."""
    epochs: int = setting(3, applies_when=reads("llm.epochs"), ge=1)
    """Most epochs of fine-tuning."""
    batch_size: int = setting(16, applies_when=reads("llm.batch_size"), ge=1)
    """Rows of a fine-tuning step."""
    learning_rate: float = setting(0.002, applies_when=reads("llm.learning_rate"), gt=0)
    """Peak rate of the adapters; with `llm.peft = none` the encoder takes a tenth."""
    head_learning_rate: float = setting(0.0, applies_when=reads("llm.head_learning_rate"), ge=0)
    """Peak rate of the fresh class head; 0: the same as `llm.learning_rate`."""
    patience: int = setting(
        1, applies_when=reads("llm.patience") + when("llm.federated", "none"), ge=0
    )
    """Epochs without a better validation loss before fine-tuning ends; 0: never."""
    rows: int = setting(0, applies_when=LEARNS, ge=0)
    """Most training rows of a site that the model is fine-tuned on, drawn stratified; soft labels
    are of all. 0: all."""
    federated: Literal["none", "ffa", "fedavg"] = setting(
        "none", applies_when=used_by("model", "llm.federated")
    )
    """Train one adapter together, before the quantum rounds: FFA-LoRA (A drawn from the seed and
    frozen, B and head averaged: exact), or FedAvg of A, B and head. none: each site its own."""
    rounds: int = setting(4, applies_when=when("llm.federated", "ffa", "fedavg"), ge=1)
    """Rounds of averaging; `llm.epochs` passes are shared out among them. 1: the paper's."""
    max_tokens: int = setting(0, applies_when=_embedding("llm.max_tokens"), ge=0)
    """Longest input in tokens, the rest is cut; 0: 64 for text, 256 for DNA."""
    reuse: bool = setting(True, applies_when=MODEL)
    """Take a fine-tuned model from the site's store where data and settings are the same."""
    store: str = setting("", per_node=True, resumable=True)
    """Folder of a site's store (adapters, soft labels, features); empty: the user's cache folder,
    or `LLM_QFL_HOME`."""

    @property
    def encoder_layers(self) -> int:
        """`layers` of the model that embeds: none where another `model` reads them."""
        alone = self.encoder in ("auto", self.model) or self.model == "none"
        uses = () if alone else registry.declared("model", self.model, "uses", ())
        return 0 if "llm.layers" in uses else self.layers
