"""What keeps a node from its SuperLink is found by what can be seen from the node's machine."""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import llm_qfl.cli.deploy.keys
from llm_qfl.cli.deploy.diagnosis import clock_trouble, probe
from llm_qfl.cli.deploy.keys import make_authority, make_server
from llm_qfl.cli.deploy.supervisor import Part
from llm_qfl.cli.processes import wait_for
from tests.llm_qfl.deploy.conftest import Fakes


@contextmanager
def serving(folder: Path, ahead: float = 0.0) -> Iterator[int]:
    """Serve over TLS with a clock of its own; yield the port."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(int(time.time() + ahead))

        def log_message(self, *given: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    server = HTTPServer(("127.0.0.1", 0), Answers)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def keys(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    authority = folder / "ca.crt", folder / "ca.key"
    make_authority(*authority)
    make_server(authority, folder / "server.crt", folder / "server.key", [])
    return authority[0]


def test_a_clock_that_is_off_is_told_with_its_seconds(tmp_path: Path) -> None:
    authority = keys(tmp_path)
    with serving(tmp_path) as port:
        assert probe("127.0.0.1", port, authority) == ""
    with serving(tmp_path, ahead=3600.0) as port:
        printed = probe("127.0.0.1", port, authority)
        assert re.search(r"clock is 3(599|60\d) s", printed)  # an answer's time is whole seconds
        assert "behind the SuperLink's; accepted: at most 5 s ahead, 300 s behind" in printed
    assert probe("127.0.0.1", port, authority) == ""  # nobody answers: nothing is known


@pytest.mark.parametrize(("ahead", "fine"), [(3, True), (5, False), (-298, True), (-301, False)])
def test_what_flower_accepts_is_no_trouble(ahead: float, fine: bool) -> None:
    assert (clock_trouble(ahead) == "") is fine


def test_a_certificate_that_is_no_good_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys(tmp_path / "good")
    monkeypatch.setattr(llm_qfl.cli.deploy.keys, "SERVER_DAYS", -1)
    monkeypatch.setattr(llm_qfl.cli.deploy.keys, "_LATE_CLOCK", timedelta(days=2))
    old = keys(tmp_path / "old")
    with serving(tmp_path / "old") as port:
        printed = probe("127.0.0.1", port, old)
        assert printed == (
            "the SuperLink's certificate is not accepted here: certificate has expired"
        )
        assert "not accepted here" in probe("127.0.0.1", port, tmp_path / "good" / "ca.crt")


def test_a_node_that_ends_without_a_word_is_explained(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Part, "obstacle", lambda _: "the clock is off")
    part = fakes.part("print('SuperNode terminated gracefully.')")
    part.start(fakes.tag)
    assert wait_for(part.ended, 60.0)
    assert part.reason() == "the clock is off"
