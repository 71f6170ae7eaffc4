"""What differential privacy of single rows, of sums and of a site's own account requires."""

from __future__ import annotations

from core.settings.backends import SHOTS
from core.settings.declare import Conditions, above, when
from core.settings.privacy import AT_SITE, SECURE

ROW, SUMMED = when("privacy.unit", "row"), when("privacy.dp", "summed")
LIMITED = above("privacy.site_epsilon", 0)
CLIPPED = "each row's gradient is clipped"

REQUIREMENTS: tuple[tuple[Conditions, Conditions, str], ...] = (
    (ROW, when("train.batch_rows", 0), "all rows in every step; nothing is claimed for sampling"),
    (ROW, when("train.optimizer", "auto", "adam", "parameter-shift", "descent"), CLIPPED),
    (ROW + SHOTS, when("train.optimizer", "parameter-shift", "descent"), CLIPPED),
    (ROW, when("distill.weight", 0.0), "a row's soft labels are made of other rows"),
    (ROW, when("distill.features", 0.0), "pairs of rows are compared"),
    (ROW, when("llm.model", "none"), "a language model learns from the rows without noise"),
    (
        ROW + when("evaluation.mode", "federated") + when("evaluation.test", True),
        when("evaluation.baselines", False),
        "a site fits them to its rows without noise",
    ),
    (ROW, when("aggregation.weighting", "rows"), "a gradient's variance is of the rows themselves"),
    (SUMMED, when("aggregation.weighting", "rows"), "what weighs an update less weighs its noise"),
    (ROW + SUMMED, when("train.optimizer", "descent"), "Adam is not linear in its part of a sum"),
    (ROW + SUMMED, when("train.max_steps", 1), "a second step would follow the site's own noise"),
    (
        ROW + SUMMED,
        when("train.schedule", "constant", "plateau"),
        "a site whose rate is above the others' would hide behind too little noise",
    ),
    (
        ROW + SUMMED,
        when("train.warm_rounds", 0),
        "warm rounds train with Adam, which is not linear",
    ),
    (SUMMED, SECURE, "each site adds but its part of the noise: the server must see sums alone"),
    (LIMITED, AT_SITE, "the site's own noise is what it counts"),
    (LIMITED, above("privacy.moment_noise", 0), "moments without noise have no epsilon"),
)
"""As those of `core.settings.checks`."""
