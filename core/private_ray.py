"""Ray as Flower's simulation starts it: on loopback, and for whoever holds the run's token."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

from core.flower_compat import SIMULATION_PROGRAM


def private_ray() -> dict[str, str]:
    """Return the environment that closes one run's Ray to other users and machines.

    By itself Ray listens on every interface, and whoever reaches a port may run code as the user
    who started it. The token is fresh for each call; Ray hands it on by the environment alone.

    Returns
    -------
    dict
        Must be set before a process imports ray.
    """
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # Despite its name it also says on Linux whether Ray serves other machines.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


def close_ray() -> None:
    """Close the Ray that plain `flwr run` is about to start in this process.

    Flower 1.41 loads the ClientApp before it imports ray. A cluster of the user's own
    (``RAY_ADDRESS``) and a token that he chose (``RAY_AUTH_MODE=token``) are left alone.
    """
    starts_ray = Path(sys.argv[0]).stem == SIMULATION_PROGRAM and "RAY_ADDRESS" not in os.environ
    if starts_ray and os.environ.get("RAY_AUTH_MODE") != "token":
        os.environ.update(private_ray())
