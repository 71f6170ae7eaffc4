"""Files of the user's own, and everything that can be wrong with them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from core import DataError, DataSettings, SettingsError
from data import load_corpus

ROWS = [("good film", "pos"), ("bad film", "neg"), ("fine, really", "pos"), ("awful", "neg")]


def csv_file(folder: Path, text: str, name: str = "rows.csv") -> Path:
    """Write a file."""
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def many(rows: int = 20) -> str:
    """Give csv text of two classes in turn."""
    return "text,label\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(rows))


def load(path: Path, source: str = "csv", seed: int = 0, **others: Any) -> Any:
    return load_corpus(DataSettings(source=source, path=str(path), **others), seed)


def test_csv_with_a_held_out_test(tmp_path: Path) -> None:
    corpus = load(csv_file(tmp_path, many()), test_fraction=0.3)
    assert corpus.name == "rows.csv"
    assert corpus.kind == "text"
    assert corpus.classes == ("a", "b")
    assert (len(corpus.train), len(corpus.test)) == (14, 6)
    assert corpus.test.labels.tolist().count(0) == 3
    assert sorted(corpus.train.texts + corpus.test.texts) == sorted(f"row {i}" for i in range(20))


def test_held_out_rows_follow_the_seed(tmp_path: Path) -> None:
    path = csv_file(tmp_path, many())
    first, again, other = (load(path, seed=seed).test.texts for seed in (0, 0, 1))
    assert first == again
    assert set(first) != set(other)


def test_test_file_of_its_own(tmp_path: Path) -> None:
    test = csv_file(tmp_path, "text,label\nnew,b\n", "test.csv")
    corpus = load(csv_file(tmp_path, many()), test_path=str(test))
    assert (len(corpus.train), corpus.test.texts) == (20, ("new",))
    assert corpus.test.labels.tolist() == [1]


def test_quoted_csv_with_a_mark_and_other_columns(tmp_path: Path) -> None:
    text = '\ufeffid,review,grade\r\n1,"fine, ""really""\nyes",2\r\n2,no,10\r\n3,x,2\r\n4,y,10\r\n'
    corpus = load(csv_file(tmp_path, text), text_column="review", label_column="grade")
    assert corpus.classes == ("2", "10")
    assert 'fine, "really"\nyes' in corpus.train.texts + corpus.test.texts


def test_jsonl(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"a\u2028{i}", "label": bool(i % 2)}) for i in range(10)]
    corpus = load(csv_file(tmp_path, "\n".join(lines) + "\n\n", "rows.jsonl"), "jsonl")
    assert corpus.classes == ("false", "true")
    assert len(corpus.train) + len(corpus.test) == 10


def test_order_of_the_classes(tmp_path: Path) -> None:
    path = csv_file(tmp_path, many())
    assert load(path, labels="b, a").classes == ("b", "a")
    assert load(path, labels="b,a,c").classes == ("b", "a", "c")


def test_dna_of_ones_own(tmp_path: Path) -> None:
    text = "text,label\n" + "acgtn,x\nACGT,y\n" * 3
    corpus = load(csv_file(tmp_path, text), kind="dna")
    assert set(corpus.train.texts + corpus.test.texts) == {"ACGTN", "ACGT"}


def test_partition_column_is_kept(tmp_path: Path) -> None:
    text = "text,label,ward\n" + "a,x,east\nb,y,west\n" * 3
    corpus = load(csv_file(tmp_path, text), partition="column", partition_column="ward")
    wards = dict(zip(corpus.train.texts, corpus.train.groups, strict=True))
    assert wards == {"a": "east", "b": "west"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"rows.csv is empty"),
        ("text,label\n", r"rows.csv has no rows"),
        ("a,b,label\nx,y,1\n", r"no column 'text'; accepted: one of its columns: a, b, label"),
        ("text,a,b\nx,1,2\n", r"no column 'label'; accepted: one of its columns: text, a, b"),
        ("text,label\na,1\nb\n", r"rows.csv, line 3: 1 fields; accepted: 2 fields"),
        ("text,label\na,b,c\n", r"rows.csv, line 2: 3 fields"),
        ('text,label\n"a"b,1\n', r"rows.csv, line 2: not csv"),
        ("text,label\na,x\nb,x\nc,x\n", r"rows.csv has rows of one class only; accepted"),
        ("text,label\na,x\n , y\nc,x\n", r"rows.csv, line 3: no text"),
        (
            "text,label\na,x\nb,\nc,y\n",
            r"rows.csv, line 3: no label; accepted: a label of 1 to 200 visible characters",
        ),
        ("text,label\na,x\n", r"rows.csv has 1 training rows for 1 classes"),
        ("text,label\na,x\nb,y\n", r"rows.csv has 2 rows; accepted: 4 rows or more"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(csv_file(tmp_path, text))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a", "label"', r"rows.jsonl, line 2: not JSON"),
        ("[1, 2]", r"rows.jsonl, line 2: a list; accepted: one object a line"),
        ('{"text": "a"}', r"no column 'label'; accepted: one of its columns: text"),
        ('{"text": 7, "label": 1}', r"rows.jsonl, line 2: 'text' is a number; accepted: a string"),
        ('{"text": null, "label": 1}', r"line 2: 'text' is null; accepted: a string"),
        (
            '{"text": "a", "label": 1.5}',
            r"line 2: 'label' is a number; accepted: a string, a whole",
        ),
    ],
)
def test_bad_jsonl(tmp_path: Path, line: str, message: str) -> None:
    text = '{"text": "ok", "label": 0}\n' + line + "\n"
    with pytest.raises(DataError, match=message):
        load(csv_file(tmp_path, text, "rows.jsonl"), "jsonl")


def test_missing_file_folder_and_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.csv does not exist; accepted: an existing file"):
        load(tmp_path / "none.csv")
    with pytest.raises(DataError, match=r" is a folder; accepted: an existing file"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"data.source = csv without data.path"):
        load_corpus(DataSettings(source="csv"), 0)


def test_undecodable(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"\xef\xbb\xbftext,label\nok,1\nna\xefve,0\n")
    with pytest.raises(
        DataError, match=r"rows.csv, line 3: byte 0xef at position 21 is not UTF-8; .* as UTF-8"
    ):
        load(tmp_path / "rows.csv")


def test_unknown_label(tmp_path: Path) -> None:
    path = csv_file(tmp_path, many())
    with pytest.raises(
        DataError, match=r"line 3: a label that is not among the 2 classes; accepted: a, c"
    ):
        load(path, labels="a,c")


def test_test_file_with_an_unknown_label(tmp_path: Path) -> None:
    test = csv_file(tmp_path, "text,label\nnew,z\n", "test.csv")
    with pytest.raises(
        DataError, match=r"test.csv, line 2: a label that is not among the 2 classes"
    ):
        load(csv_file(tmp_path, many()), test_path=str(test))


def test_fewer_rows_than_classes(tmp_path: Path) -> None:
    text = "text,label\na,v\nb,w\nc,v\n"
    with pytest.raises(DataError, match=r"rows.csv has 3 training rows for 4 classes"):
        load(csv_file(tmp_path, text), labels="v,w,x,y")


@pytest.mark.parametrize(
    ("sequence", "line", "letter"),
    [("ACGR", 4, "R"), ("XACG", 4, "X"), ("AC GT", 4, " "), ("ACé", 4, "é")],
)
def test_other_letters(tmp_path: Path, sequence: str, line: int, letter: str) -> None:
    text = f"text,label\nACGTNacgtn,x\nTTTT,y\n{sequence},x\nACGT,y\n"
    with pytest.raises(
        DataError, match=rf"rows.csv, line {line}: letter '{letter}' in a DNA sequence; .* by N"
    ):
        load(csv_file(tmp_path, text), kind="dna")


def test_empty_sequence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows.csv, line 3: no text"):
        load(csv_file(tmp_path, "text,label\nACGT,x\n,y\nAC,x\n"), kind="dna")


@pytest.mark.parametrize("labels", ["a", "a,a", "a,,b"])
def test_bad_class_names(tmp_path: Path, labels: str) -> None:
    with pytest.raises(SettingsError, match=r"two or more different class names"):
        load(csv_file(tmp_path, many()), labels=labels)


SECRET = "Patient Meier 4711"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("csv", f"{SECRET},x\nother,y\n"),
        ("csv", f"text,label\nfine,x\nbad,y\nlost,x,{SECRET}\n"),
        ("csv", f'text,label\nfine,x\n"bad"{SECRET},y\n'),
        ("csv", f"text,label\nfine,{SECRET}\nbad,{SECRET}\nworse,{SECRET}\n"),
        ("csv", f"text,label\nfine,{SECRET}\nbad,y\nworse,\n"),
        ("csv labels", f"text,label\nfine,x\nbad,{SECRET}\n"),
        ("csv dna", f"text,label\nACGT,x\n{SECRET},y\n"),
        ("jsonl", f'{{"{SECRET}": 1}}\n'),
        ("jsonl", f'{{"text": ["{SECRET}"], "label": 1}}\n'),
        ("jsonl", f'{{"text": {{"name": "{SECRET}"}}, "label": 1}}\n'),
        ("jsonl", f'{{"text": "a", "label": ["{SECRET}"]}}\n'),
        ("jsonl", f'{{"text": "{SECRET}", "label"\n'),
        ("jsonl", f'"{SECRET}"\n'),
    ],
)
def test_no_message_carries_what_rows_hold(tmp_path: Path, source: str, text: str) -> None:
    """A client's message goes to the server."""
    source, _, what = source.partition(" ")
    others: dict[str, Any] = {"labels": {"labels": "x,y"}, "dna": {"kind": "dna"}}.get(what, {})
    with pytest.raises(DataError) as caught:
        load(csv_file(tmp_path, text, f"rows.{source}"), source, **others)
    assert not {"Patient", "Meier", "4711"} & set(re.findall(r"\w+", str(caught.value)))


def test_a_file_without_header_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no column 'text'; accepted: .* \(2 named there\); .* put a header"
    ):
        load(csv_file(tmp_path, "some text,x\nother,y\n"))


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("null", "null"),
        ("true", "true or false"),
        ("0.5", "a number"),
        ("[1]", "a list"),
        ("{}", "an object"),
    ],
)
def test_type_of_a_wrong_value_is_named(tmp_path: Path, value: str, named: str) -> None:
    path = csv_file(tmp_path, f'{{"text": {value}, "label": 1}}\n', "rows.jsonl")
    with pytest.raises(DataError, match=rf"line 1: 'text' is {named}; accepted: a string"):
        load(path, "jsonl")
