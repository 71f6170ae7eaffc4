"""What is shown to people hides nothing."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import display_safe, hidden_character


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, é, 🎉, العربية", "plain, é, 🎉, العربية"),
        ("می\u200cروم 👩\u200d🔬", "می\u200cروم 👩\u200d🔬"),
        ("a\x1b[31mred\x1b[0m", r"a\x1b[31mred\x1b[0m"),
        ("a\x00b\x07c\x7fd\x9be", r"a\x00b\x07c\x7fd\x9be"),
        ("one\ntwo\r\tthree\u2028", r"one\ntwo\r\tthree\u2028"),
        ("user\u202etxt.exe\u2066\u200f", r"user\u202etxt.exe\u2066\u200f"),
        ("half \ud83d", r"half \ud83d"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        (None, ""),
        (3, "3"),
    ],
)
def test_hidden_characters_are_shown_as_escapes(text: object, shown: str) -> None:
    assert display_safe(text) == shown


@settings(max_examples=50)
@given(st.text(st.characters()))
def test_any_text_becomes_one_line_without_anything_hidden(text: str) -> None:
    shown = display_safe(text)
    shown.encode("utf-8")
    assert len(shown.splitlines()) <= 1
    categories = {unicodedata.category(x) for x in shown if x not in "\u200c\u200d"}
    assert not categories & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert display_safe(shown) == shown
    assert (hidden_character(text) == "") == (shown == text)
