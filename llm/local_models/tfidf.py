"""`tfidf`: logistic regression on weighted word counts, the control of what a language model adds.

TF-IDF weights (Jones 1972) of words and pairs of words, or of the letters' k-mers of DNA; then
logistic regression, both scikit-learn's. What it teaches is what the rows' words alone say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from core import DataError, SettingsError
from llm.protocol import ModelContext

UNSEEN = 1e-6
"""Probability of a class that no training row has: the regression does not know of it."""


class TfIdf:
    """TF-IDF and logistic regression.

    Parameters
    ----------
    context : ModelContext or None
        Says whether rows are DNA: then k-mers of letters are counted, upper and lower case alike.
    shortest, longest : int
        Words (letters, of DNA) in a row that are counted together; 0: 1 to 2 words, or 3 to 6
        letters.
    c : float
        Inverse strength of the L2 penalty, above 0; scikit-learn's ``C``.
    rarest : int
        Rows that must have a word or k-mer for it to count; scikit-learn's ``min_df``.

    Raises
    ------
    core.SettingsError
        For values out of these bounds.
    """

    def __init__(
        self,
        context: ModelContext | None = None,
        shortest: int = 0,
        longest: int = 0,
        c: float = 1.0,
        rarest: int = 1,
    ) -> None:
        dna = context is not None and context.kind == "dna"
        low, high = (3, 6) if dna else (1, 2)
        numbers = all(isinstance(one, int) for one in (shortest, longest, rarest))
        low = shortest or low
        high = longest or (max(low, high) if numbers else high)
        if not (
            numbers and isinstance(c, int | float) and 1 <= low <= high and c > 0 and rarest > 0
        ):
            given = f"llm.options: shortest={low},longest={high},c={c},rarest={rarest}"
            accepted = "whole numbers 1 <= shortest <= longest, c above 0, rarest at least 1"
            raise SettingsError(given, accepted, "correct llm.options")
        self.counting = {"analyzer": "char" if dna else "word", "ngram_range": (low, high)}
        self.c, self.rarest = float(c), rarest
        self._parts: Any = None
        self._classes = 0
        self._fitted: tuple[tuple[str, ...], Any] = ((), None)

    def parts(self, classes: int, seed: int) -> Any:
        """Return scikit-learn's weights and regression for so many classes; of one a constant."""
        from sklearn.dummy import DummyClassifier
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        words = TfidfVectorizer(**self.counting, sublinear_tf=True, min_df=self.rarest)
        if classes < 2:
            return words, DummyClassifier()
        return words, LogisticRegression(C=self.c, max_iter=1000, random_state=seed)

    def fit(
        self,
        rows: Sequence[str],
        labels: np.ndarray,
        validation_rows: Sequence[str],
        validation_labels: np.ndarray,
        classes: int,
        seed: int,
    ) -> None:
        """Fit both parts to the training rows; validation rows are not needed.

        Raises
        ------
        core.DataError
            If the rows have no word.
        """
        self._classes, self._parts = classes, self.parts(len(np.unique(labels)), seed)
        words, regression = self._parts
        try:
            found = words.fit_transform(rows)
            regression.fit(found, labels)
            self._fitted = tuple(rows), found  # counting again takes longer than the regression
        except ValueError as error:
            given = f"{len(rows)} training rows for llm.model = tfidf ({error})"
            raise DataError(given, "rows with words", "lower rarest or shortest") from error

    def soft_labels(self, rows: Sequence[str]) -> np.ndarray:
        """Return probabilities, float64, (rows, C)."""
        words, regression = self._parts
        known, counted = self._fitted
        counted = counted if known == tuple(rows) else words.transform(rows)
        found = np.full((len(rows), self._classes), UNSEEN)
        found[:, regression.classes_] = regression.predict_proba(counted)
        return np.asarray(found / found.sum(axis=1, keepdims=True))


MODEL = TfIdf
