"""Run config as a TOML file: the only form in which Flower takes every string unharmed.

On its command line Flower splits `key=value` pairs with a regular expression that knows no
escapes, so a value holding both kinds of quotes cannot be written there.
"""

from __future__ import annotations

from collections.abc import Mapping

from core import toml_value

Scalar = bool | int | float | str


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
    return "".join(f"{key} = {toml_value(value)}\n" for key, value in config.items())


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
