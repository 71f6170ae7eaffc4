"""What is odd about the rows of a data set, though nothing can be refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core import display_safe
from data.rows import Split


@dataclass(frozen=True)
class Oddities:
    """Rows that make a result look better, or worth less, than it is.

    Attributes
    ----------
    rows : int
        Training rows, those that clients validate on among them.
    repeated : int
        Training rows whose text stood in an earlier row.
    contradictory : int
        Texts that stand in training rows of different labels.
    seen : ndarray of bool, shape (test rows,)
        Which test rows' texts stand in training rows too.
    untested : tuple of int
        Classes without a test row; none if there are no test rows at all.
    """

    rows: int
    repeated: int
    contradictory: int
    seen: npt.NDArray[np.bool_]
    untested: tuple[int, ...]

    def notes(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """Say it, a line each; nothing where nothing is odd."""
        lines = []
        if self.repeated:
            line = f"{self.repeated:,} of {self.rows:,} training rows repeat the text of another"
            if self.contradictory:
                line += f"; texts with different labels: {self.contradictory:,}"
            lines.append(line)
        if self.seen.any():
            lines.append(
                f"{int(self.seen.sum()):,} of {len(self.seen):,} test rows stand in the training "
                "rows too, so the test is easier than new rows would be"
            )
        if self.untested:
            named = ", ".join(display_safe(classes[label]) for label in self.untested)
            lines.append(f"no test row of the class {named}")
        return tuple(lines)


def find_oddities(train: Split, test: Split, classes: int) -> Oddities:
    """Look for repeated rows, test rows that were trained on, and classes without a test.

    Parameters
    ----------
    train, test : Split
        The rows; either may be empty.
    classes : int
        Number of classes.
    """
    texts = set(train.texts)
    pairs = set(zip(train.texts, train.labels.tolist(), strict=True))
    seen = np.fromiter((text in texts for text in test.texts), bool, len(test))
    present = set(test.labels.tolist()) or range(classes)
    return Oddities(
        rows=len(train),
        repeated=len(train) - len(texts),
        contradictory=len(pairs) - len(texts),
        seen=seen,
        untested=tuple(label for label in range(classes) if label not in present),
    )
