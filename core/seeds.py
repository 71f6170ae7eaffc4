"""Every random choice derives from the run's one seed and what the choice is for."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a seed for one purpose, for instance ``derive_seed(0, "train", client, round)``.

    Parameters
    ----------
    seed : int
        The run's seed.
    *purpose : str or int
        What the numbers are for; different purposes give independent streams.

    Returns
    -------
    int
        In [0, 2**31).
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 2**31
