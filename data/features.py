"""Raw features of rows, to be projected to the qubits: one kind of them, or several side by side.

Side by side a row's features are divided by the square root of the number of kinds, so that those
of DNA still have a norm of at most 1. How much each kind weighs is up to the projection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from core import DataError, FeatureSettings, Settings, SettingsError, kind_names, kind_of
from core.formatting import split_list
from data.feature_kinds import Embed, Features, RowKind

FALLBACK = "embedding"
"""What `auto` takes where the rows have none of its candidates: any row can be embedded."""


def feature_kind(kind: RowKind, settings: FeatureSettings) -> str:
    """Return the features of a data set of this kind; of `auto` the first candidate.

    Parameters
    ----------
    kind : {"text", "dna"}
        What the rows are.
    settings : FeatureSettings
        Which features.

    Returns
    -------
    str
        The kind, or several, comma-separated in the order of their columns.

    Raises
    ------
    SettingsError
        For features that such rows do not have.
    """
    if settings.kind == "auto":
        return possible_kinds(kind, settings)[0]
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
    if settings.kind != "auto":
        return (feature_kind(kind, settings),)
    if settings.encoder == "shared":
        return (FALLBACK,)
    named = [name for name in split_list(settings.candidates) if kind in kind_of(name).rows]
    return tuple(sorted(named, key=lambda name: kind_of(name).most_letters > 0)) or (FALLBACK,)


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


def unfit(kind: str, length: int, rows: int) -> str:
    """Say why a run does not try a candidate (`FeatureKind.unfit`); empty: it does."""
    return str(kind_of(kind).unfit(length, rows))


def with_kind(settings: FeatureSettings, chosen: str) -> FeatureSettings:
    """Return the settings with the features that were chosen; unchanged if none is named."""
    return settings.model_copy(update={"kind": chosen}) if chosen else settings


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
    named = split_list(feature_kind(kind, settings))
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
    known = [kind_of(name).columns(settings, length) for name in split_list(chosen)]
    rest = columns - sum(known)
    found = tuple(count or rest for count in known)
    if sum(found) != columns or min(found) < 1:
        raise ValueError(f"moments of {columns} features instead of {sum(known)} ({chosen})")
    return found
