"""Raw features of rows, to be projected to the qubits: one kind of them, or several side by side.

Side by side a row's features are divided by the square root of the number of kinds, so that those
of DNA still have a norm of at most 1. How much each kind weighs is up to the projection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from core import AUTO, DataError, FeatureSettings, Settings, SettingsError, kind_names, kind_of
from core.formatting import split_list
from data.feature_kinds import Embed, Features, RowKind

MOST_BYTES = 2**29
"""Bytes of the second moments of a candidate beside the first one, of all sites together."""

FALLBACK = "embedding"
"""What `auto` takes where the rows have none of its candidates: any row can be embedded."""


def feature_kind(kind: RowKind, settings: FeatureSettings) -> str:
    """Return the features of a data set of this kind; where there is a choice, the first one.

    Parameters
    ----------
    kind : {"text", "dna"}
        What the rows are.
    settings : FeatureSettings
        Which features.

    Returns
    -------
    str
        The kind, or several, comma-separated in the order of their columns; one that a chosen
        `features.k` belongs to with that: ``kmer:5``.

    Raises
    ------
    SettingsError
        For features that such rows do not have.
    """
    return possible_kinds(kind, settings)[0]


def _checked(kind: RowKind, settings: FeatureSettings) -> str:
    """Return the features that are named; raises as `feature_kind`."""
    named = split_list(settings.kind)
    if any(kind not in kind_of(name).rows for name in named):
        fitting = [name for name in kind_names() if kind in kind_of(name).rows]
        raise SettingsError(
            f"features.kind = {settings.kind} with data of kind {kind}",
            f"{' or '.join(fitting)} or auto for {'texts' if kind == 'text' else 'DNA'}",
            "set features.kind = auto, or data.kind = dna if the rows are sequences",
        )
    return ",".join(named)


def possible_kinds(kind: RowKind, settings: FeatureSettings) -> tuple[str, ...]:
    """Return the features that there are to choose from, were there nothing private.

    First those that take sequences of any lengths. Parameters and errors as `feature_kind`.
    """
    if settings.kind != AUTO:
        named = [_checked(kind, settings)]
    elif settings.encoder == "shared":
        named = [FALLBACK]
    else:
        fitting = [name for name in split_list(settings.candidates) if kind in kind_of(name).rows]
        named = sorted(fitting, key=lambda name: kind_of(name).most_letters > 0) or [FALLBACK]
    return tuple(one for text in named for one in _variants(text, settings))


def _variants(text: str, settings: FeatureSettings) -> tuple[str, ...]:
    """Return features with each `features.k` that there is to choose from."""
    names = split_list(text)
    tried = next((kind_of(name).variants for name in names if kind_of(name).variants), ())
    if settings.k != AUTO or not tried:
        return (text,)
    return tuple(
        ",".join(f"{name}:{k}" if kind_of(name).variants else name for name in names) for k in tried
    )


def candidate_kinds(kind: RowKind, settings: Settings) -> tuple[str, ...]:
    """Return the features that a run chooses from; one where there is nothing to choose.

    With privacy settings there is not: each candidate's moments would be a release of its own.

    Parameters
    ----------
    kind : {"text", "dna"}
        What the rows are.
    settings : Settings
        The run's settings.
    """
    found = possible_kinds(kind, settings.features)
    return found[:1] if is_private(settings) else found


def is_private(settings: Settings) -> bool:
    """Whether what the sites send is noised."""
    return settings.privacy.dp != "none" or settings.privacy.moment_noise > 0


def embeds(kinds: Sequence[str]) -> bool:
    """Whether a language model makes one of these features."""
    return any(kind_of(name).embeds for text in kinds for name in split_list(text))


def needs_length(kinds: Sequence[str]) -> bool:
    """Whether one of these features takes sequences of one length only."""
    return any(kind_of(name).most_letters for text in kinds for name in split_list(text))


def unfit(kind: str, settings: Settings, length: int, rows: int) -> str:
    """Say why a run does not try a candidate beside the first one; empty: it does.

    From the moments of fewer rows than features the rows themselves might be found, and the
    server holds the moments of all sites at once.

    Parameters
    ----------
    kind : str
        The candidate.
    settings : Settings
        The run's settings.
    length : int
        Letters of each sequence; 0: they differ.
    rows : int
        Training rows of the site that has fewest.
    """
    parts = [kind_of(name) for name in split_list(kind)]
    if reason := next(filter(None, (part.unfit(length) for part in parts)), ""):
        return str(reason)
    features = with_kind(settings.features, kind)
    columns = sum(part.columns(features, length) for part in parts)
    if rows < columns:
        return f"is tried with {columns:,} training rows at every site"
    most = MOST_BYTES // (8 * columns**2) if columns else settings.run.clients
    return f"is tried with up to {most:,} clients" if settings.run.clients > most else ""


def columns_of(kind: str, settings: FeatureSettings, length: int) -> int:
    """Return how many features a kind has; 0 where only the features themselves say it.

    Parameters
    ----------
    kind : str
        One or several kinds, comma-separated.
    settings : FeatureSettings
        Which features.
    length : int
        Letters of each sequence; 0: they differ.
    """
    settings = with_kind(settings, kind)
    found = [kind_of(name).columns(settings, length) for name in split_list(kind)]
    return sum(found) if all(found) else 0


def with_kind(settings: FeatureSettings, chosen: str) -> FeatureSettings:
    """Return the settings with the features that were chosen; unchanged if none is named."""
    if not chosen:
        return settings
    parts = [name.partition(":") for name in split_list(chosen)]
    found: dict[str, object] = {"kind": ",".join(name for name, _, _ in parts)}
    for _, _, length in parts:
        if length:
            found["k"] = int(length)
    return settings.model_copy(update=found)


def raw_features(
    texts: Sequence[str], kind: RowKind, settings: FeatureSettings, embed: Embed
) -> Features:
    """Return the raw features of rows.

    Parameters
    ----------
    texts : sequence of str
        Rows.
    kind : {"text", "dna"}
        What they are.
    settings : FeatureSettings
        Which features.
    embed : callable
        The frozen base model's embedding; called only for embedding features.

    Returns
    -------
    array of float32, shape (rows, d)
        Features, those of several kinds side by side.

    Raises
    ------
    SettingsError
        As `feature_kind`.
    DataError
        If a kind cannot take the rows.
    """
    settings = with_kind(settings, feature_kind(kind, settings))
    named = split_list(settings.kind)
    parts = [kind_of(name).make(texts, settings, embed) for name in named]
    if len(parts) == 1:
        return np.asarray(parts[0])
    return np.asarray(np.hstack(parts) / np.float32(len(parts) ** 0.5))


def common_length(texts: Sequence[str]) -> int:
    """Return the letters of each text; 0 if they differ, or there is no text."""
    lengths = {len(text) for text in texts}
    return lengths.pop() if len(lengths) == 1 else 0


def check_lengths(chosen: str, lengths: Mapping[str, int]) -> None:
    """Refuse sequences of several lengths for features that take one.

    Parameters
    ----------
    chosen : str
        The features.
    lengths : mapping
        By holder, letters of its sequences; 0: of several lengths.
    """
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        held = [f"{holder}: {length or 'several'}" for holder, length in lengths.items()]
        raise DataError(
            f"sequences of different lengths with {chosen} features ({', '.join(held)} letters)",
            "aligned sequences of one length in all rows of all sites",
            "cut them to one length, or set features.kind=kmer",
        )


def block_columns(
    chosen: str, settings: FeatureSettings, length: int, columns: int
) -> tuple[int, ...]:
    """Return the number of features of each kind.

    Parameters
    ----------
    chosen : str
        The kinds, comma-separated.
    settings : FeatureSettings
        Which features.
    length : int
        Letters of a sequence, where all have one length.
    columns : int
        Features in all.

    Raises
    ------
    ValueError
        If they are not so many.
    """
    settings = with_kind(settings, chosen)
    known = [kind_of(name).columns(settings, length) for name in split_list(chosen)]
    rest = columns - sum(known)
    found = tuple(count or rest for count in known)
    if sum(found) != columns or min(found) < 1:
        raise ValueError(f"moments of {columns} features instead of {sum(known)} ({chosen})")
    return found
