"""Circuits as jobs: Aer, fake and IBM backends.

The ansatz is traced once into a parametrised circuit, transpiled once per backend and kept on disk;
a step's points and rows go out as one job, whose id is written down before anybody waits for it.
"""

from __future__ import annotations

from quantum.devices.contract import Usage
from quantum.devices.opening import open_engine

__all__ = ["Usage", "open_engine"]
