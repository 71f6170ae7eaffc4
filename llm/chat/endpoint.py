"""A chat model behind an OpenAI-compatible server: vLLM, Ollama, llama.cpp, hosted.

Address and key come from the environment. The key goes into one header and nowhere else: it is in
no error, record or log, and no redirect is followed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import httpx

from core import ModelError, explain
from core.settings.agent import AgentSettings
from llm.chat.model import (
    Answer,
    ChatModelError,
    Question,
    answer_tokens,
    chosen_option,
    time_limit,
    timed,
)
from llm.chat.request_format import RequestFormat

URL, KEY = "LLM_QFL_AGENT_URL", "LLM_QFL_AGENT_KEY"
PROBE_SECONDS = 4.0
"""Longest wait for a server's first answer, its list of models, whatever `agent.timeout`."""

LARGEST_BODY = 1_000_000
"""Bytes of a server's answer that are read; a decision takes some hundreds."""

TRIES = 4
"""Times that a request is sent where the server is busy or the connection breaks."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_BUSY = {408, 409, 425, 429}
_UNREACHABLE = (httpx.HTTPError, ValueError, OSError, OverflowError, ExceptionGroup)
"""ValueError: a proxy's bad address; a group: of the attempts to connect, inside the client."""

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass
class EndpointChatModel:
    """A chat model behind ``{base}/chat/completions``.

    Parameters
    ----------
    base : str
        Address up to and including the version, for instance ``http://127.0.0.1:8000/v1``.
    key : str
        Sent as a bearer token; empty: none is sent.
    model : str
        The server's name of the model.
    timeout : float
        Seconds for a whole answer, whatever the server does in between.
    max_tokens : int
        Most tokens of an answer.
    seed : int
        For servers that take one.
    request_format : RequestFormat
        What the server was found to accept.
    closed : bool
        Whether it is to choose among options.
    """

    base: str
    key: str = field(repr=False)
    model: str
    timeout: float
    max_tokens: int
    seed: int = 0
    request_format: RequestFormat = field(default_factory=RequestFormat)
    closed: bool = False

    @property
    def name(self) -> str:
        """The last part of the server's name of the model."""
        return self.model.rsplit("/", 1)[-1]

    @property
    def host(self) -> str:
        """Host and port, for messages: an address may hold what is private."""
        return httpx.URL(self.base).netloc.decode("ascii", "replace")

    @property
    def private(self) -> bool:
        """Whether nobody on the way can read what is sent."""
        url = httpx.URL(self.base)
        return url.scheme == "https" or url.host in _LOOPBACK

    def ask(self, question: Question) -> Answer:
        """Answer a question; the deadline holds for connecting, retrying and reading together.

        Raises
        ------
        ChatModelError
            If no answer came in time, or an error instead.
        """
        return timed(partial(self._ask, question))

    def _ask(self, question: Question) -> Answer:
        seconds, setting = time_limit(self.timeout, question)
        try:
            answer = _within(seconds, self._converse(question, time.monotonic() + seconds))
        except TimeoutError:
            late = f"{self.host} gave no whole answer within {seconds:g} s ({setting})"
            raise ChatModelError(late) from None
        return chosen_option(answer, question.options) if question.options else answer

    def check(self) -> None:
        """Check that the server is there, accepts the key, and has chat completions.

        Raises
        ------
        core.ModelError
            If it cannot be reached in time, refuses the key, or has none at this address.
        """
        seconds = min(self.timeout, PROBE_SECONDS)
        try:
            status = _within(seconds, self._probe())
        except (*_UNREACHABLE, ChatModelError, TimeoutError) as error:
            late = isinstance(error, TimeoutError)
            why = f"no answer within {seconds:g} s" if late else self._clean(_why(error))
            raise ModelError(
                f"agent.kind = 'endpoint' and {URL}: {self.host} cannot be asked ({why})",
                "the address of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1",
                f"start the server, or correct {URL} before the run starts",
            ) from None
        if status in (401, 403):
            raise ModelError(self._refused(status))
        if 300 <= status < 400 or status in (404, 405):
            raise ModelError(self._unfit(f"{self.host} answers HTTP {status}", status))

    async def _probe(self) -> int:
        """Return the status of the list of models, or of an empty request, which costs no token.

        Not every server has such a list, or lists all that it can load; an address without its
        ``/v1`` has neither.
        """
        status, _, _ = await self._send("GET", "models", None)
        if status not in (200, 401, 403):
            status, _, _ = await self._send("POST", "chat/completions", {})
        return status

    def _refused(self, status: int) -> str:
        sent = "the key" if self.key else "a request without a key"
        return explain(
            f"{self.host} refuses {sent} (HTTP {status})",
            f"a key of that server in {KEY}",
            f"set {KEY} in the environment that the run starts from",
        )

    async def _converse(self, question: Question, deadline: float) -> Answer:
        """Send, wait where the server is busy, and simplify what it does not accept."""
        tries, pause, form = 0, self.timeout / 64, self.request_format
        while True:
            body = form.body(question, self.model, self.max_tokens, self.seed)
            tries += 1
            wait = pause
            try:
                status, headers, content = await self._send("POST", "chat/completions", body)
            except ChatModelError:
                raise
            except _UNREACHABLE as error:
                problem = f"{self.host} cannot be reached ({self._clean(_why(error))})"
            else:
                if status == 200:
                    self.request_format = form
                    return self._answer(content)
                complaint = _complaint(self._hidden(content.decode("utf-8", "replace")))
                problem = f"{self.host} answers HTTP {status}: {self._clean(complaint)}"
                if status in (400, 422) and (simpler := form.simpler(complaint)):
                    form, tries = simpler, 0
                    continue
                if status in (401, 403):
                    raise ChatModelError(self._refused(status), lasting=True)
                if status not in _BUSY and status < 500:
                    raise ChatModelError(self._unfit(problem, status), lasting=True)
                wait = max(pause, _retry_after(headers))
            if tries == TRIES or time.monotonic() + wait > deadline:
                raise ChatModelError(problem)
            await asyncio.sleep(wait)
            pause *= 2

    def _unfit(self, problem: str, status: int) -> str:
        if 300 <= status < 400:
            return explain(
                f"{self.host} redirects elsewhere (HTTP {status}), which is not followed",
                "the server's own address",
                f"set {URL} to where it redirects, if you trust that",
            )
        return explain(
            f"agent.model = {self.model!r}: {problem}",
            "a chat model that the server has, and an address that ends before /chat/completions",
            f"correct agent.model or {URL}",
        )

    async def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> tuple[int, httpx.Headers, bytes]:
        """Send one request; return status, headers and body (empty where nothing was posted)."""
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        url, content = httpx.URL(f"{self.base}/{path}"), bytearray()
        client = httpx.AsyncClient(
            timeout=None,  # the caller has a deadline for all of it
            trust_env=url.host not in _LOOPBACK,  # no proxy for these
            verify=url.scheme == "https",  # certificates take 50 ms to load
        )
        async with client, client.stream(method, url, json=body, headers=headers) as reply:
            if body is None:
                return reply.status_code, reply.headers, b""
            async for part in reply.aiter_bytes():
                content += part
                if len(content) > LARGEST_BODY:
                    raise ChatModelError(f"{self.host} answers more than {LARGEST_BODY:,} bytes")
            return reply.status_code, reply.headers, bytes(content)

    def _answer(self, content: bytes) -> Answer:
        """Return the text and the numbers of tokens in a server's answer."""
        try:
            body = json.loads(content)
            choice = body["choices"][0]
            text = _words(choice["message"].get("content"))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            start = self._clean(self._hidden(content.decode("utf-8", "replace")))[:80]
            raise ChatModelError(
                f"{self.host} answers HTTP 200 without a chat completion ({start})"
            ) from None
        usage = body.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        return Answer(
            text=self._hidden(text.encode("utf-8", "replace").decode()),
            prompt_tokens=_count(usage.get("prompt_tokens")),
            answer_tokens=_count(usage.get("completion_tokens")),
            truncated=choice.get("finish_reason") == "length",
        )

    def _clean(self, text: str) -> str:
        """Make a short printable line of a server's text, without the key."""
        line = "".join(x if x.isprintable() else " " for x in self._hidden(text))
        return " ".join(line.split())[:200].rstrip(".") or "no reason given"

    def _hidden(self, text: str) -> str:
        """Take the key out of a text: a server may repeat it, as it is or in JSON's escapes."""
        if not self.key:
            return text
        forms = (rf"\\*(?:{re.escape(sign)}|u00(?i:{ord(sign):02x}))" for sign in self.key)
        return re.sub("".join(forms), "***", text)


def _within(seconds: float, work: Coroutine[Any, Any, _T]) -> _T:
    """Do asynchronous work within a time that nothing in it can stretch.

    Single waits (for a name, a byte of the header, a byte of the body) have limits in any HTTP
    client, but a server that drips renews them; cancelling the whole does not wait for any.
    """

    async def bounded() -> _T:
        async with asyncio.timeout(seconds):
            return await work

    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(bounded())
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _why(error: Exception) -> str:
    """Return an error's message; some of httpx have none."""
    return str(error) or type(error).__name__


def _complaint(text: str) -> str:
    """Return a server's error message: OpenAI's form, FastAPI's, or the text itself."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return text
    error = body.get("error", body.get("detail", body)) if isinstance(body, dict) else body
    if isinstance(error, dict) and "message" in error:
        named = error.get("param")
        return f"{error['message']}" + (f" ({named})" if named else "")
    return error if isinstance(error, str) else text[:5000]


def _words(content: Any) -> str:
    """Return a message's text, which may come in parts; empty for none."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    if content is not None and not isinstance(content, str):
        raise TypeError("content is no text")
    return content or ""


def _count(value: Any) -> int:
    """Return a number of tokens; 0 for what is none."""
    return value if type(value) is int and 0 <= value < 10**9 else 0


def _retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that a busy server requests to wait; 0 if it names none."""
    try:
        return max(0.0, float(headers.get("retry-after", "0")))
    except ValueError:
        return 0.0


def open_chat_model(settings: AgentSettings, clients: int, seed: int) -> EndpointChatModel:
    """Find the server that the environment names, and check that it is there.

    Raises
    ------
    core.ModelError
        If no address is set, it is none, or nobody answers there.
    """
    # It logs every request with its whole address, at a level that Flower shows.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    key = _key(os.environ.get(KEY, "").strip())
    chat_model = EndpointChatModel(
        base=_address(os.environ.get(URL, "").strip()),
        key=key,
        model=settings.model,
        timeout=settings.timeout,
        max_tokens=answer_tokens(settings, clients),
        seed=seed,
        closed=settings.decoding == "choices",
    )
    if key and not chat_model.private:
        _log.warning(
            "the key goes to %s over http://, readable on its way: use https://", chat_model.host
        )
    chat_model.check()
    return chat_model


def _key(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text:
        given = f"{KEY} holds spaces or other signs that no key has"
        raise ModelError(given, "a key", "copy it again")
    return text


def _address(text: str) -> str:
    """Check the base address; the message does not repeat it, since it may hold a password."""
    try:
        url = httpx.URL(text)
        fine = url.scheme in ("http", "https") and bool(url.host)
        fine = fine and not (url.userinfo or url.query or url.fragment)
        fine = fine and (url.port is None or 0 < url.port < 65536)
    except httpx.InvalidURL:
        fine = False
    if not fine:
        raise ModelError(
            f"agent.kind = 'endpoint' and {URL} is {'no address' if text else 'not set'}",
            "one like http://127.0.0.1:8000/v1, no password, query or fragment (a key goes "
            f"into {KEY})",
            f"set it first: export {URL}=http://HOST:PORT/v1",
        )
    return text.rstrip("/").removesuffix("/chat/completions")
