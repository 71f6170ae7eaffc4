"""The one projection, fitted on the moments that the sites send of their features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
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


def fit_on_moments(
    settings: Settings,
    reports: Sequence[SiteReport],
    sums: Sequence[Parameters],
    kinds: str,
    shrinkage: float,
    qubits: int,
) -> tuple[Projection, tuple[int, ...], tuple[str, ...]]:
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
        Under secure aggregation only one, their sum.
    kinds : str
        The features that they are of, as `features.kind` names them.
    shrinkage : float
        Of the covariance within classes.
    qubits : int
        Directions wanted.

    Returns
    -------
    tuple
        The projection, the clients whose moments were left out, and a line for each of these and
        for each client that withheld moments.

    Raises
    ------
    DataError
        If moments of too few classes are left, or do not fit together.
    """
    from data import Moments, block_columns, check_alike, fit_projection, repaired_moments

    parts = [Moments(**arrays) for arrays in sums]
    check_alike(parts)
    noise, features = settings.privacy.moment_noise, settings.features
    unlike = unlike_sites(settings, parts)
    merged = merged_moments(settings, reports, parts, unlike)
    notes = () if settings.privacy.secure_aggregation else _notes(reports, parts, unlike)
    for line in notes:
        log(WARNING, "%s", line)
    check_classes(settings, merged.count)
    projection = fit_projection(
        repaired_moments(merged) if noise else merged,
        qubits,
        features.projection,
        shrinkage,
        features.clip,
        derive_seed(settings.run.seed, "projection"),
        block_columns(kinds, features, reports[0].length, len(merged.second)),
    )
    return replace(projection, kinds=kinds), tuple(sorted(reports[k].client for k in unlike)), notes


def unlike_sites(settings: Settings, parts: Sequence[Moments]) -> dict[int, str]:
    """Find moments that are unlike most sites', or that no rows have; the reason, by position.

    None under secure aggregation: the sum was looked at when it was opened.
    """
    from data import implausible, moment_centre, outlying_sites

    privacy = settings.privacy
    if privacy.secure_aggregation:
        return {}
    if privacy.moment_noise:
        back = [-moment_centre(privacy.moment_centre, len(one.second)) for one in parts]
        seen = [one.moved(centre) for one, centre in zip(parts, back, strict=True)]
        return implausible(seen, privacy.moment_noise, privacy.moment_clip)
    return outlying_sites(parts)


def merged_moments(
    settings: Settings,
    reports: Sequence[SiteReport],
    parts: Sequence[Moments],
    unlike: Mapping[int, str],
) -> Moments:
    """Add the moments up, each scaled to the rows that its site counts for.

    Under secure aggregation they come as their sum.
    """
    from data import merge_moments

    if settings.privacy.secure_aggregation:
        (total,) = parts
        return total
    rows = {about.client: about.train_rows for about in reports}
    counted = counted_rows(rows, settings.aggregation.max_weight)
    scaled = [
        part.scaled(counted[about.client] / max(1, about.train_rows))
        for about, part in zip(reports, parts, strict=True)
    ]
    return merge_moments([part for k, part in enumerate(scaled) if k not in unlike])


def _notes(
    reports: Sequence[SiteReport], parts: Sequence[Moments], unlike: Mapping[int, str]
) -> tuple[str, ...]:
    """Return a line for each client whose moments are left out or withheld in part."""
    lines = [
        f"client {reports[k].client}: its moments are left out of the projection: {why}"
        for k, why in sorted(unlike.items())
    ]
    for about, part in zip(reports, parts, strict=True):
        held = zip(about.classes, about.class_rows, part.count, strict=True)
        if few := [f"{name} ({rows})" for name, rows, sent in held if rows and not sent]:
            lines.append(
                f"client {about.client}: classes {', '.join(few)} have fewer than "
                "privacy.min_rows training rows there: it trains on them, and sends no moments "
                "of them"
            )
    return tuple(lines)


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
