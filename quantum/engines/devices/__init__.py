"""Circuits as jobs: Aer, fake and IBM backends.

The ansatz is traced once into a parametrised circuit, transpiled once per backend and cached on
disk. A step's points and rows go out as one job, whose id is recorded before anybody waits for it.
This door imports light: opening an engine needs torch, the job store does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.doors import lazy_door

if TYPE_CHECKING:
    from quantum.engines.devices.backends import check_device
    from quantum.engines.devices.engine import open_engine

__getattr__ = lazy_door(
    __name__,
    {
        "quantum.engines.devices.backends": "check_device",
        "quantum.engines.devices.engine": "open_engine",
    },
)
