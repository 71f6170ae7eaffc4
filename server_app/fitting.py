"""The one projection, fitted on the moments that the sites send of their features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from logging import WARNING
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from flwr.common.logger import log

from core import DataError, Settings, derive_seed
from core.messages import Parameters, SiteReport
from strategies.row_weights import counted_rows

if TYPE_CHECKING:
    from data import Moments, Projection


@dataclass(frozen=True)
class MomentNotes:
    """Whose moments the projection does without.

    Attributes
    ----------
    left_out : dict
        By client, why: its moments are unlike those of most sites.
    withheld : dict
        By client, the classes whose moments it did not send, of fewer than ``privacy.min_rows``.
    """

    left_out: dict[int, str] = field(default_factory=dict)
    withheld: dict[int, list[int]] = field(default_factory=dict)

    def lines(self, reports: Sequence[SiteReport]) -> list[str]:
        """Say it in a line for each client."""
        left_out = [
            f"client {client}: its moments are left out of the projection: {why}"
            for client, why in self.left_out.items()
        ]
        rows = {about.client: about for about in reports}
        return left_out + [
            f"client {client}: classes {_named(rows[client], few)} have fewer than "
            "privacy.min_rows training rows there: it trains on them, and sends no moments of them"
            for client, few in self.withheld.items()
        ]


def _named(about: SiteReport, classes: Sequence[int]) -> str:
    return ", ".join(f"{about.classes[c]} ({about.class_rows[c]})" for c in classes)


def fit_on_moments(
    settings: Settings, reports: Sequence[SiteReport], sums: Sequence[Parameters]
) -> tuple[Projection, MomentNotes]:
    """Fit the projection on the clients' moments, without those that are unlike most.

    A site's moments weigh as much as the rows that it counts for (`counted_rows`).

    Parameters
    ----------
    settings : Settings
        The run's settings.
    reports : sequence of SiteReport
        The clients.
    sums : sequence of dict
        The moments of each, as they travel: ``count`` (C,), ``sums`` (C, d), ``second`` (d, d).

    Raises
    ------
    DataError
        If moments of too few classes are left, or do not fit together.
    """
    from data import (
        Moments,
        check_alike,
        fit_projection,
        implausible,
        merge_moments,
        outlying_sites,
        repaired_moments,
    )

    parts = [Moments(**arrays) for arrays in sums]
    check_alike(parts)
    privacy, features = settings.privacy, settings.features
    noise = privacy.moment_noise
    unlike = implausible(parts, noise, privacy.moment_clip) if noise else outlying_sites(parts)
    rows = {about.client: about.train_rows for about in reports}
    counted = counted_rows(rows, settings.aggregation.max_weight)
    merged = merge_moments(
        [
            part.scaled(counted[about.client] / max(1, about.train_rows))
            for k, (about, part) in enumerate(zip(reports, parts, strict=True))
            if k not in unlike
        ]
    )
    notes = MomentNotes(
        {reports[k].client: why for k, why in sorted(unlike.items())},
        {a.client: few for a, p in zip(reports, parts, strict=True) if (few := _withheld(a, p))},
    )
    for line in notes.lines(reports):
        log(WARNING, "%s", line)
    check_classes(settings, merged.count)
    projection = fit_projection(
        repaired_moments(merged) if noise else merged,
        settings.quantum.qubits,
        features.projection,
        features.shrinkage,
        features.clip,
        derive_seed(settings.run.seed, "projection"),
    )
    return projection, notes


def _withheld(about: SiteReport, sent: Moments) -> list[int]:
    return [c for c, rows in enumerate(about.class_rows) if rows and not sent.count[c]]


def check_classes(settings: Settings, count: npt.ArrayLike) -> None:
    """Refuse moments of too few classes: every site may have withheld its own.

    Parameters
    ----------
    settings : Settings
        The run's settings.
    count : array, shape (C,)
        Rows by class whose moments are sent, over all clients.

    Raises
    ------
    DataError
        If they are of fewer classes than the projection needs.
    """
    rows = np.asarray(count)
    held, wanted = int((rows > 0).sum()), 2 if settings.features.projection == "lda" else 1
    if held < wanted:
        raise DataError(
            f"moments of {held} of {len(rows)} classes over all clients",
            f"{wanted} for features.projection = {settings.features.projection}: a site sends "
            f"those of classes with privacy.min_rows = {settings.privacy.min_rows} rows or "
            "more",
            "add rows, or lower privacy.min_rows",
        )
