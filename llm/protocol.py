"""What a local model is, and what it can be built from.

Whatever can be fitted and then say how likely each class is may teach: a transformer, a regression
on word counts, a table of another model's answers. `llm.checked` calls it and checks what it
returns. Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from core import LlmSettings

Kind = Literal["text", "dna"]
Progress = Callable[[str], None]


def silent(_: str) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class ModelContext:
    """What a local model's constructor gets as ``context``, if it has such an argument.

    Attributes
    ----------
    name : str
        What `llm.model` says.
    kind : {"text", "dna"}
        What the rows are.
    class_names : tuple of str
        The classes in the order of their numbers; empty where they are not known yet.
    settings : LlmSettings
        The ``llm`` section, with the node's own.
    adapter : llm.FrozenAdapter or None
        The federation's shared adapter; for transformers only.
    store : Path or None
        The site's store.
    progress : callable
        Gets lines of the run's own progress.
    """

    name: str = "auto"
    kind: Kind = "text"
    class_names: tuple[str, ...] = ()
    settings: LlmSettings = field(default_factory=LlmSettings)
    adapter: Any = None
    store: Path | None = None
    progress: Progress = silent


class LocalModel(Protocol):
    """A local model: fitted on a site's rows, it gives soft labels.

    Besides these two methods a model may have

    - ``embed(rows)``: (rows, d) numbers. Before `fit` they are the features of the quantum model,
      and must be the same on every node; afterwards they are what `distill.features` compares.
    - ``logits(rows)``: (rows, C), unnormalised, used instead of `soft_labels`.
    - ``save(folder)``: writes what it has learned into its entry of the site's store.
    - ``cut(rows)``: how many rows are longer than it reads.
    - ``identity``: a text that changes when what it knows beforehand does.
    - ``uses``: the settings that it reads, for instance ``("llm.epochs",)``; others are refused.
    - ``learns = False``: it is not fitted, so folds and `llm.rows` mean nothing.
    """

    def fit(
        self,
        rows: Sequence[str],
        labels: np.ndarray,
        validation_rows: Sequence[str],
        validation_labels: np.ndarray,
        classes: int,
        seed: int,
    ) -> Mapping[str, Any] | None:
        """Learn from a site's training rows, afresh.

        Parameters
        ----------
        rows, validation_rows : sequence of str
            Texts or sequences; there may be no validation rows.
        labels, validation_labels : np.ndarray
            int64, (rows,), in [0, classes).
        classes : int
            Classes of the whole federation; a site need not hold all of them.
        seed : int
            Of everything that is drawn.

        Returns
        -------
        mapping or None
            Figures of the training: ``epochs``, ``best_epoch``, ``tokens``, ``trainable``,
            ``adapter_bytes``; what is left out is 0.
        """

    def soft_labels(self, rows: Sequence[str]) -> np.ndarray:
        """Return the probabilities of all classes, (rows, C); each row adds up to 1."""
