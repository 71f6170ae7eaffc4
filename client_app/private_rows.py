"""The noise that a site adds: to the gradients of its rows, or its part of a sum's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from core import Settings
from core.messages import TrainIns

if TYPE_CHECKING:
    from quantum import RowPrivacy


def site_deviation(settings: Settings, threshold: int) -> float:
    """Return the deviation of the noise that a site adds.

    Of a sum (``privacy.dp = "summed"``) it adds its part: any ``threshold`` sites together make the
    whole. As many must answer before a sum is opened, so those who were lost are not missed. Sites
    that tell the server their noise are: of t - c that do not, the deviation is
    ``sqrt((t - c) / t)`` of the whole (Truex et al., AISec 2019).

    Parameters
    ----------
    settings : Settings
        The node's.
    threshold : int
        Fewest members whose sum is opened (`core.secagg.Group`).

    Raises
    ------
    ValueError
        If the noise is of a sum, and there is no group: alone it would be too little.
    """
    privacy = settings.privacy
    whole = privacy.noise * privacy.clip
    if privacy.dp != "summed":
        return whole
    if threshold < 1:
        raise ValueError("privacy.dp = 'summed' without a group to sum in")
    return whole / math.sqrt(threshold)


def group_threshold(instruction: TrainIns) -> int:
    """Return the threshold of a round's group; 0 without one."""
    if not instruction.group:
        return 0
    from core.secagg import Group

    return Group.from_bytes(instruction.group).threshold


def row_privacy(settings: Settings, client: int, instruction: TrainIns) -> RowPrivacy | None:
    """Return how a round's gradients are clipped and noised; None where rows have no noise.

    Parameters
    ----------
    settings : Settings
        The node's.
    client : int
        Whose noise it is, where it is drawn from the run's seed.
    instruction : TrainIns
        The round, and its group.
    """
    privacy = settings.privacy
    if privacy.unit != "row":
        return None
    from core.privacy import noise_seed
    from quantum import RowPrivacy

    seed = noise_seed(settings, "rows", client, instruction.round)
    deviation = site_deviation(settings, group_threshold(instruction))
    return RowPrivacy(privacy.clip, deviation, seed)
