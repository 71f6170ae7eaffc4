"""The key of an endpoint: in the request's header, and in no error, answer or log."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import pytest

from llm.chat.endpoint import EndpointChatModel
from llm.chat.model import ChatModelError
from tests.llm.chat.server import KEY, AgentServer, replies, sends, serving
from tests.llm.chat.test_endpoint import ASKED, WORDS, opened, refused


@pytest.fixture
def chat_model(server: AgentServer) -> Callable[..., EndpointChatModel]:
    def make(timeout: float = 5.0, key: str = KEY) -> EndpointChatModel:
        return EndpointChatModel(server.url, key, "tiny", timeout, 200)

    return make


def test_a_redirect_is_not_followed_and_the_key_stays(
    server: AgentServer, chat_model: Callable[..., EndpointChatModel]
) -> None:
    with serving() as other:
        server.script = [sends({}, 307, Location=f"{other.url}/chat/completions")]
        error = refused(chat_model())
        assert "redirects elsewhere (HTTP 307), which is not followed" in str(error)
        assert error.lasting
        assert other.paths == []


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_server_that_says_the_key_back_does_not_get_it_into_an_error(
    server: AgentServer, chat_model: Callable[..., EndpointChatModel], status: int
) -> None:
    server.script = [sends({"error": {"message": f"no: {KEY}"}}, status)] * 4
    error = refused(chat_model(timeout=0.5))
    assert error.lasting == (status != 500)
    server.script = [replies(f"{WORDS} {KEY}")]
    assert chat_model().ask(ASKED).text == f"{WORDS} ***"
    server.script = [sends(b" " * 70 + KEY.encode())]
    assert KEY[:4] not in str(refused(chat_model()))


def test_a_key_that_is_repeated_in_escapes_is_blotted_out(
    server: AgentServer, chat_model: Callable[..., EndpointChatModel]
) -> None:
    escaped = f"\\u{ord(KEY[0]):04x}{KEY[1:]}"
    upper = "".join(f"\\u{ord(sign):04X}" for sign in KEY)
    for escaped_key in (escaped, upper):
        bodies = (
            (200, f'{{"choices": "{escaped_key}"}}'),
            (404, f'{{"error": {{"reason": "{escaped_key}"}}}}'),
            (404, f'{{"error": "{escaped_key}"}}'),
        )
        for status, body in bodies:
            server.script = [sends(body.encode(), status)]
            error = str(refused(chat_model()))
            assert "***" in error
            assert KEY[1:] not in error
            assert escaped_key[2:] not in error
        server.script = [replies(WORDS.replace('"so"', f'"{escaped_key}"'))]
        answer = chat_model().ask(ASKED).text
        assert KEY not in json.loads(answer)["reason"]


def test_a_short_key_is_blotted_out_too(
    server: AgentServer, chat_model: Callable[..., EndpointChatModel]
) -> None:
    server.script = [sends({"error": {"message": "no: k7#"}}, 404)]
    with pytest.raises(ChatModelError) as raised:
        chat_model(key="k7#").ask(ASKED)
    assert "k7#" not in str(raised.value)
    assert "***" in str(raised.value)
    assert chat_model(key="").ask(ASKED).text


def test_a_key_in_the_clear_is_warned_of_in_one_line(
    monkeypatch: pytest.MonkeyPatch, server: AgentServer, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(EndpointChatModel, "check", lambda self: None)
    for url, key in ((server.url, KEY), ("https://host/v1", KEY), ("http://host/v1", "")):
        opened(monkeypatch, url, key)
    assert caplog.messages == []
    opened(monkeypatch, "http://host:8000/v1")
    (line,) = caplog.messages
    assert line.startswith("the key goes to host:8000 over http://")
    assert KEY not in line


def test_requests_are_not_logged(
    monkeypatch: pytest.MonkeyPatch, server: AgentServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        opened(monkeypatch, server.url).ask(ASKED)
    assert server.url not in caplog.text
    assert KEY not in repr(opened(monkeypatch, server.url))
