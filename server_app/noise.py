"""Whether the sites' parts of a sum's noise (`privacy.dp = summed`, by rows) make the whole."""

from __future__ import annotations

from collections.abc import Sequence

from core import Settings, UserError
from core.secagg.group import MOST_TIMES
from strategies import Member, rows_that_count


def check_noise(members: Sequence[Member], settings: Settings) -> None:
    """Refuse sites of whose rows only a part counts: so would their noise, and epsilon be higher.

    A site's noise is that of its rows' gradients, so it is weighed as they are.

    Raises
    ------
    UserError
        With the first client whose weight is, or might be, cut.
    """
    if settings.privacy.dp != "summed" or settings.privacy.unit != "row":
        return
    counted = rows_that_count(members, "train_rows", settings)
    rows = {member.client: member.about.train_rows for member in members}
    for client, held in rows.items():
        if counted[client] < held:
            raise UserError(
                f"client {client} has {held:,} training rows, of which {counted[client]:,} count: "
                "privacy.dp = 'summed' makes noise for all of them",
                f"sites of at most aggregation.max_weight = {settings.aggregation.max_weight:g} "
                "times the median site's rows",
                "raise aggregation.max_weight, or set privacy.dp=local",
            )
    largest, fewest = max(rows, key=lambda k: rows[k]), min(rows.values())
    if rows[largest] > MOST_TIMES * fewest:
        raise UserError(
            f"client {largest} has {rows[largest]:,} training rows, another {fewest:,}: in a sum "
            "its weight might be cut, and privacy.dp = 'summed' makes noise for all of it",
            f"at most {MOST_TIMES:g} times as many",
            "start the run without the smallest site, or set privacy.dp=local",
        )
