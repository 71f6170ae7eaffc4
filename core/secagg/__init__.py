"""Secure aggregation: the server opens a group's sum and no member's update.

Pure: it knows neither Flower nor the models. Needs `cryptography`, so it is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.doors import lazy_door

if TYPE_CHECKING:
    from core.secagg.errors import SecAggError
    from core.secagg.fixed_point import FRACTION_BITS, RANGE
    from core.secagg.group import (
        Group,
        Member,
        cap_weights,
        check_group,
        make_group,
        threshold_of,
    )
    from core.secagg.identity import Identity, identity_of, known_peers, new_identity
    from core.secagg.keys import KeyTable, RoundPrivate, check_table, make_table
    from core.secagg.messages import Answer, Held, Masked, read_answer, read_masked
    from core.secagg.server import GroupSum, ciphertexts_for, unmask
    from core.secagg.site import answer, mask

_HOMES = {
    "core.secagg.errors": "SecAggError",
    "core.secagg.fixed_point": "FRACTION_BITS RANGE",
    "core.secagg.group": "Group Member cap_weights check_group make_group threshold_of",
    "core.secagg.identity": "Identity identity_of known_peers new_identity",
    "core.secagg.keys": "KeyTable RoundPrivate check_table make_table",
    "core.secagg.messages": "Answer Held Masked read_answer read_masked",
    "core.secagg.server": "GroupSum ciphertexts_for unmask",
    "core.secagg.site": "answer mask",
}

__getattr__ = lazy_door(__name__, _HOMES)

__all__ = [
    "FRACTION_BITS",
    "RANGE",
    "Answer",
    "Group",
    "GroupSum",
    "Held",
    "Identity",
    "KeyTable",
    "Masked",
    "Member",
    "RoundPrivate",
    "SecAggError",
    "answer",
    "cap_weights",
    "check_group",
    "check_table",
    "ciphertexts_for",
    "identity_of",
    "known_peers",
    "make_group",
    "make_table",
    "mask",
    "new_identity",
    "read_answer",
    "read_masked",
    "threshold_of",
    "unmask",
]
