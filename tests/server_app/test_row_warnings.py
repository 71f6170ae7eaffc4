"""Rows that make a result look better than it is: said in the run and in the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from core import parse_run
from data import load_server
from llm_qfl.cli.formatting import header, result
from reporting import write_report
from tests.conftest import NO_TEACHER, Federate

OWN = (
    "data.source=csv",
    "data.kind=dna",
    "data.train_rows=0",
    "data.test_rows=0",
    "data.server_rows=12",
    *NO_TEACHER,
)


def sequences(rows: int, seed: int = 0) -> list[str]:
    """Draw sequences, all different."""
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("ACGT"), 24)) for _ in range(rows)]


def write(path: Path, texts: list[str], labels: str = "ab") -> Path:
    rows = [f"{text},{labels[i % len(labels)]}" for i, text in enumerate(texts)]
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return path


def odd(folder: Path) -> tuple[str, ...]:
    """Write two files with everything odd that a file can have."""
    texts = sequences(90)
    train = write(folder / "train.csv", [*texts, *texts[1:7], texts[2]], "aab")
    train.write_text(train.read_text() + train.read_text().splitlines()[0] + "\nACGUACGUACGU,b\n")
    write(folder / "test.csv", [*texts[:10], *sequences(30, 1)], "a")
    return (*OWN, f"data.path={train}", f"data.test_path={folder / 'test.csv'}")


def test_what_is_odd_is_said_in_the_run_and_in_the_report(
    federate: Federate, tmp_path: Path
) -> None:
    ran = federate(*odd(tmp_path))
    ready = ran.events("prepared")[0]
    found = "\n".join(ready["warnings"])
    for said in (
        "train.csv, line 99: the header again, as where files were put together: left out",
        "train.csv, line 100: RNA: each U is read as T",
        "training rows repeat the text of another; texts with different labels: ",
        "no test row of the class b",
    ):
        assert said in found
        assert said[:30] in " ".join("\n".join(header(ready)).split())
    data = load_server(parse_run([], list(odd(tmp_path)))[0])
    seen = int(data.seen.sum())
    assert 5 < seen <= 10
    assert f"{seen} of 40 test rows stand in the training rows too" in found

    test = ran.summary["test"]
    assert (test["rows"], test["unseen"]["rows"]) == (40, 40 - seen)
    # What is left over are the rows that were seen: the confusions add up.
    both = np.array(test["confusion"]) - np.array(test["unseen"]["confusion"])
    assert both.min() >= 0
    assert both.sum() == seen
    assert any("without rows trained on" in line for line in result(ran.summary))

    write_report(ran.folder)
    page = (ran.folder / "report.html").read_text()
    assert page.count('class="warning"') == len(ready["warnings"])
    assert f"The same, {40 - seen} rows not among the training rows" in page


def test_nothing_is_said_of_rows_that_are_as_they_should_be(
    federate: Federate, tmp_path: Path
) -> None:
    ran = federate(*OWN, f"data.path={write(tmp_path / 'rows.csv', sequences(120))}")
    assert ran.events("prepared")[0]["warnings"] == []
    assert ran.summary["warnings"] == []
    assert "unseen" not in ran.summary["test"]


@pytest.mark.parametrize("per_site", [False, True])
def test_with_federated_evaluation_the_sites_say_it(
    federate: Federate, tmp_path: Path, per_site: bool
) -> None:
    alike, site = "ACGT" * 6, str(tmp_path / "site-{client}.csv")
    given = ["evaluation.mode=federated", "data.server_rows=0", "data.test_rows=0"]
    if per_site:
        for client in range(3):
            write(tmp_path / f"site-{client}.csv", [*sequences(40, client), alike, alike])
            write(tmp_path / f"test-{client}.csv", [alike, "TTTT" * 6], "a")
        given += ["data.per_site=true", "data.labels=a,b", f"data.path={site}"]
        given += [f"data.test_path={site.replace('site-', 'test-')}"]
    else:
        texts = sequences(40)
        given += [f"data.path={write(tmp_path / 'rows.csv', [*texts, *texts])}"]
        given += [f"data.test_path={write(tmp_path / 'test.csv', texts[:9], 'a')}"]
    ran = federate("data.source=csv", "data.kind=dna", "data.train_rows=0", *NO_TEACHER, *given)
    said = ran.events("prepared")[0]["warnings"]
    if per_site:
        assert [line.split(":")[0] for line in said] == [f"client-{k}" for k in range(3)] or len(
            said
        ) == 3
        assert all("1 of 42 training rows repeat" in line for line in said)
        assert all("1 of 2 test rows stand in the training rows too" in line for line in said)
    else:
        assert len(said) == 1
        assert "40 of 80 training rows repeat the text of another" in said[0]
        assert "9 of 9 test rows stand in the training rows too" in said[0]
    assert ran.summary["warnings"] == ["no test row of the class b at any site"]
    assert any("no test row of the class b" in line for line in result(ran.summary))
    assert json.loads((ran.folder / "summary.json").read_text())["warnings"]


def test_texts_that_are_cut_are_said(federate: Federate, caplog: pytest.LogCaptureFixture) -> None:
    few = ("data.train_rows=60", "run.rounds=1")
    ran = federate("llm.max_tokens=50", "distill.folds=2", *few)
    rows = sum(client["train_rows"] for client in ran.events("prepared")[0]["clients"])
    assert ran.summary["warnings"] == [
        f"{rows} training texts at 3 sites were cut at llm.max_tokens"
    ]
    assert f"of {rows // 6} training texts are cut at llm.max_tokens" in caplog.text
    assert federate("llm.max_tokens=200", *few).summary["warnings"] == []
