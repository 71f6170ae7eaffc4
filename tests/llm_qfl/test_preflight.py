"""What would end a run later ends it before Flower starts: one line, exit code 2, nothing written.

Each fault goes through the process that users start.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import llm_qfl
from tests.tables import TEXT, text_table

URL = "LLM_QFL_AGENT_URL"
ENDPOINT = ("agent.kind=endpoint", "agent.model=some-model")


def refused(folder: Path, *settings: str, **environment: str) -> str:
    """Run; return the one line of the refusal."""
    home = folder / "home"
    home.mkdir()
    words = [word for setting in settings for word in ("--set", setting)]
    places = {"HOME": str(home), "LLM_QFL_HOME": str(home / "store"), "FLWR_HOME": str(home)}
    before = sorted(folder.iterdir())
    done = llm_qfl(folder, "run", *words, timeout=120, **{URL: ""} | places | environment)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert sorted(folder.iterdir()) == before  # no results folder
    libraries = {".cache", ".config", ".qiskit"}
    assert {path.name for path in home.iterdir()} <= {"store", *libraries}  # no SuperLink's either
    return line


@pytest.fixture
def silent() -> Iterator[int]:
    """Listen at a port, take connections, and never answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("settings", "printed"),
    [
        (["quantum.backend=fake:nowhere"], "fake:nowhere', there is no such snapshot"),
        (["quantum.backend=pennylane:no.device"], "no such device is installed"),
        (["quantum.backend=ibm:least_busy"], "no IBM Quantum account is saved"),
        (["quantum.backend=fake:manila", "quantum.qubits=8"], "has 5 qubits and the circuit needs"),
        (["llm.model=/no/model"], "llm.model /no/model: there is no such folder"),
        (["agent.kind=llm", "agent.model=/no/model"], "agent.model /no/model: there is no such"),
        ([*ENDPOINT], f"{URL} is not set; .* export {URL}=http"),
        (["data.source=tweet-eval"], "tweet_eval .* could not be loaded .* set data.path to a loc"),
        (["llm.model=some/model"], "some/model is no folder here, the hub cannot be reached"),
        (["privacy.min_rows=500"], "min_rows"),
        (["features.k=1"], "quantum.qubits = 4, and the 2 features .* vary in"),
        (["quantum.device=cuda"], "CUDA"),
        (["llm.device=cuda"], "llm.device = 'cuda', but torch finds no CUDA device"),
        (["data.train_rows=5", "run.clients=4"], "5 training rows for 4 clients|train_rows"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_fault_is_found_first(settings: list[str], printed: str, tmp_path: Path) -> None:
    line = refused(tmp_path, *settings)
    assert line.startswith("llm-qfl: ")
    assert re.search(printed, line), line
    assert line.endswith(".")


def test_a_wrong_column_is_found_first(tmp_path: Path) -> None:
    path = text_table(tmp_path)
    line = refused(tmp_path, *TEXT, f"data.path={path}", "data.text_column=words")
    assert "'words'" in line
    assert "label" in line  # the columns that there are


def test_a_site_s_missing_file_is_found_first(tmp_path: Path) -> None:
    (tmp_path / "site-0.csv").write_text(Path(text_table(tmp_path)).read_text())
    own = ("data.per_site=true", "data.path=site-{client}.csv", "data.labels=0,1")
    line = refused(tmp_path, "run.clients=2", "data.source=csv", *own, "evaluation.mode=federated")
    assert re.search(r"site-1\.csv does not exist", line)


def test_an_endpoint_that_does_not_answer_is_found_first(tmp_path: Path, silent: int) -> None:
    line = refused(tmp_path, *ENDPOINT, **{URL: f"http://127.0.0.1:{silent}/v1"})
    assert f"127.0.0.1:{silent} cannot be asked (no answer within 4 s)" in line


def test_an_endpoint_that_is_not_there_is_found_first(tmp_path: Path) -> None:
    line = refused(tmp_path, *ENDPOINT, **{URL: "http://127.0.0.1:9/v1"})
    assert "127.0.0.1:9 cannot be asked" in line


@pytest.mark.parametrize(
    "settings",
    [
        ["run.clients=2", "data.train_rows=100", "train.batch_rows=8", "run.rounds=3"],
        ["run.clients=2", "data.train_rows=90", "train.optimizer=cobyla", "quantum.model=vqc"],
        ["data.train_rows=100", "evaluation.mode=federated", "train.optimizer=spsa"],
        ["run.clients=2", "data.train_rows=100", "agent.kind=all"],
    ],
)
def test_a_dry_run_says_what_would_run(settings: list[str], tmp_path: Path) -> None:
    words = [word for setting in settings for word in ("--set", setting)]
    dry = llm_qfl(tmp_path, "run", "--dry-run", *words)
    assert dry.returncode == 0, dry.stderr
    assert list(tmp_path.iterdir()) == []
    facts = dict(line.split(maxsplit=1) for line in dry.stdout.splitlines())
    assert facts["data"].startswith("dna-demo (synthetic): ")
    assert facts["classes"] == "2: human, worm"
    assert facts["model"] == "dna-tiny"
    assert facts["agent"] == ("all" if "agent.kind=all" in settings else "rule")
    cost = json.loads(llm_qfl(tmp_path, "cost", "--json", *words).stdout)
    few, many = (cost["totals"][which]["circuits"] for which in ("steps", "max_steps"))
    assert facts["circuits"].startswith(f"{few:,} at ")
    assert (f", {many:,} at " in facts["circuits"]) == (many > few)


def test_a_dry_run_says_what_is_odd_about_the_rows(tmp_path: Path) -> None:
    rows = [
        f'patient {k} had week {k * 7919},"{"no, never" if k % 2 else "yes"}"' for k in range(60)
    ]
    rows.insert(30, "text,label")
    for site in (0, 1):
        (tmp_path / f"site-{site}.csv").write_text("\n".join(["text,label", *rows, ""]))
    own = ("data.per_site=true", "data.path=site-{client}.csv", 'data.labels="no, never",yes')
    for key in (("data.path=site-1.csv",), (*own, "evaluation.mode=federated")):
        settings = ("run.clients=2", "data.source=csv", *key)
        words = [word for setting in settings for word in ("--set", setting)]
        dry = llm_qfl(tmp_path, "run", "--dry-run", *words)
        assert dry.returncode == 0, dry.stderr
        name = "site-1" if len(key) == 1 else "site"
        assert dry.stdout.startswith(f"run      {name}: 2 clients")
        assert 'classes  2: "no, never", yes\n' in dry.stdout
        assert re.search(r"note     .*site-1\.csv, line 32: the header again", dry.stdout)


def test_a_dry_run_of_a_deployment_looks_at_no_rows() -> None:
    from llm_qfl.cli.plan import make_plan
    from llm_qfl.cli.preflight import lines

    site = ("data.source=csv", "data.per_site=true", "data.labels=a,b", "evaluation.mode=federated")
    plan = make_plan([], site, None, 2)
    assert "not looked at" in "\n".join(lines(plan, {}))


@pytest.mark.parametrize("setting", ["run.name=a/b", "run.output=file/x", "run.output=file"])
def test_a_dry_run_refuses_a_folder_that_cannot_be_made(setting: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = llm_qfl(tmp_path, "run", "--dry-run", "--set", setting)
    assert done.returncode == 2
    assert re.search(f"{setting[:7]}.* = .*(a/b|Not a directory)", done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_dry_run_goes_on_with_nothing(tmp_path: Path) -> None:
    done = llm_qfl(tmp_path, "run", "--dry-run", "--resume", "somewhere")
    assert done.returncode == 2
    assert "--dry-run with --resume" in done.stderr
