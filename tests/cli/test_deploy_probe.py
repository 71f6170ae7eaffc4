"""What keeps a node from its SuperLink is told by what can be seen from the node's machine."""

from __future__ import annotations

import os
import re
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import llm_qfl.cli.deploy.keys
from llm_qfl.cli.deploy.keys import make_authority, make_server
from llm_qfl.cli.deploy.parts import Part
from llm_qfl.cli.deploy.probe import clock_trouble, probe
from llm_qfl.cli.processes import wait_for


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
        said = probe("127.0.0.1", port, authority)
        assert re.search(r"clock is 3(599|60\d) s", said)  # an answer's time is whole seconds
        assert "behind the SuperLink's; accepted: at most 5 s ahead, 300 s behind" in said
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
        said = probe("127.0.0.1", port, old)
        assert said == ("the SuperLink's certificate is not accepted here: certificate has expired")
        assert "not accepted here" in probe("127.0.0.1", port, tmp_path / "good" / "ca.crt")


def test_a_node_that_ends_without_a_word_is_explained(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    where = {**os.environ, "FLWR_HOME": str(tmp_path)}
    code = [sys.executable, "-c", "print('SuperNode terminated gracefully.')"]
    log = tmp_path / "log"
    part = Part(
        "node-0", tmp_path, code, where, log, 9, lambda _: False, lambda: "the clock is off"
    )
    part.start()
    assert wait_for(part.dead, 60.0)
    assert part.why() == "the clock is off"
