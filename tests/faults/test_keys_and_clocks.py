"""Nodes that may not take part: a wrong key, a clock that is off, an expired certificate."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import llm_qfl.cli.deploy.keys
from llm_qfl.cli.deploy.keys import make_server
from llm_qfl.cli.superlink import free_port
from tests.command import ROOT
from tests.faults.harness import begin, note, wait_until

SHIFT = """
import datetime, os, time
by, real_time, Real = float(os.environ["CLOCK_SHIFT"]), time.time, datetime.datetime
class Shifted(Real):
    @classmethod
    def now(cls, tz=None):
        return Real.now(tz) + datetime.timedelta(seconds=by)
time.time = lambda: real_time() + by
datetime.datetime = Shifted
"""
"""A ``sitecustomize`` by which Python's own clock is off in one process and its children."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Serve a SuperLink alone; its nodes are started by the tests."""
    home = tmp_path_factory.mktemp("hub")
    port = str(free_port())
    for name, nodes in (("fed", "4"), ("other", "1")):
        words = ("--nodes", nodes, "--host", "127.0.0.1", "--port", port)
        assert begin(home, "deploy", "init", name, *words).end() == 0
    superlink = begin(home, "deploy", "superlink", "fed/superlink")
    try:
        wait_until(lambda: "nodes may join" in superlink.said(), "the SuperLink")
        yield home
    finally:
        superlink.process.terminate()
        assert superlink.end() == 0


@pytest.mark.parametrize(
    ("node", "seconds", "said"),
    [
        ("node-0", 3600, "ahead of"),
        ("node-1", -3600, "behind"),
        ("node-2", -86400, "behind"),
        ("node-0", 86400, "ahead of"),
    ],
)
def test_a_clock_is_off(hub: Path, node: str, seconds: int, said: str) -> None:
    shift = hub / "shift"
    shift.mkdir(exist_ok=True)
    (shift / "sitecustomize.py").write_text(SHIFT)
    path = os.pathsep.join((str(shift), str(ROOT)))
    words = {"PYTHONPATH": path, "CLOCK_SHIFT": str(seconds)}
    started = begin(hub, "deploy", "node", f"fed/{node}", **words)
    assert started.end() == 1
    assert "did not start: this machine's clock is" in started.said()
    assert f"s {said} the SuperLink's" in started.said()
    assert "Traceback" not in started.said()
    note(f"clock {seconds:+} s", line=started.said().strip())


def test_a_key_that_the_superlink_does_not_know(hub: Path) -> None:
    shutil.copyfile(hub / "other" / "node-0" / "node.key", hub / "fed" / "node-3" / "node.key")
    node = begin(hub, "deploy", "node", "fed/node-3")
    wait_until(lambda: "not admitted yet" in node.said(), "the refusal")
    status = begin(hub, "deploy", "status", "fed/node-3")
    assert status.end() == 1
    assert "its key is not registered there" in status.said()
    assert node.end() == 1
    assert "did not start: the SuperLink did not admit it" in node.said()
    note("wrong key", line=node.said().strip(), status=status.said().strip())


def test_a_certificate_of_another_authority(hub: Path) -> None:
    folder = hub / "fed" / "node-2"
    good = (folder / "ca.crt").read_bytes()
    shutil.copyfile(hub / "other" / "node-0" / "ca.crt", folder / "ca.crt")
    node = begin(hub, "deploy", "node", "fed/node-2")
    try:
        wait_until(lambda: "certificate is not accepted" in node.said(), "the reason")
        assert "Traceback" not in node.said()
        assert "joined as" not in node.said()
        note("wrong authority", line=node.said().strip())
    finally:
        node.process.terminate()
        node.end()
        (folder / "ca.crt").write_bytes(good)


def test_an_expired_certificate(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_qfl.cli.deploy.keys, "SERVER_DAYS", -1)
    monkeypatch.setattr(llm_qfl.cli.deploy.keys, "_LATE_CLOCK", timedelta(days=2))
    folder, ca = hub / "other" / "superlink", hub / "other" / "ca"
    for name in ("server.crt", "server.key"):
        (folder / name).unlink()
    authority = ca / "ca.crt", ca / "ca.key"
    make_server(authority, folder / "server.crt", folder / "server.key", ["127.0.0.1"])
    refused = begin(hub, "deploy", "superlink", "other/superlink")
    assert refused.end() == 2
    assert "expired 1 days ago" in refused.said()
    assert "llm-qfl deploy renew" in refused.said()
    assert begin(hub, "deploy", "renew", "other").end() == 0
    note("expired certificate", line=refused.said().strip())
