"""What a value must be besides its bounds."""

from __future__ import annotations

import re

from core.formatting import split_list
from core.settings.declare import Condition, Conditions
from core.settings.llm import ENCODERS
from core.settings.privacy import GROUP_SIZE


def _estimable(error: float) -> bool:
    return error == 0 or error >= 0.001


def _codec(name: str) -> bool:
    try:
        return name == "auto" or isinstance("".encode(name), bytes)
    except (LookupError, ValueError):
        return False


def _one_group(pattern: str) -> bool:
    try:
        return not pattern or re.compile(pattern).groups == 1
    except re.error:
        return False


VALUES: Conditions = (
    Condition("distill.folds", lambda folds: folds != 1, "0, or 2 to 10"),
    Condition("hardware.precision", _estimable, "0, or 0.001 (a million shots) and above"),
    Condition("data.encoding", _codec, "auto, utf-8, utf-16, cp1252, latin-1 or another codec"),
    Condition("data.label_pattern", _one_group, "a regular expression with one group"),
    *ENCODERS,
    Condition("data.labels", lambda text: len(split_list(text)) != 1, "two or more class names"),
    *GROUP_SIZE,
)
