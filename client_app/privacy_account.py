"""What a site writes into its account of epsilon, before noised numbers leave it."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from core import Settings, open_store

if TYPE_CHECKING:
    from client_app.site import SiteCache
    from core.site_ledger import Release


def moment_releases(settings: Settings) -> list[Release]:
    """Return what a site tells of a row by its noised moments; nothing where they have no noise."""
    from core.accounting import moment_multipliers
    from core.site_ledger import Release

    found = moment_multipliers(settings.privacy.moment_noise)
    return [Release("moments", multiplier, count) for multiplier, count in found.items()]


def update_releases(settings: Settings, steps: int) -> list[Release]:
    """Return what a site tells of a row in a round of so many steps, where it adds the noise.

    A row that is replaced may turn the update into any other, twice the clipping away; by rows it
    moves each step's sum of gradients by as much.
    """
    from core.site_ledger import Release

    privacy = settings.privacy
    if privacy.dp not in ("local", "summed"):
        return []
    return [Release("updates", privacy.noise / 2, steps if privacy.unit == "row" else 1)]


def charge_moments(cache: SiteCache) -> None:
    """Charge the moments that are about to leave; raises as `check_first_step`."""
    check_first_step(cache)
    if releases := moment_releases(cache.settings):
        _charge(cache, releases)


def check_first_step(cache: SiteCache) -> None:
    """Refuse a run whose first step is not left.

    Raises
    ------
    BudgetError
        If the moments, and a step after them, would pass `privacy.site_epsilon`.
    """
    from core.site_ledger import over, spent_by_rows

    privacy, releases = cache.settings.privacy, moment_releases(cache.settings)
    if releases and privacy.site_epsilon:
        first = update_releases(cache.settings, 1)
        after = spent_by_rows(*_account(cache), [*releases, *first], privacy.delta)
        if after > privacy.site_epsilon:
            raise over(after, privacy.site_epsilon)


def charge_update(cache: SiteCache, steps: int) -> None:
    """Charge a round's update before it is trained.

    Raises
    ------
    BudgetError
        If it would pass `privacy.site_epsilon`: the site sits out.
    """
    if releases := update_releases(cache.settings, steps):
        _charge(cache, releases)


def _charge(cache: SiteCache, releases: list[Release]) -> None:
    from core.site_ledger import charge

    privacy, (path, rows) = cache.settings.privacy, _account(cache)
    limit, delta = privacy.site_epsilon, privacy.delta
    charge(path, cache.run, releases, limit=limit, delta=delta, rows=rows)


def _account(cache: SiteCache) -> tuple[Path, frozenset[str]]:
    """Return the file of the site's account, and the digests of its rows."""
    from core.site_ledger import account_file, row_digests, rows_key

    parts = cache.site.train, cache.site.validation  # split anew by each run's seed
    rows = row_digests(chain.from_iterable(part.texts for part in parts))
    return account_file(open_store(cache.settings.llm.store), cache.client, rows_key(rows)), rows
