"""Run folders with anything in them: report, compare and audit show the rest, resume refuses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import UserError, parse_run, read_json, write_json
from core.storage.reading import EVENTS, salvage
from core.storage.records import ConfigFile, Decided, LedgerFile, Part, Saved, Summary
from reporting import write_report
from reporting.audit import audit
from reporting.compare import compare
from reporting.compared_run import read_run
from reporting.comparison_page import build_comparison
from reporting.record import read_record
from server_app.resume import load_history
from tests.command import llm_qfl
from tests.conftest import SMALL, Federate
from tests.server_app.test_report_runs import make_run, write

Place = tuple[str | int, ...]

HOSTILE = [None, True, -1, 1e308, float("nan"), 10**400, "x", "\ud83d", [], [[1]], {}, {"a": None}]
VALUES = st.sampled_from(HOSTILE) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
TEXTS = st.sampled_from(["{", "[1]", '{"a":' * 3000, '{"a": ' + "9" * 5000 + "}", "\ud83d"])
FILES = ("config.json", "metrics.jsonl", "agent.jsonl", "ledger.json", "summary.json")


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Yield every place in a JSON value."""
    yield at
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*at, key))


def put(value: Any, at: Place, new: Any) -> Any:
    """Return a JSON value with another value at a place."""
    if not at:
        return new
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    changed = {k: put(item, at[1:], new) if k == at[0] else item for k, item in pairs}
    return changed if isinstance(value, dict) else list(changed.values())


def spoil(data: st.DataObject, folder: Path) -> None:
    """Put something else at any place of any file of a run."""
    path = folder / data.draw(st.sampled_from(FILES))
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    number = data.draw(st.integers(0, len(lines) - 1))
    value = json.loads(lines[number])
    place = data.draw(st.sampled_from(list(places(value))))
    dumped = st.builds(json.dumps, VALUES.map(lambda new: put(value, place, new)))
    lines[number] = data.draw(dumped | TEXTS)
    path.write_text("".join(line + "\n" for line in lines), errors="surrogatepass")


def test_any_value_at_any_place_of_a_run_folder(federate: Federate, tmp_path: Path) -> None:
    whole = federate("agent.kind=bandit", "run.rounds=2").folder
    other, folder = read_run(whole), tmp_path / "spoilt"
    assert other.damaged == ()
    resumed, _ = parse_run([], [*SMALL, "agent.kind=bandit", "run.resume=true", "run.folder=x"])

    @settings(max_examples=5, deadline=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        spoil(data, folder)
        page = write_report(folder).read_text()
        assert ("Damaged files" in page) == bool(read_record(folder).damaged)
        run = read_run(folder)
        assert build_comparison([other, run], compare([other, run], None))
        for read in (lambda: audit(folder), lambda: load_history(folder, resumed)):
            assert "\n" not in refusal(read)
        assert {path.name for path in folder.iterdir()} <= {
            *(path.name for path in whole.iterdir()),
            "report.html",
        }

    check()


def test_a_record_that_is_read_holds_only_what_its_models_allow(tmp_path: Path) -> None:
    whole, folder = make_run(tmp_path / "whole", clients=2, rounds=2), tmp_path / "spoilt"

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        spoil(data, folder)
        record = read_record(folder)
        for model, parts in (
            (ConfigFile, [record.config]),
            (LedgerFile, [record.ledger]),
            (Summary, [record.summary]),
            (Decided, record.decisions),
            (EVENTS["prepared"], [record.prepared]),
            (EVENTS["client"], record.clients),
            (EVENTS["round"], record.rounds),
            (EVENTS["end"], [record.end]),
        ):
            for part in parts:
                model.model_validate(part)

    check()


def refusal(read: Callable[[], Any]) -> str:
    """Return the one line that something is refused with; empty if it is not."""
    try:
        read()
    except UserError as error:
        return str(error)
    return ""


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_what_is_left_of_a_record_is_what_its_model_allows(data: st.DataObject) -> None:
    models: list[type[Part]] = [*EVENTS.values(), Decided, LedgerFile, Summary, Saved]
    model = data.draw(st.sampled_from(models))
    keys = st.sampled_from(list(model.model_fields))
    value = data.draw(st.dictionaries(keys, VALUES, max_size=6))
    given_keys, damaged = set(value), list[str]()
    left = salvage(model, value, damaged)
    if left is None:
        assert damaged
        return
    model.model_validate(left)
    assert damaged or set(left) == given_keys


def line(folder: Path, name: str, number: int, **values: Any) -> None:
    lines = [json.loads(text) for text in (folder / name).read_text().splitlines()]
    lines[number - 1] |= values
    write(folder, name, lines)


def file(folder: Path, name: str, *path: str | int, value: Any) -> None:
    write(folder, name, put(json.loads((folder / name).read_text()), path, value))


DAMAGE: list[tuple[Callable[[Path], None], str]] = [
    (lambda run: line(run, "metrics.jsonl", 2, loss=None, steps=-1), "line 2: steps: Input should"),
    (lambda run: line(run, "metrics.jsonl", 6, accuracy=1e308), "line 6: accuracy: Input should"),
    (lambda run: line(run, "metrics.jsonl", 1, clients="x"), "metrics.jsonl line 1: clients:"),
    (lambda run: line(run, "agent.jsonl", 1, participants=[0, "a"]), "line 1: participants:"),
    (lambda run: file(run, "summary.json", "test", "loss", value=float("nan")), "test.loss: Input"),
    (lambda run: file(run, "summary.json", "seconds", value=[1]), "summary.json: seconds: Input"),
    (lambda run: file(run, "ledger.json", "totals", "circuits", value="9"), "totals.circuits:"),
    (lambda run: file(run, "config.json", "settings", "run", value=None), "settings.run: Input"),
]


@pytest.mark.parametrize(("spoiling", "expected"), DAMAGE, ids=[expected for _, expected in DAMAGE])
def test_file_and_place_are_named(
    tmp_path: Path, spoiling: Callable[[Path], None], expected: str
) -> None:
    folder = make_run(tmp_path / "run", clients=2, rounds=2)
    assert read_record(folder).damaged == ()
    spoiling(folder)
    (damage,) = read_record(folder).damaged
    assert expected in damage


def test_the_commands_name_the_damage_and_show_the_rest(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_run(tmp_path / name, clients=2, rounds=2)
    (tmp_path / "one" / "agent.jsonl").unlink()
    (tmp_path / "one" / "agent.jsonl").mkdir()
    (tmp_path / "one" / "ledger.json").unlink()
    os.mkfifo(tmp_path / "one" / "ledger.json")
    report = llm_qfl(tmp_path, "report", "one")
    assert (report.returncode, report.stdout) == (0, f"{tmp_path}/one/report.html\n")
    assert report.stderr.splitlines() == [
        "llm-qfl: damaged: agent.jsonl: it is a folder",
        "llm-qfl: damaged: ledger.json: it is no file but a pipe or device",
    ]
    assert "93.4 %" in (tmp_path / "one" / "report.html").read_text()
    compared = llm_qfl(tmp_path, "compare", "one", "two")
    assert compared.returncode == 0
    assert "    A: damaged and left out: agent.jsonl: it is a folder" in compared.stdout
    audited = llm_qfl(tmp_path, "audit", "one")
    assert audited.returncode == 2
    assert "agent.jsonl' (it is a folder)" in audited.stderr
    assert len(audited.stderr.splitlines()) == 1


def rehashed(run: Path, *place: str | int, value: Any) -> None:
    """Change a checkpoint's state, and its manifest with it."""
    folder = max((run / "checkpoint").glob("round-*"))
    state = folder / "state.json"
    state.write_text(json.dumps(put(json.loads(state.read_text()), place, value)))
    files = read_json(folder / "manifest.json")["files"]
    files["state.json"] = hashlib.sha256(state.read_bytes()).hexdigest()
    write_json(folder / "manifest.json", {"files": files})


def swap(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new, 1))


BROKEN: list[tuple[Callable[[Path], Any], str]] = [
    (lambda run: (run / "config.json").write_text("{"), r"no settings in '.*config.json'"),
    (
        lambda run: swap(run / "agent.jsonl", "false", "[[0]]"),
        r"agent.jsonl' \(line 1, decision.st",
    ),
    (lambda run: swap(run / "agent.jsonl", "rule", "rules"), r"agent.jsonl' \(line 2 is not compl"),
    (lambda run: rehashed(run, "losses", 0, value="x"), r"state.json' is damaged \(losses.0: "),
    (lambda run: rehashed(run, "views", value=[7]), r"state.json' is damaged \(views.0: "),
    (
        lambda run: rehashed(run, "members", 0, value={}),
        r"damaged \(members.0.client: ",
    ),
]


@pytest.mark.parametrize(("spoiling", "expected"), BROKEN, ids=[expected for _, expected in BROKEN])
def test_a_run_does_not_go_on_from_a_damaged_record(
    federate: Federate, spoiling: Callable[[Path], Any], expected: str
) -> None:
    folder = federate("run.rounds=2").folder
    spoiling(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    resumed, _ = parse_run([], [*SMALL, "run.resume=true", f"run.folder={folder}"])
    with pytest.raises(UserError, match=expected):
        load_history(folder, resumed)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_costs_that_cannot_be_read_are_not_forgotten(tmp_path: Path) -> None:
    from core.storage.checkpoints import settle_repeated

    for name in ("ledger.json", "checkpoint/underway.json", "checkpoint/repeated.json"):
        folder = tmp_path / name.replace("/", "-")
        (folder / "checkpoint").mkdir(parents=True)
        write(folder, name, {"entries": [{"round": 1, "client": 0, "circuits": "many"}]})
        with pytest.raises(UserError, match=rf"{name}' is damaged \(.*entries.0.circuits: Input"):
            settle_repeated(folder, 0)
