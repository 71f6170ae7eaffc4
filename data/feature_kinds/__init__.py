"""Kinds of raw features, a module each: ``one_hot.py`` is ``one-hot``.

A module hands out ``KIND``, a `FeatureKind`: what it makes of rows, and what it needs.
`core.settings.features` finds the modules by their names.
"""

from data.feature_kinds._kind import Embed, FeatureKind, Features, RowKind

__all__ = ["Embed", "FeatureKind", "Features", "RowKind"]
