"""How many rows the server takes for itself where `data.server_rows` is 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core import DataError
from data import load_server, load_site
from tests.data.few_rows import own, per_site, run_settings, sites, table, texts


@pytest.mark.parametrize(
    ("rows", "clients", "classes", "expected"),
    [
        (250, 4, 2, 40),  # 200 training rows after the test: a fifth
        (2500, 4, 2, 300),
        (50, 18, 2, 4),  # 40 training rows, 36 of them for the clients
        (30, 4, 6, 6),  # a fifth of 24 rows is below the classes
    ],
)
def test_rows_of_the_server_by_themselves(
    tmp_path: Path, rows: int, clients: int, classes: int, expected: int
) -> None:
    path = table(tmp_path, rows, classes=classes)
    settings = own(path, server_rows=0, clients=clients)
    server = load_server(settings)
    assert len(server.validation) == expected
    assert set(server.validation.labels) == set(range(classes))
    held = [part for site in sites(settings) for part in (site.train, site.validation)]
    assert not set(server.validation.texts) & set(texts(held))
    assert len(texts(held)) + expected + len(server.test) == rows


def test_no_rows_for_the_server_by_themselves(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"rows.csv has 50 rows; accepted: 52 rows or more, for the test, the server",
    ):
        load_site(own(table(tmp_path, 50), server_rows=0, clients=20), 0, 20)


def test_rows_of_the_server_at_sites_with_files_of_their_own(tmp_path: Path) -> None:
    test = table(tmp_path, 40, "test.csv")
    settings = per_site(str(table(tmp_path, 50)), "central", test_path=str(test), server_rows=0)
    server = load_server(settings)
    assert (len(server.validation), len(server.test)) == (8, 32)
    most = load_server(settings.model_copy(update={
        "data": settings.data.model_copy(update={"test_rows": 36})
    }))  # fmt: skip
    assert (len(most.validation), len(most.test)) == (4, 36)


def test_rows_of_the_server_of_an_official_validation_split(tmp_path: Path) -> None:
    task = tmp_path / "irony"
    task.mkdir()
    (task / "mapping.txt").write_text("0\tno\n1\tyes\n")
    for split, rows in (("train", 60), ("val", 20), ("test", 10)):
        (task / f"{split}_text.txt").write_text("".join(f"{split} {i}\n" for i in range(rows)))
        (task / f"{split}_labels.txt").write_text("".join(f"{i % 2}\n" for i in range(rows)))
    source: dict[str, Any] = {"source": "tweet-eval", "path": str(task)}
    server = load_server(run_settings(server_rows=0, **source))
    assert (len(server.validation), len(server.test)) == (20, 10)
    assert sum(len(s.train) + len(s.validation) for s in sites(run_settings(**source))) == 60
    with pytest.raises(DataError, match=r"server_rows = 21; accepted: at most the 20 official"):
        load_server(run_settings(server_rows=21, **source))


def test_rows_of_the_server_of_the_demo() -> None:
    by_itself, given_rows = (
        load_server(run_settings(train_rows=40, test_rows=20, server_rows=rows))
        for rows in (0, 300)
    )
    assert by_itself.validation.texts == given_rows.validation.texts
    assert len(by_itself.validation) == 300
