"""The synthetic data set `dna-demo`: windows of human or worm from Markov chains."""

from __future__ import annotations

import numpy.typing as npt

from core import DataSettings
from data.chains import NAME, client_pull, demo_split, pulled_split, stored_chains
from data.dataset import Dataset, Rows
from data.rows import Split


class _Demo:
    """Rows from the chains of `data.chains`; the numbers of rows are those of the settings."""

    uses = ("data.heterogeneity",)
    kind = "dna"
    synthetic = True
    has_sites = False

    def __call__(self, settings: DataSettings, seed: int) -> Dataset:
        """Generate the training rows, the server's validation rows and the test rows."""
        classes = stored_chains().classes

        def rows(split: str) -> Rows:
            made = demo_split(settings, seed, split)
            return made.texts, made.labels.tolist()

        train, test, validation = map(rows, ("train", "test", "validation"))
        return Dataset(train, test, validation, kind="dna", classes=classes, name=NAME)

    def site_rows(
        self, settings: DataSettings, seed: int, split: str, rows: npt.ArrayLike, client: int
    ) -> Split:
        """Return a client's rows of a split, from chains of its own where they are pulled."""
        pull = client_pull(settings, seed, client)
        return pulled_split(settings, seed, split, rows, pull)


DATASET = _Demo()
