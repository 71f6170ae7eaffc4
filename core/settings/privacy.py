"""Settings of what protects a site's rows: noise, clipping, fewest rows."""

from __future__ import annotations

from typing import Literal

from core.settings.declare import Condition, Section, above, setting, when

DP = when("privacy.dp", "central", "local", "summed")
AT_SITE = when("privacy.dp", "local", "summed")
SECURE = when("privacy.secure_aggregation", True)


def _group(size: int) -> bool:
    return size == 0 or size >= 3


GROUP_SIZE = (Condition("privacy.group_size", _group, "0 (one group of all), or 3 and more"),)
"""Of two members each knows the other's update from the sum."""


class PrivacySettings(Section):
    """What protects a site's rows beyond that they never leave it. See docs/privacy.md."""

    dp: Literal["none", "central", "local", "summed"] = setting("none")
    """Differential privacy of updates: clipped and noised at the server; by each client, before
    they leave it; or by each client with its part of the noise of the sum that secure aggregation
    shows (`privacy.secure_aggregation`)."""
    unit: Literal["client", "row"] = setting("client", applies_when=AT_SITE)
    """Whose part is hidden: all that a client sends, clipped and noised as a whole; or one row of a
    site, each row's gradient clipped and their sum noised in every step of training (DP-SGD)."""
    clip: float = setting(1.0, applies_when=DP, gt=0)
    """Longest 2-norm of an update, radians; by rows, of a row's gradient."""
    noise: float = setting(1.0, applies_when=DP, gt=0)
    """Noise multiplier z: the noise's standard deviation is z times `privacy.clip`, on the sum of
    updates (central, summed) or on each (local); by rows on the sum of the site's (local) or of all
    sites' (summed) gradients."""
    delta: float = setting(1e-5, gt=0, lt=1)
    """Delta at which epsilon is reported."""
    max_epsilon: float = setting(0.0, applies_when=DP, ge=0)
    """The run ends before the round that would spend more than this epsilon at `privacy.delta`: of
    a client's updates, or by rows of a row's part in updates and noised moments; 0: no limit."""
    site_epsilon: float = setting(0.0, per_node=True, ge=0)
    """Most epsilon that a row of this site may spend over all runs, by the account in the site's
    store (`llm.store`), at `privacy.delta` or 1e-5 if that is less: the site refuses what would
    pass it, and runs without noise; 0: no limit."""
    seeded: bool = setting(False)
    """Draw the noise from `run.seed`, for experiments that are to be repeated: whoever knows the
    seed can take it off. Otherwise it comes from the system."""
    min_rows: int = setting(5, per_node=True, ge=0)
    """Fewest training rows of a class whose moments a site sends: those of one row are that row. A
    class with fewer is left out of the projection's fit, and trains all the same."""
    site_log: str = setting("", per_node=True, resumable=True)
    """File of a site's own that gets a line for each message that the site received and answered,
    as digests, to be held against the run's log (`llm-qfl audit --site`); empty: none."""
    moment_noise: float = setting(0.0, ge=0)
    """Noise multiplier on the moments of the features; 0: none."""
    moment_clip: float = setting(1.0, applies_when=above("privacy.moment_noise", 0), gt=0)
    """Longest 2-norm of a row's features in noisy moments; k-mer frequencies have at most 1."""
    moment_centre: Literal["zero", "random-letters"] = setting(
        "zero", applies_when=above("privacy.moment_noise", 0) + when("features.kind", "kmer")
    )
    """From where rows are shortened to `privacy.moment_clip` in noisy moments: from zero, or from
    the k-mer frequencies of random letters, to which rows are nearer: less noise then does."""
    secure_aggregation: bool = setting(False, per_node=True)
    """The server sees sums of updates and moments only: each site masks its own. A run does not
    start with a node that sets it otherwise. See docs/secure-aggregation.md."""
    threshold: float = setting(2 / 3, applies_when=SECURE, per_node=True, gt=0.5, le=1)
    """Share of a group's members (at least 3 of them) whose masked updates and answers must come
    for its sum to be opened; so many sites have to collude with a server that keeps to the protocol
    before they know a single update. A node that sets it takes part in no group with less."""
    group_size: int = setting(0, applies_when=SECURE, per_node=True, ge=0)
    """Fewest members of a group whose sum is opened, at least 3, regrouped every round: robust
    rules and credit then work on groups. 0: one group of all participants. A node that sets it
    takes part in no smaller one."""
    site_key: str = setting("", per_node=True, resumable=True)
    """The site's private key, by which the others know it in secure aggregation: a file of its
    machine (P-384, OpenSSH). Empty: one that its store makes. `llm-qfl deploy` sets it."""
    peers: str = setting("", per_node=True, resumable=True)
    """Folder of the other sites' public keys, `node-K.pub` for client K, which secure aggregation
    requires then. Empty: those that are seen first in a run. `llm-qfl deploy` sets it."""
