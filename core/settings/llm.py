"""The settings of the local language model and of distillation; a part of the whole tree."""

from __future__ import annotations

from typing import Literal

from core.settings.declare import Section, setting

DISTILLED = ("distill.weight", ">0")
SHARED = ("llm.federated", ("ffa", "fedavg"))
MODEL = ("llm.model", "!none")
ADAPTED = ("llm.peft", ("auto", "lora", "qlora"))


class DistillSettings(Section):
    """Distillation of the LLM into the quantum model."""

    weight: float = setting(0.3, "lambda: weight of the KL term, 0 turns it off.", ge=0, le=1)
    temperature: float = setting(
        2.0, "tau: softens both distributions in the KL term.", used_when=(DISTILLED,), gt=0
    )
    decay: float = setting(
        1.0,
        "lambda of round t is `distill.weight` times decay^(t - 1); 1: the same in every round.",
        used_when=(DISTILLED,),
        gt=0,
        le=1,
    )
    calibrate: bool = setting(
        True,
        "Fit the teacher's temperature on rows that it has not seen; its soft labels and L_LLM "
        "depend on it.",
    )
    folds: int = setting(
        0,
        "Cross-fitting: k models, each fine-tuned without one k-th of the training rows, which "
        "get their soft labels from it; 2 to 10, 0: one model, which labels its own training "
        "rows.",
        used_when=(DISTILLED,),
        ge=0,
        le=10,
    )
    features: float = setting(
        0.0,
        "Weight of similarity-preserving distillation: pairs of a step's rows that are alike to "
        "the teacher's hidden states shall be alike to the read-outs. The term is at most "
        "2 / rows.",
        ge=0,
    )

    def in_round(self, server_round: int) -> DistillSettings:
        """Return the settings of a round, from 1, with its own lambda."""
        weight = self.weight * self.decay ** (server_round - 1)
        return self.model_copy(update={"weight": weight})


class LlmSettings(Section):
    """The local language model."""

    model: str = setting(
        "auto",
        "`dna-tiny`, `minilm`, a local folder or a hub id; auto: dna-tiny for DNA, minilm for "
        "text, and fine-tuned only where something uses the outcome (distillation, the rule, a "
        "criterion, an agent that sees its loss); none: no language model. Each node its own "
        "teacher; embedding features need the same on every node.",
        per_node=True,
    )
    peft: Literal["auto", "lora", "qlora", "none"] = setting(
        "auto",
        "Fine-tune low-rank adapters and the head (lora), the same on a base of 4 bits (qlora), or "
        "all weights (none); auto: qlora on CUDA from a billion parameters on, else lora.",
        used_when=(MODEL,),
    )
    device: Literal["auto", "cpu", "cuda"] = setting(
        "auto",
        "Where it is fine-tuned and embeds; auto: CUDA where torch has it.",
        used_when=(MODEL,),
        per_node=True,
    )
    rank: int = setting(8, "LoRA rank r.", used_when=(MODEL, ADAPTED), ge=1)
    alpha: int = setting(16, "LoRA alpha.", used_when=(MODEL, ADAPTED), ge=1)
    dropout: float = setting(0.0, "LoRA dropout.", used_when=(MODEL, ADAPTED), ge=0, lt=1)
    targets: str = setting(
        "auto",
        "Adapted layers: auto (all linear layers of the encoder) or names, comma-separated "
        "(the paper's `q_proj,v_proj`).",
        listed=True,
        used_when=(MODEL, ADAPTED),
    )
    epochs: int = setting(3, "Most epochs of fine-tuning.", used_when=(MODEL,), ge=1)
    batch_size: int = setting(16, "Rows of a fine-tuning step.", used_when=(MODEL,), ge=1)
    learning_rate: float = setting(
        0.002,
        "Peak rate of the adapters; with `llm.peft = none` the encoder takes a tenth.",
        used_when=(MODEL,),
        gt=0,
    )
    head_learning_rate: float = setting(
        0.0,
        "Peak rate of the fresh class head; 0: the same as `llm.learning_rate`.",
        used_when=(MODEL,),
        ge=0,
    )
    patience: int = setting(
        1,
        "Epochs without a better validation loss before fine-tuning ends; 0: never.",
        used_when=(MODEL, ("llm.federated", ("none",))),
        ge=0,
    )
    rows: int = setting(
        0,
        "Most training rows of a site that the model is fine-tuned on, drawn stratified; soft "
        "labels are of all. 0: all.",
        used_when=(MODEL,),
        ge=0,
    )
    federated: Literal["none", "ffa", "fedavg"] = setting(
        "none",
        "Train one adapter together, before the quantum rounds: FFA-LoRA (A drawn from the seed "
        "and frozen, B and head averaged: exact), or FedAvg of A, B and head. none: each site "
        "its own.",
    )
    rounds: int = setting(
        4,
        "Rounds of averaging; `llm.epochs` passes are shared out among them. 1: the paper's.",
        used_when=(SHARED,),
        ge=1,
    )
    max_tokens: int = setting(
        0,
        "Longest input in tokens, the rest is cut; 0: 64 for text, 256 for DNA.",
        used_when=(MODEL,),
        ge=0,
    )
    reuse: bool = setting(
        True,
        "Take a fine-tuned model from the site's store where data and settings are the same.",
        used_when=(MODEL,),
    )
    store: str = setting(
        "",
        "Folder of a site's memory (adapters, soft labels, features); empty: the user's cache "
        "folder, or `LLM_QFL_HOME`.",
        per_node=True,
    )
