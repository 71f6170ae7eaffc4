"""The page of a run of more clients than it has lines for."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from core.storage.reading import Reader
from reporting import write_report
from reporting.charts import CROWD
from reporting.compared_run import SPENT, read_run
from reporting.crowd import EXTREMES, client_rows, extremes
from reporting.page import FIRST_ROWS
from reporting.record import read_record
from tests.server_app.test_report_runs import make_run, prepared

EVIL = "</script><script>alert(1)</script><!--"
CLIENTS = 1_000


class Scripts(HTMLParser):
    """Collects the contents of script elements, and counts elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.names: dict[str, int] = {}
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.names[tag] = self.names.get(tag, 0) + 1
        if tag == "script":
            self.scripts.append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data


def named(folder: Path, clients: int, rounds: int) -> Path:
    """Write a run whose sites have names of their own, one of them an evil one."""
    make_run(folder, clients, rounds)
    path = folder / "metrics.jsonl"
    first = prepared(clients, rounds)
    for k, one in enumerate(first["clients"]):
        one["site"] = EVIL if k == 7 else f"clinic {k:04d}"
        one["class_rows"] = [90 + k % 7, 110]
    _, *lines = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(first), *lines, ""]))
    return folder


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return named(tmp_path_factory.mktemp("runs") / "crowd", CLIENTS, 3)


@pytest.fixture(scope="module")
def text(crowd: Path) -> str:
    return write_report(crowd).read_text(encoding="utf-8")


def test_a_page_of_a_thousand_clients_is_small_and_has_all_of_them(text: str) -> None:
    page = Scripts(text)
    assert len(text.encode()) < 1_000_000
    assert page.names["tr"] < 400
    data, code = page.scripts
    found = json.loads(data)
    assert [int(row[0].split(" · ")[0]) for row in found["rows"]] == list(range(CLIENTS))
    assert found["rows"][7][0] == f"7 · {EVIL}"
    assert found["rows"][8][0] == "8 · clinic 0008"
    head = re.findall(r"<th[^>]*>([^<]*)</th>", text.split('<table id="found">')[1])
    assert len(found["rows"][0]) == len(head[: head.index("Waiting") + 1])
    assert "innerHTML" not in code
    assert "http" not in code


def test_without_scripts_there_is_a_short_table_and_a_note(text: str) -> None:
    body = text.split('<table id="found">')[1].split("</table>")[0]
    assert body.count("<tr>") == FIRST_ROWS + 1
    note = text.split("<noscript>")[1].split("</noscript>")[0]
    assert f"{FIRST_ROWS} of {CLIENTS}" in note
    assert '<label for="search">' in text
    assert 'role="status"' in text


@pytest.mark.parametrize(("clients", "searched"), [(CROWD, False), (CROWD + 1, True)])
def test_a_small_run_has_its_page_as_it_was(tmp_path: Path, clients: int, searched: bool) -> None:
    text = write_report(make_run(tmp_path / "run", clients, 2)).read_text(encoding="utf-8")
    assert ("<script" in text) == searched
    assert ("10 to 90 % of them" in text) == searched
    assert ("middle half of them" in text) != searched
    assert ("steps by client and round" in text) != searched


def test_the_extremes_are_those_of_the_figure_that_is_named(crowd: Path) -> None:
    record = read_record(crowd)
    best, worst = extremes(client_rows(record, None))
    last = {event["client"]: event["loss"] for event in record.clients}
    ranked = sorted(last, key=lambda client: last[client])
    ids = [[int(str(row[0]).split()[0]) for row in table.rows] for table in (best, worst)]
    assert ids == [ranked[:EXTREMES], ranked[: -EXTREMES - 1 : -1]]
    assert "the loss of its last model" in best.note


def test_no_client_is_among_the_best_and_the_worst(crowd: Path) -> None:
    few = [row for row in client_rows(read_record(crowd), None) if row["loss"] is not None][:17]
    best, worst = ({row[0] for row in table.rows} for table in extremes(few))
    assert len(best) == len(worst) == 8
    assert not best & worst


def test_each_file_is_read_once(crowd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    content = Reader.content

    def noted(reader: Reader, name: str) -> bytes | None:
        read.append(name)
        return content(reader, name)

    monkeypatch.setattr(Reader, "content", noted)
    write_report(crowd)
    assert len(read) == len(set(read)) == 7


def test_costs_so_far_equal_a_loop(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", 5, 6)
    entries = [
        {
            "round": number,
            "client": k,
            "circuits": 10 * number + k,
            "idle_seconds": 0.1 * k,
            "bytes_up": 3,
            "bytes_down": number,
        }
        for number in range(8)
        for k in range(5)
        if number != 3
    ]
    entries[-1]["bytes_up"] = None  # type: ignore[assignment]
    stored = json.loads((folder / "ledger.json").read_text())
    (folder / "ledger.json").write_text(json.dumps({**stored, "entries": entries}))
    points = read_run(folder).points
    for row in points.to_dict("records"):
        so_far = [one for one in entries if one["round"] <= row["round"]]
        sums = [
            sum(one["circuits"] for one in so_far),
            sum(one["idle_seconds"] for one in so_far),
            sum(one["bytes_up"] + one["bytes_down"] for one in so_far),
        ]
        assert [row[key] for key in SPENT] == pytest.approx(sums)
