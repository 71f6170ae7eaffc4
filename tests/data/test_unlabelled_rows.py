"""Rows without labels: whose they are, and that no part sees their labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core import DataError, Settings
from data import load_server, load_site
from tests.data.few_rows import run_settings, sites, table, texts


def shared(path: Path, **data: Any) -> Settings:
    own = {"source": "csv", "path": str(path), "train_rows": 20, "server_rows": 6}
    given: dict[str, Any] = {**own, **data}
    return run_settings(clients=2, **given)


def test_they_are_drawn_beside_the_training_rows_and_change_none(tmp_path: Path) -> None:
    path = table(tmp_path, 60)
    with_them, without = sites(shared(path, unlabelled_rows=10)), sites(shared(path))
    server = load_server(shared(path))
    more = [text for site in with_them for text in site.unlabelled.texts]
    assert len(more) == len(set(more)) == 10
    assert all((site.unlabelled.labels == -1).all() for site in with_them)
    others = [*server.test.texts, *server.validation.texts]
    for one, other in zip(with_them, without, strict=True):
        rows = texts([other.train, other.validation])
        assert texts([one.train, one.validation]) == rows
        assert not len(other.unlabelled)
        others += rows
    assert not set(more) & set(others)


def test_more_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unlabelled_rows = 90; accepted: at most the .* other tr"):
        sites(shared(table(tmp_path, 60), unlabelled_rows=90))


def test_a_sites_own_file(tmp_path: Path) -> None:
    (tmp_path / "more-1.txt").write_text("a film\n\n  another \n")
    (tmp_path / "more-0.txt").write_text("\ufeffthe first\n", encoding="utf-8")
    settings = shared(table(tmp_path, 60), unlabelled=str(tmp_path / "more-{client}.txt"))
    first, second = sites(settings)
    assert first.unlabelled.texts == ("the first",)
    assert second.unlabelled.texts == ("a film", "another")


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"\n"])
def test_a_file_that_has_none(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "more.txt").write_bytes(content)
    settings = shared(table(tmp_path, 60), unlabelled=str(tmp_path / "more.txt"))
    with pytest.raises(DataError, match=r"data\.unlabelled = .*more\.txt.*a row a line"):
        load_site(settings, 0, 2)
