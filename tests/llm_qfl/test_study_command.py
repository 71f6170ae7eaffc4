"""`llm-qfl study`: options in the place of a study's file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import llm_qfl
from core import read_json
from llm_qfl.studies.command import run_study
from tests.llm_qfl.test_study import SEARCH, STUDY


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def requested(file: str, **own: Any) -> dict[str, Any]:
    """Return what the command line hands over."""
    nothing = dict.fromkeys(("seeds", "jobs", "folder", "trials", "quiet"))
    return {**nothing, "file": file, "assignments": [], "only": [], "as_json": True, **own}


def test_the_command_s_trials_are_in_place_of_the_file_s(capsys: Any) -> None:
    pytest.importorskip("optuna")
    Path("find.toml").write_text(SEARCH)
    given = requested("find.toml", trials=1, folder="here", assignments=["train.batch_rows=4"])
    assert run_study(given) == 0
    assert [row["trial"] for row in json.loads(capsys.readouterr().out)["cells"]] == [
        "0",
        "0, tested",
    ]
    facts = read_json(Path("here/study.json"))
    assert facts["search"]["trials"] == 1
    settings = llm_qfl.read(Path("here", facts["runs"][0]["folder"])).settings
    assert (settings["run.clients"], settings["train.batch_rows"]) == (2, 4)


@pytest.mark.parametrize(
    ("file", "own", "message"),
    [
        (SEARCH, {"only": ["trial=0"]}, "only with a search"),
        (STUDY, {"trials": 2}, "--search with 'study.toml', which has no [search]"),
        (STUDY, {"assignments": ["quiet=true"]}, "unknown setting 'quiet'"),
        (STUDY, {"assignments": ["jobs=2"]}, "unknown setting 'jobs'"),
    ],
)
def test_options_that_do_not_fit_a_study_are_one_line(
    file: str, own: dict[str, Any], message: str
) -> None:
    if file == SEARCH:
        pytest.importorskip("optuna")
    Path("study.toml").write_text(file)
    with pytest.raises(llm_qfl.UserError, match=re.escape(message)):
        run_study(requested("study.toml", **own))
    assert not Path("runs").exists()


def test_keywords_win_over_a_file_also_where_they_are_the_default() -> None:
    Path("study.toml").write_text(STUDY)  # two seeds and a margin
    found = llm_qfl.study("study.toml", seeds=(0,), margin=0.0, folder="runs/study", jobs=1)
    assert set(found.table["seed"]) == {0}
    assert (found.folder, read_json(Path("runs/study/study.json"))["margin"]) == (
        Path("runs/study"),
        0.0,
    )
