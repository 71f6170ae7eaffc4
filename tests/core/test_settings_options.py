"""Options of an extension, as settings give them."""

from __future__ import annotations

import pytest

from core import SettingsError, parse_options


def test_options_are_keyword_arguments() -> None:
    text = "eta=0.1, max-steps=3 ,name=krum,fast=true"
    expected = {"eta": 0.1, "max_steps": 3, "name": "krum", "fast": True}
    assert parse_options("agent.options", text) == expected
    assert parse_options("agent.options", "") == {}


@pytest.mark.parametrize("text", ["eta", "eta=", "=3", "eta=1,eta=2", "a b=1"])
def test_options_of_another_form_name_the_setting(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^agent\.options = .*; accepted: key=value"):
        parse_options("agent.options", text)
