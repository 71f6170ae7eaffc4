"""Run config as a TOML file: the only form in which Flower takes every string unharmed.

On its command line Flower splits `key=value` pairs with a regular expression that knows no
escapes, so a value holding both kinds of quotes cannot be written there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

Scalar = bool | int | float | str

_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
}


def to_toml(config: Mapping[str, Scalar]) -> str:
    """Write flat dotted keys and their values as TOML.

    Parameters
    ----------
    config : Mapping
        Dotted keys (``run.rounds``) of letters, digits, ``_`` and ``-``, and plain values.

    Returns
    -------
    str
        One line a key; any TOML parser returns the same values.

    Examples
    --------
    >>> print(to_toml({"run.rounds": 3, "run.name": "demo"}), end="")
    run.rounds = 3
    run.name = "demo"
    """
    return "".join(f"{key} = {_value(value)}\n" for key, value in config.items())


def _value(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{"".join(_letter(letter) for letter in value)}"'
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # inf, -inf, nan: TOML's own words
    return repr(value)


def _letter(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    if ord(letter) < 0x20 or ord(letter) == 0x7F:
        return f"\\u{ord(letter):04x}"
    return letter


def federation_config(clients: int, threads: int, cores: int) -> str:
    """Write Flower's federation config of a simulation.

    Parameters
    ----------
    clients : int
        Simulated nodes.
    threads : int
        Torch threads of a client, hence the cores that Ray keeps for it.
    cores : int
        Cores of the machine; asking for more would wait for ever.

    Returns
    -------
    str
        The value of ``flwr run --federation-config``.
    """
    share = max(1, min(threads, cores))
    return f"num-supernodes={clients} client-resources-num-cpus={share}"
