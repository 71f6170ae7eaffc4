"""Options given as text, ``key=value,key=value``: Flower's run config holds no tables."""

from __future__ import annotations

import contextlib
import math

from core.errors import SettingsError

Option = bool | int | float | str
"""What an option's value can be."""

FORM = "key=value,key=value without quotes"


def parse_options(setting: str, text: str) -> dict[str, Option]:
    """Read the options of an extension.

    Parameters
    ----------
    setting : str
        The setting's name, for errors.
    text : str
        ``key=value,key=value``; ``true`` and ``false`` are booleans, numbers are numbers,
        everything else is text. Empty: no options.

    Returns
    -------
    dict
        Keyword arguments; ``-`` in a key is ``_``.

    Raises
    ------
    SettingsError
        For text of another form, or a key given twice.
    """
    pairs = split_pairs(setting, text, FORM)
    return {key.replace("-", "_"): read_scalar(value) for key, value in pairs}


def split_pairs(setting: str, text: str, form: str) -> list[tuple[str, str]]:
    """Split ``key=value,key=value`` into pairs, blanks stripped.

    Parameters
    ----------
    setting : str
        The setting's name, for the error.
    text : str
        Its value.
    form : str
        What the setting accepts, for the error.

    Returns
    -------
    list of (str, str)
        In the order given; empty for an empty text.

    Raises
    ------
    SettingsError
        If a part is no ``key=value`` of a name and a plain value, or a key comes twice.
    """
    pairs: dict[str, str] = {}
    for part in text.split(",") if text.strip() else []:
        key, _, value = (word.strip() for word in part.partition("="))
        plain = key.replace("-", "_").isidentifier() and value and not set(value) & set("\"'=")
        if not plain or key in pairs:
            what = f"{key!r} twice" if plain else f"the part {part.strip()!r}"
            raise SettingsError(f"{setting} = {text!r} with {what}", form, f"correct {setting}")
        pairs[key] = value
    return list(pairs.items())


def read_scalar(text: str) -> Option:
    """Read ``true`` and ``false`` as booleans, finite numbers as numbers, the rest as text."""
    if text in ("true", "false"):
        return text == "true"
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError):
        if math.isfinite(number := float(text)):
            return number
    return text
