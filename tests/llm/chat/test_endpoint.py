"""The endpoint's side of the wire, against a real HTTP server that does everything wrong."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from core import ModelError, UserError
from llm.chat.endpoint import EndpointChatModel, open_chat_model
from llm.chat.model import ChatModelError
from strategies.decisions import ClientView, Observation
from strategies.decisions.prompt import question
from tests.llm.chat.server import (
    KEY,
    AgentServer,
    breaks_off,
    closes,
    completion,
    drips,
    floods,
    hangs,
    replies,
    sends,
)

SEEN = Observation(
    round=2,
    rounds_left=3,
    min_steps=1,
    max_steps=9,
    plain_steps=4,
    clients=tuple(ClientView(client=k, rows=10 + k, steps=4) for k in (0, 1)),
)
ASKED = question(SEEN, min_rounds=1)
WORDS = '{"reason": "so", "steps": {"0": 3, "1": 0}, "stop": false}'


@pytest.fixture
def chat_model(server: AgentServer) -> Callable[..., EndpointChatModel]:
    def make(timeout: float = 5.0, key: str = KEY, base: str = "") -> EndpointChatModel:
        return EndpointChatModel(base or server.url, key, "tiny", timeout, 200, seed=7)

    return make


def refused(chat_model: EndpointChatModel) -> ChatModelError:
    with pytest.raises(ChatModelError) as raised:
        chat_model.ask(ASKED)
    assert KEY not in str(raised.value)
    assert "\n" not in str(raised.value)
    return raised.value


def test_a_question_arrives_whole_and_the_answer_comes_back(
    server: AgentServer, chat_model: Callable[..., EndpointChatModel]
) -> None:
    server.script = [replies(WORDS)]
    answer = chat_model().ask(ASKED)
    assert answer.text == WORDS
    assert (answer.prompt_tokens, answer.answer_tokens, answer.truncated) == (100, 20, False)
    assert answer.seconds > 0
    (body,) = server.requests
    assert body["messages"] == [dict(m) for m in ASKED.messages]
    assert body["response_format"]["json_schema"]["schema"] == ASKED.schema
    sent = {k: body[k] for k in ("model", "temperature", "seed", "max_tokens", "stream")}
    assert sent == {
        "model": "tiny",
        "temperature": 0,
        "seed": 7,
        "max_tokens": 200,
        "stream": False,
    }
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert server.paths == ["/v1/chat/completions"]


def test_without_a_key_none_is_sent(
    server: AgentServer, chat_model: Callable[..., EndpointChatModel]
) -> None:
    chat_model(key="").ask(ASKED)
    assert "authorization" not in server.headers[0]


# --- servers that do not know every parameter -----------------------------------------------


def test_a_server_without_schemas_is_sent_simpler_requests_and_remembered(
    server: AgentServer, chat_model: Callable[..., EndpointChatModel]
) -> None:
    unknown = sends({"error": {"message": "response_format: no such type"}}, 400)
    server.script = [unknown, sends({"detail": [{"loc": ["response_format"]}]}, 422)]
    asking = chat_model()
    asking.ask(ASKED)
    asking.ask(ASKED)
    schema, loose, first, second = (body.get("response_format", {}) for body in server.requests)
    assert schema["json_schema"]["schema"]["properties"]["reason"]["maxLength"] == 160
    assert "maxLength" not in json.dumps(loose)
    assert "maximum" not in json.dumps(loose)
    assert loose["json_schema"]["schema"]["properties"]["steps"]["required"] == ["0", "1"]
    assert first == second == {"type": "json_object"}


def test_a_server_that_knows_no_format_at_all_answers_in_the_end(
    server: AgentServer, chat_model: Callable[..., EndpointChatModel]
) -> None:
    server.script = [sends(b"what?", 400, "text/plain")] * 3 + [replies(WORDS)]
    assert chat_model().ask(ASKED).text == WORDS
    assert "response_format" not in server.requests[-1]


def test_a_parameter_that_the_server_names_is_dropped_alone(
    server: AgentServer, chat_model: Callable[..., EndpointChatModel]
) -> None:
    server.script = [
        sends({"error": {"message": "use 'max_completion_tokens'", "param": "max_tokens"}}, 400),
        sends({"error": {"message": "unsupported value", "param": "temperature"}}, 400),
    ]
    chat_model().ask(ASKED)
    last = server.requests[-1]
    assert last["max_completion_tokens"] == 200
    assert not {"max_tokens", "temperature"} & set(last)
    assert last["seed"] == 7
    assert last["response_format"]["type"] == "json_schema"


def test_a_server_that_takes_nothing_is_a_lasting_error_and_nothing_is_unlearned(
    server: AgentServer, chat_model: Callable[..., EndpointChatModel]
) -> None:
    server.script = [sends({"error": {"message": "context too long"}}, 400)] * 4
    asking = chat_model()
    error = refused(asking)
    assert error.lasting
    assert "agent.model = 'tiny'" in str(error)
    assert "HTTP 400: context too long" in str(error)
    assert asking.request_format.form == "schema"


# --- late, busy, broken ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "behaviour",
    [hangs, drips(WORDS), drips(WORDS, headers=True)],
    ids=["hangs", "drips its body", "drips its header"],
)
def test_no_server_holds_a_round(
    server: AgentServer, chat_model: Callable[..., EndpointChatModel], behaviour: Any
) -> None:
    server.script = [behaviour]
    error = refused(chat_model(timeout=0.3))
    assert "gave no whole answer within 0.3 s (agent.timeout)" in str(error)
    assert not error.lasting
    assert error.answer.seconds >= 0.3


def test_busy_and_broken_servers_are_retried_within_the_deadline(
    server: AgentServer, chat_model: Callable[..., EndpointChatModel]
) -> None:
    server.script = [sends({}, 500), closes, breaks_off]
    assert json.loads(chat_model(timeout=8.0).ask(ASKED).text)["steps"] == {"0": 2, "1": 2}
    assert len(server.requests) == 4


def test_a_busy_server_says_how_long_to_wait(
    server: AgentServer, chat_model: Callable[..., EndpointChatModel]
) -> None:
    server.script = [sends({}, 429, Retry_After="0.2")]
    began = time.monotonic()
    chat_model(timeout=5.0).ask(ASKED)
    assert time.monotonic() - began >= 0.2
    server.script = [sends({"error": {"message": "slow down"}}, 429, Retry_After="60")]
    assert "HTTP 429: slow down" in str(refused(chat_model(timeout=5.0)))
    server.script = [sends({}, 429, Retry_After="Wed, 21 Oct 2026 07:28:00 GMT")]
    assert chat_model().ask(ASKED).text


def test_a_server_that_stays_broken_is_given_up(
    server: AgentServer, chat_model: Callable[..., EndpointChatModel]
) -> None:
    server.script = [sends({"error": "overloaded"}, 503)] * 9
    error = refused(chat_model(timeout=4.0))
    assert "HTTP 503: overloaded" in str(error)
    assert not error.lasting
    assert len(server.requests) == 4


def test_nobody_there(chat_model: Callable[..., EndpointChatModel]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    error = refused(chat_model(timeout=2.0, base=f"http://127.0.0.1:{port}/v1"))
    assert f"127.0.0.1:{port} cannot be reached" in str(error)


# --- answers that are none ------------------------------------------------------------------


@pytest.mark.parametrize(
    "behaviour",
    [
        sends(b"<html>welcome</html>", kind="text/html"),
        sends(b"data: {}\n\n", kind="text/event-stream"),
        sends(b'{"choices": [{"message": {"content": "\xff\xfe"}}]}'),
        sends({"choices": []}),
        sends({"choices": [{"text": WORDS}]}),
        sends([1, 2]),
        sends(b""),
        sends(b"[" * 100_000),
        replies({"steps": 1}),
    ],
    ids=["html", "a stream", "bad utf-8", "empty", "old form", "list", "void", "nested", "object"],
)
def test_a_200_that_is_no_completion(
    server: AgentServer, chat_model: Callable[..., EndpointChatModel], behaviour: Any
) -> None:
    server.script = [behaviour]
    error = refused(chat_model())
    assert "answers HTTP 200 without a chat completion" in str(error)
    assert not error.lasting


def test_a_completion_of_the_wrong_content_type_is_read(
    server: AgentServer, chat_model: Callable[..., EndpointChatModel]
) -> None:
    server.script = [sends(completion(WORDS), kind="text/plain")]
    assert chat_model().ask(ASKED).text == WORDS


def test_a_huge_body_is_not_read_to_its_end(
    server: AgentServer, chat_model: Callable[..., EndpointChatModel]
) -> None:
    server.script = [floods]
    assert "answers more than 1,000,000 bytes" in str(refused(chat_model()))


@pytest.mark.parametrize("usage", [{}, [], {"prompt_tokens": -3, "completion_tokens": "many"}])
def test_unknown_or_silly_usage_counts_as_none(
    server: AgentServer, chat_model: Callable[..., EndpointChatModel], usage: Any
) -> None:
    server.script = [replies(WORDS, usage=usage)]
    answer = chat_model().ask(ASKED)
    assert (answer.prompt_tokens, answer.answer_tokens) == (0, 0)


def test_the_limit_of_tokens_parts_silence_and_broken_letters_are_reported(
    server: AgentServer, chat_model: Callable[..., EndpointChatModel]
) -> None:
    parts = [{"type": "text", "text": WORDS[:9]}, {"type": "text", "text": WORDS[9:]}]
    server.script = [
        replies(WORDS[:20], "length"),
        replies(parts),
        replies(None),
        replies("a\ud800b"),
    ]
    asking = chat_model()
    assert asking.ask(ASKED).truncated
    assert asking.ask(ASKED).text == WORDS
    assert asking.ask(ASKED).text == ""
    assert asking.ask(ASKED).text == "a?b"


def test_the_runs_own_time_ends_an_answer(
    server: AgentServer, chat_model: Callable[..., EndpointChatModel]
) -> None:
    server.script = [hangs]
    with pytest.raises(ChatModelError, match=r"within 0.2 s \(stop.wall_seconds\)"):
        chat_model(timeout=30.0).ask(replace(ASKED, seconds=0.2))


# --- before a run ---------------------------------------------------------------------------


def opened(monkeypatch: pytest.MonkeyPatch, url: str, key: str = KEY) -> EndpointChatModel:
    from core import parse_run

    monkeypatch.setenv("LLM_QFL_AGENT_URL", url)
    monkeypatch.setenv("LLM_QFL_AGENT_KEY", key)
    given = ["agent.kind=endpoint", "agent.model=tiny", "agent.timeout=0.5"]
    return open_chat_model(parse_run([], given)[0].agent, clients=4, seed=0)


def test_opening_looks_whether_somebody_is_there(
    monkeypatch: pytest.MonkeyPatch, server: AgentServer
) -> None:
    chat_model = opened(monkeypatch, f"{server.url}/chat/completions/")
    assert chat_model.base == server.url
    assert chat_model.max_tokens == 250 + 12 * 4
    assert server.paths == ["/v1/models"]
    server.models = 404  # not every server has a list
    opened(monkeypatch, server.url)
    assert server.paths[1:] == ["/v1/models", "/v1/chat/completions"]
    assert server.requests == []  # an empty request is refused, and costs no token


def test_an_address_without_its_version_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, server: AgentServer
) -> None:
    message = r"answers HTTP 404; accepted: .*; correct agent.model or LLM_QFL_AGENT_URL"
    with pytest.raises(ModelError, match=message):
        opened(monkeypatch, server.url.removesuffix("/v1"))


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "LLM_QFL_AGENT_URL is not set"),
        ("127.0.0.1:8000", "LLM_QFL_AGENT_URL is no address"),
        ("ftp://host/v1", "LLM_QFL_AGENT_URL is no address"),
        ("http://", "LLM_QFL_AGENT_URL is no address"),
        ("http://[::1", "LLM_QFL_AGENT_URL is no address"),
        ("http://127.0.0.1:99999/v1", "LLM_QFL_AGENT_URL is no address"),
        ("http://127.0.0.1:0/v1", "LLM_QFL_AGENT_URL is no address"),
        ("http://user:pass-word@host/v1", "no password, query or fragment"),
        ("http://host/v1?key=pass-word", "no password, query or fragment"),
        ("http://127.0.0.1:9/v1", "127.0.0.1:9 cannot be asked"),
    ],
)
def test_an_address_that_cannot_be_reached_is_one_line(
    monkeypatch: pytest.MonkeyPatch, url: str, problem: str
) -> None:
    with pytest.raises(ModelError) as raised:
        opened(monkeypatch, url)
    assert problem in str(raised.value)
    assert "LLM_QFL_AGENT_URL" in str(raised.value)
    assert "pass-word" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_attempts_that_fail_together_are_one_line(
    monkeypatch: pytest.MonkeyPatch, chat_model: Callable[..., EndpointChatModel]
) -> None:
    async def fails(*_: Any) -> Any:
        raise ExceptionGroup("two addresses", [OverflowError("port"), OSError("route")])

    monkeypatch.setattr(EndpointChatModel, "_send", fails)
    with pytest.raises(ModelError, match=r"cannot be asked \(two addresses"):
        chat_model().check()
    assert "cannot be reached (two addresses" in str(refused(chat_model(timeout=0.2)))


def test_a_refused_or_unusable_key_is_one_line_without_it(
    monkeypatch: pytest.MonkeyPatch, server: AgentServer
) -> None:
    server.models = 401
    with pytest.raises(
        UserError, match=r"refuses the key \(HTTP 401\).*LLM_QFL_AGENT_KEY"
    ) as raised:
        opened(monkeypatch, server.url)
    assert KEY not in str(raised.value)
    for key in ("two words", "päss"):
        with pytest.raises(UserError, match="LLM_QFL_AGENT_KEY holds") as raised:
            opened(monkeypatch, server.url, key)
        assert key not in str(raised.value)


def test_a_server_that_hangs_at_the_start_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(UserError, match=r"cannot be asked \(no answer within 0.5 s\)"):
            opened(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}/v1")


@pytest.mark.parametrize(
    ("said", "chosen"),
    [
        ('{"option": "B"}', "second"),
        ("B", "second"),
        (" **A.** ", "first"),
        ('Well: {"option":"A"}', "first"),
        ("C", "C"),
        ("A or B", "A or B"),
    ],
)
def test_a_written_choice_names_an_option(
    server: AgentServer, chat_model: Callable[..., EndpointChatModel], said: str, chosen: str
) -> None:
    server.script = [replies(said)]
    asked = replace(ASKED, options={"A": "first", "B": "second"})
    assert chat_model().ask(asked).text == chosen
