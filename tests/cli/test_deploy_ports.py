"""Parts of a deployment whose port another program has taken."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from llm_qfl.cli.deploy.parts import Part
from llm_qfl.cli.deploy.serve import read_state
from llm_qfl.cli.processes import wait_for
from llm_qfl.cli.superlink import LaunchError
from tests.cli.conftest import Fakes

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")

TAKES = (
    "import socket, sys, time; s = socket.socket(); s.bind(('127.0.0.1', int(sys.argv[2]))); "
    "s.listen(); print('SuperNode ID: 77', flush=True); time.sleep(60)"
)


def listens(fakes: Fakes, port: int, name: str = "node-0") -> Part:
    """Return a part that listens on its port, or ends with Python's words if it is taken."""
    part = fakes.part(TAKES, name)
    part.command += ["--port", str(port)]
    part.port = port
    return part


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        yield held.getsockname()[1]


def test_a_node_whose_port_was_taken_in_between_takes_another(
    fakes: Fakes, taken: int, impatient: None
) -> None:
    part = listens(fakes, taken)
    supervisor = fakes.supervisor(part)
    try:
        supervisor.start()
        assert part.port != taken
        assert read_state(fakes.folder)["parts"]["node-0"]["port"] == part.port
        part.process.kill()  # type: ignore[union-attr]
        part.process.wait()  # type: ignore[union-attr]
        part.command[-1], part.port = str(taken), taken
        supervisor.look(0.0)
        supervisor.look(1.0)  # started again on a port that is taken
        assert wait_for(part.dead, 10.0)
        supervisor.look(2.0)
        assert wait_for(part.ready, 10.0)
        assert part.port != taken
    finally:
        supervisor.close(grace=3.0)


def test_a_superlink_whose_port_is_taken_says_so(fakes: Fakes, taken: int) -> None:
    part = listens(fakes, taken, "superlink")
    part.answers = lambda _: False
    supervisor = fakes.supervisor(part)
    try:
        with pytest.raises(LaunchError, match=rf"superlink did not start: port {taken} of this"):
            supervisor.start()
    finally:
        supervisor.close(grace=3.0)
