"""Circuits as jobs: Aer, fake and IBM backends.

The ansatz is traced once into a parametrised circuit, transpiled once per backend and kept on disk;
a step's points and rows go out as one job, whose id is written down before anybody waits for it.
This door imports light: opening an engine needs torch, the book of jobs does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantum.engines.base import Usage

if TYPE_CHECKING:
    from quantum.engines.devices.opening import check_device, open_engine


def __getattr__(name: str) -> Any:
    if name in ("check_device", "open_engine"):
        from quantum.engines.devices import opening

        return getattr(opening, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
