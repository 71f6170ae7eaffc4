"""The whole federation as an estimator of scikit-learn: texts and labels in, a classifier out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from core import DataError

LETTERS = frozenset("ACGTUNacgtun")
SHORTEST = 8
"""Letters from which on rows of these letters only are taken for DNA, as a data set's are."""


class LlmQflClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Trains a quantum classifier among simulated sites, as `llm_qfl.run` does in this process.

    `fit` shares the rows among the sites. Each has validation rows of its own, which decide which
    round's model is kept; nothing else is held out: score it on rows of your own.

    Parameters
    ----------
    clients : int
        Sites that the rows are shared among.
    rounds : int
        Rounds of training.
    kind : {"auto", "text", "dna"}
        What a row is; auto: DNA where every row has its letters only.
    random_state : int
        The run's seed.
    settings : mapping, optional
        Further settings by key, for instance ``{"quantum.qubits": 6, "agent.kind": "bandit"}``.
    quiet : bool
        Whether to show no progress.

    Attributes
    ----------
    classes_ : ndarray, shape (C,)
        The labels, sorted.
    model_ : Model
        The trained model, to save, export or describe.

    Examples
    --------
    >>> LlmQflClassifier(clients=2).fit(texts, labels).predict(["a new text"])  # doctest: +SKIP
    """

    def __init__(
        self,
        clients: int = 3,
        rounds: int = 5,
        kind: str = "auto",
        random_state: int = 0,
        settings: Mapping[str, Any] | None = None,
        quiet: bool = True,
    ) -> None:
        self.clients = clients
        self.rounds = rounds
        self.kind = kind
        self.random_state = random_state
        self.settings = settings
        self.quiet = quiet

    def __sklearn_tags__(self) -> Any:
        """Say that it takes texts."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        tags.input_tags.one_d_array = True
        return tags

    def fit(self, X: Sequence[str], y: npt.ArrayLike) -> LlmQflClassifier:  # noqa: N803
        """Train on texts.

        Parameters
        ----------
        X : sequence of str
            Texts or DNA sequences.
        y : array, shape (rows,)
            Their labels: texts or whole numbers.

        Returns
        -------
        LlmQflClassifier
            Itself.

        Raises
        ------
        UserError
            If rows or settings cannot be used. One line.
        """
        from llm_qfl.model import load
        from llm_qfl.runs import run

        texts, labels = _rows(X), np.asarray(y)
        if labels.shape != (len(texts),):
            given = f"{len(texts)} rows with labels of shape {labels.shape}"
            raise DataError(given, "one label a row", "check X and y")
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError("labels of one class only", "two classes or more", "add rows")
        with TemporaryDirectory() as place:
            folder = str(Path(place) / "run")
            result = run(
                self._settings(folder), dataset=self._dataset(texts, numbers), quiet=self.quiet
            )
            self.model_ = load(result.folder)
            _ = self.model_.run  # read before the folder is gone
        return self

    def predict(self, X: Sequence[str]) -> npt.NDArray[Any]:  # noqa: N803
        """Return the most probable label of each row, shape (rows,)."""
        likely = self.predict_proba(X)
        return np.asarray(self.classes_[likely.argmax(axis=1)])

    def predict_proba(self, X: Sequence[str]) -> npt.NDArray[np.float64]:  # noqa: N803
        """Return each class's probability, shape (rows, C), in the order of ``classes_``."""
        check_is_fitted(self)
        return self.model_.predict_proba(_rows(X))

    def _settings(self, folder: str) -> dict[str, Any]:
        """Return the run's settings; those of the user win."""
        return {
            "run.clients": self.clients,
            "run.rounds": self.rounds,
            "run.seed": self.random_state,
            "run.folder": folder,
            "run.report": False,
            "evaluation.mode": "federated",
            "evaluation.baselines": False,
            **(self.settings or {}),
        }

    def _dataset(self, texts: tuple[str, ...], numbers: npt.NDArray[np.intp]) -> Any:
        """Return a function that hands out the rows; the test is on training rows, and unused."""
        from data import Dataset

        kind = self.kind
        if kind == "auto":
            letters = all(len(text) >= SHORTEST and LETTERS.issuperset(text) for text in texts)
            kind = "dna" if letters else "text"
        rows = texts, numbers.tolist()
        names = [str(name) for name in self.classes_]
        return lambda: Dataset(train=rows, test=rows, kind=kind, classes=names)  # type: ignore[arg-type]


def _rows(rows: Any) -> tuple[str, ...]:
    """Return rows as texts; a column of them, as scikit-learn's pipelines hand on, too.

    Raises
    ------
    DataError
        If they are no texts: scikit-learn's own arrays of numbers are not.
    """
    if isinstance(rows, str) or not hasattr(rows, "__len__"):
        raise DataError("X is no sequence of rows", "a sequence of texts", "put it into a list")
    given = np.asarray(rows, dtype=object)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim != 1 or not all(isinstance(text, str) for text in given):
        what = f"X of shape {given.shape} that holds no texts"
        raise DataError(what, "one text a row", "give the raw texts or sequences")
    return tuple(str(text) for text in given)
