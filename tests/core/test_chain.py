"""Chained lines: what is changed, cut out, moved or inserted is found, and where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from core.storage.chain import START, Chain, read_chain, sha256

NAMES = ("one", "two", "three", "four")


def chained(path: Path) -> list[bytes]:
    chain = Chain(path)
    chain.append({"event": NAMES[0]}, {"event": NAMES[1]})
    for name in NAMES[2:]:
        chain.append({"event": name})
    return path.read_bytes().splitlines()


def test_each_line_names_the_digest_of_the_bytes_above(tmp_path: Path) -> None:
    lines = chained(tmp_path / "log")
    assert [json.loads(line)["before"] for line in lines] == [START, *map(sha256, lines[:-1])]
    found = read_chain(tmp_path / "log")
    assert (found.broken, found.torn, found.head) == ("", [], sha256(lines[-1]))
    assert [one["event"] for one in found.lines] == list(NAMES)
    assert found.head == Chain(tmp_path / "log").head


def test_a_chain_goes_on_in_another_process(tmp_path: Path) -> None:
    chained(tmp_path / "log")
    Chain(tmp_path / "log").append({"event": "five"})
    assert [one["event"] for one in read_chain(tmp_path / "log").lines] == [*NAMES, "five"]


@given(place=some.integers(0, 2), at=some.integers(0, 60), change=some.integers(1, 255))
def test_any_changed_byte_above_the_last_line_is_found(place: int, at: int, change: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        lines = chained(path)
        one = bytearray(lines[place])
        one[at % len(one)] ^= change
        path.write_bytes(b"\n".join([*lines[:place], bytes(one), *lines[place + 1 :], b""]))
        found = read_chain(path)
        assert found.broken
        assert len(found.lines) <= place + 1


@pytest.mark.parametrize(
    ("order", "where"),
    [
        ((0, 2, 3), "line 2 does not follow from line 1"),
        ((0, 2, 1, 3), "line 2 does not follow from line 1"),
        ((0, 1, 1, 2, 3), "line 3 does not follow from line 2"),
        ((1, 2, 3), "line 1 does not begin a log"),
    ],
    ids=("cut out", "swapped", "twice", "beginning cut off"),
)
def test_lines_that_are_not_where_they_were(
    tmp_path: Path, order: tuple[int, ...], where: str
) -> None:
    lines = chained(tmp_path / "log")
    (tmp_path / "log").write_bytes(b"".join(lines[k] + b"\n" for k in order))
    assert read_chain(tmp_path / "log").broken.startswith(where)


def test_a_chain_made_anew_holds_and_has_another_head(tmp_path: Path) -> None:
    """What the chain cannot show: only who has noted a digest sees it."""
    chained(tmp_path / "log")
    before = read_chain(tmp_path / "log").head
    forged = Chain(tmp_path / "forged")
    forged.append(*({"event": name} for name in ("one", "two", "another", "four")))
    assert not read_chain(tmp_path / "forged").broken
    assert forged.head != before


@pytest.mark.parametrize("kept", [1, 20])
def test_a_line_half_written_stays_and_the_chain_goes_on_from_it(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "log"
    lines = chained(path)
    path.write_bytes(b"\n".join(lines[:3]) + b"\n" + lines[3][:kept])
    found = read_chain(path)
    assert (found.broken, found.torn) == ("", [4])
    Chain(path).append({"event": "resumed"})
    found = read_chain(path)
    assert (found.broken, found.torn) == ("", [4])
    assert [one["event"] for one in found.lines] == [*NAMES[:3], "resumed"]


def test_a_line_that_is_no_json_and_not_taken_up_breaks_the_chain(tmp_path: Path) -> None:
    lines = chained(tmp_path / "log")
    (tmp_path / "log").write_bytes(b"\n".join([lines[0], b"nonsense", *lines[1:], b""]))
    assert read_chain(tmp_path / "log").broken.startswith("line 2 is no JSON")


def test_lines_that_cannot_be_written_leave_the_chain_as_it_was(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "log")
    chain.append({"event": "one"})
    before = (tmp_path / "log").read_bytes(), chain.head
    with pytest.raises(TypeError):
        chain.append({"event": object()})
    assert ((tmp_path / "log").read_bytes(), chain.head) == before
