"""Training that hides single rows: what a site's settings request of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core import Settings

if TYPE_CHECKING:
    from quantum import RowPrivacy


def row_privacy(settings: Settings, client: int, server_round: int) -> RowPrivacy | None:
    """Return how a round's gradients are clipped and noised; None where rows have no noise.

    Parameters
    ----------
    settings : Settings
        The node's.
    client, server_round : int
        Whose noise it is, where it is drawn from the run's seed.
    """
    privacy = settings.privacy
    if privacy.unit != "row":
        return None
    from core.privacy import noise_seed
    from quantum import RowPrivacy

    seed = noise_seed(settings, "rows", client, server_round)
    return RowPrivacy(privacy.clip, privacy.noise * privacy.clip, seed)
