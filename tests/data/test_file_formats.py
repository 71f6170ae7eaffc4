"""Files as people have them: what is refused, cleaned or reported, in the user's own run."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import DataError, parse_run
from data import ServerData, load_corpus, load_server
from data.readers.arrow import read_parquet
from data.readers.columns import Wanted

FEW = ("data.server_rows=4", "run.clients=2")


def load(path: Path, *given: str, source: str = "csv") -> ServerData:
    """Load what the server of a run holds, whose settings are given as on the command line."""
    chosen = (f"data.source={source}", f"data.path={path}", *FEW, *given)
    return load_server(parse_run([], list(chosen))[0])


def table(
    folder: Path,
    rows: int = 24,
    mark: str = ",",
    text: str = "row {0}",
    label: str = "{1}",
    head: tuple[str, ...] = ("text", "label"),
) -> Path:
    """Write a csv file of two classes in turn."""
    lines = [mark.join(head)]
    lines += [
        mark.join([text.format(i, "ab"[i % 2]), label.format(i, "ab"[i % 2])]) for i in range(rows)
    ]
    path = folder / "rows.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def jsonl(folder: Path, *more: str, rows: int = 24) -> Path:
    """Write a jsonl file of two classes in turn, and further lines as they are."""
    lines = [json.dumps({"text": f"row {i}", "label": "ab"[i % 2]}) for i in range(rows)]
    (folder / "rows.jsonl").write_text("\n".join([*lines, *more]) + "\n", encoding="utf-8")
    return folder / "rows.jsonl"


def everything(data: ServerData) -> list[str]:
    return [*data.train.texts, *data.validation.texts, *data.test.texts]


@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        (r'{"text": "half an emoji \ud83d", "label": "a"}', "half an emoji \ufffd"),
        (r'{"text": "whole \ud83c\udf89", "label": "a"}', "whole \U0001f389"),
        (r'{"text": "a\u0000b\u0007c\u009bd", "label": "a"}', "a b c d"),
        (r'{"text": "\u001b[31mred\u001b[0m", "label": "a"}', " red "),
        (r'{"text": "tab\tline\nend", "label": "a"}', "tab\tline\nend"),
        (r'{"text": "\u202bשלמ\u202c", "label": "a"}', "\u202bשלמ\u202c"),
    ],
)
def test_texts_are_cleaned_with_a_line_that_says_so(
    tmp_path: Path, line: str, becomes: str
) -> None:
    given = json.loads(line)["text"]
    path = jsonl(tmp_path, line, line.replace('"text": "', '"text": "+'))
    corpus = load_corpus(parse_run([], ["data.source=jsonl", f"data.path={path}"])[0].data, 0)
    assert {becomes, "+" + becomes} <= {*corpus.train.texts, *corpus.test.texts}
    notes = [note for note in corpus.notes if "control characters or halves" in note]
    assert len(notes) == (given != becomes)
    assert load(path, source="jsonl").info.notes[: len(notes)] == tuple(notes)
    for note in notes:
        assert "rows.jsonl, line 25: " in note
        assert note.endswith("now spaces or U+FFFD (and in 1 other rows)")


@pytest.mark.parametrize(
    ("label", "found"),
    [
        (r"\ud83d", "a label with the hidden character U+D83D"),
        (r"a\u202eb", "a label with the hidden character U+202E"),
        (r"pos\u200b", "a label with the hidden character U+200B"),
        (r"a\u001b[31m", "a label with the hidden character U+001B"),
        (r"a\u0000", "a label with the hidden character U+0000"),
        ("x" * 201, "a label of 201 characters"),
        ("9" * 5000, "a label of 5,000 characters"),
        ("  ", "no label"),
        ("NaN", "NaN in the place of a label: a missing value"),
    ],
)
def test_names_of_classes_are_visible(tmp_path: Path, label: str, found: str) -> None:
    path = jsonl(tmp_path, f'{{"text": "more", "label": "{label}"}}')
    with pytest.raises(DataError) as caught:
        load(path, source="jsonl")
    assert f"rows.jsonl, line 25: {found}; accepted: a label of 1 to 200 visible" in str(
        caught.value
    )
    str(caught.value).encode()


def test_emoji_and_joined_letters_are_names(tmp_path: Path) -> None:
    path = table(tmp_path, label="{1}\u200d\U0001f389")
    assert load(path).classes == ("a\u200d\U0001f389", "b\u200d\U0001f389")


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"PAR1\x15\x04", "is a Parquet file; accepted: .* set data.source = parquet"),
        (b"ARROW1\x00\x00", "is an Arrow file; accepted: .* set data.source = arrow"),
        (b"PK\x03\x04\x14\x00", "is a zip archive or an Excel workbook; .* save the sheet as csv"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "is a pointer of Git LFS; .* git lfs pull",
        ),
        (b"<!DOCTYPE html>\n<html>", "is a web page; .* download the file itself"),
        (b"BZh91AY", "is compressed by bzip2; .* gzip"),
        ("text,label\na,x\n".encode("utf-16-le"), "line 1: a zero byte, .* save the file as UTF-8"),
        (b"text,label\na\x00b,x\n", "rows.csv, line 2: a zero byte"),
        (
            b"text,label\n" + b"\xc3\xa9 " * 9 + b"caf\xe9,x\n",
            "line 2: byte 0xe9 at position 41 is",
        ),
        (b"\x1f\x8b\x08\x00broken", "is damaged gzip"),
        (b">seq1\nACGT\n>seq2\nTTTT\n", "looks like FASTA; .* set data.source = fasta"),
        (b'{"text": "a", "label": 1}\n', "looks like JSON; .* set data.source = jsonl"),
        (b'[{"text": "a", "label": 1}]\n', "looks like JSON; .* set data.source = jsonl"),
        (b'{"id": 1, "text": "a, b", "label": 1}\n', "looks like JSON; .* set data.source = jso"),
        (b'[{"id": 1, "text": "a, b", "label": 1}, {"id"', "looks like JSON; .* data.source = js"),
        (b'[\n  {\n    "text": "a"', "looks like JSON; .* set data.source = jsonl"),
        (b"Text,id,grade\na,1,x\n", "no column 'label'; accepted: .* columns: Text, id, grade;"),
    ],
)
def test_files_of_another_kind_are_named(tmp_path: Path, raw: bytes, found: str) -> None:
    (tmp_path / "rows.csv").write_bytes(raw)
    with pytest.raises(DataError, match=found):
        load(tmp_path / "rows.csv")


def test_empty_lines_above_the_header_are_skipped(tmp_path: Path) -> None:
    path = table(tmp_path)
    path.write_text("\n\n" + path.read_text())
    assert load(path).classes == ("a", "b")


def test_a_text_is_not_its_own_label(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"are both 'label'; accepted: two columns"):
        load(table(tmp_path), "data.text_column=label")


def test_gzip_is_read(tmp_path: Path) -> None:
    path = table(tmp_path)
    packed = tmp_path / "rows.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert sorted(everything(load(packed))) == sorted(everything(load(path)))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.csv")
    with pytest.raises(DataError, match=r"rows.csv is no regular file; accepted: an existing file"):
        load(tmp_path / "rows.csv")


@pytest.mark.parametrize(("word", "mark"), [("semicolon", ";"), ("tab", "\t"), ("pipe", "|")])
def test_other_delimiters_are_found_by_the_header_and_reported(
    tmp_path: Path, word: str, mark: str
) -> None:
    path = table(tmp_path, mark=mark, text="one, two {0}")
    found = load(path)
    assert set(everything(found)) <= {f"one, two {i}" for i in range(24)}
    assert f"{path}: read as separated by {word}s (data.delimiter = {word})" in found.info.notes
    named = load(path, f"data.delimiter={word}")
    assert everything(named) == everything(found)
    assert not any("separated" in note for note in named.info.notes)


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("wanted", ["auto", "comma", "semicolon", "tab", "pipe"])
@pytest.mark.parametrize("head", [("text", "label"), ("text", "grade"), ("words", "grade")])
def test_a_wrong_delimiter_is_never_answered_with_the_header(
    tmp_path: Path, mark: str, wanted: str, head: tuple[str, str]
) -> None:
    path = table(tmp_path, mark=mark, head=head)
    true = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}[mark]
    if head[0] == "text" and wanted in (true, "auto"):
        data = load(path, f"data.delimiter={wanted}")
        assert data.classes == ("a", "b")
        note = f"{path}: the label is the column grade (data.label_column)"
        assert (note in data.info.notes) == (head[1] == "grade")
        return
    with pytest.raises(DataError) as caught:
        load(path, f"data.delimiter={wanted}")
    error = str(caught.value)
    if wanted not in (true, "auto"):
        assert f"line 1 has 1 fields so, and 2 separated by {true}s" in error
        assert f"set data.delimiter = {true}" in error
        assert "put a header" not in error
    else:
        auto = wanted == "auto" and true == "comma"
        assert (f"separated by {true}s in line 1, has no column" in error) == (not auto)
        assert "put a header" in error


def test_a_delimiter_is_for_csv_only(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data.delimiter = 'tab' would be ignored"):
        load(jsonl(tmp_path), "data.delimiter=tab", source="jsonl")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("text,label,text\na,x,b\n", "line 1 names the column 'text' 2 times; accepted: each"),
        ('text,label\nfine,x\n"open,y\nlost,x\n', "line 3: not csv .a quote opens here and is nev"),
        ('text,label\n"two\nlines",x\nfew\n', "rows.csv, line 4: 1 fields; accepted: 2 fields"),
        ("text;label\na;x;y\n", "line 2: 3 fields; .* a text with semicolons stands in double"),
    ],
)
def test_what_is_wrong_with_a_csv_line(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(DataError, match=found):
        load(tmp_path / "rows.csv")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('{"text": "more"}', "line 25 has no column 'label'; accepted: one of its columns: text;"),
        ('{"txt": "more"}', "line 25 has no column 'text'; accepted: .* .1 named there.;"),
        ('{"text": "a", "label": 1, "text": "b"}', "line 25 has a key twice; accepted: each key"),
        ("[" * 100_000, "line 25: not JSON .nested or long beyond reason"),
        ('{"text": "a", "label": ' + "9" * 5000 + "}", "line 25: not JSON"),
        ('[{"text": "a", "label": 1}]', "line 25: a list; .* data.source = json for an array"),
    ],
)
def test_what_is_wrong_with_a_json_line(tmp_path: Path, line: str, found: str) -> None:
    with pytest.raises(DataError, match=found):
        load(jsonl(tmp_path, line), source="jsonl")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('[{"text": "a", "label": 1}]', "line 1: a list; .*data.source = json for an array"),
        ('[\n  {\n    "text": "a"', "line 1: not JSON .*; write each object on a line of its own"),
        ('{\n  "text": "a"', "line 1: not JSON .*; write each object on a line of its own"),
        (">seq1\nACGT\n", "looks like FASTA; .* set data.source = fasta"),
    ],
)
def test_what_is_no_json_lines(tmp_path: Path, content: str, found: str) -> None:
    (tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(DataError, match=found) as caught:
        load(tmp_path / "rows.jsonl", source="jsonl")
    assert "csv if" not in str(caught.value)


def test_a_table_read_as_json(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 1: not JSON .*, or set data.source = csv if this"):
        load(table(tmp_path), source="jsonl")


@pytest.mark.parametrize("name", ["NaN", "", " ", "null", "<NA>"])
def test_no_site_is_made_of_missing_values(tmp_path: Path, name: str) -> None:
    rows = [f"row {i},{'ab'[i % 2]},{'east' if i < 12 else 'west'}" for i in range(24)]
    rows.insert(7, f"lost,a,{name}")
    (tmp_path / "rows.csv").write_text("text,label,ward\n" + "\n".join(rows) + "\n")
    with pytest.raises(
        DataError, match=r"rows.csv, line 9: .*site.*; accepted: a site of 1 to 200"
    ):
        load(
            tmp_path / "rows.csv",
            "data.partition=column",
            "data.partition_column=ward",
            "run.clients=3",
        )


def test_a_header_that_stands_again_is_no_class(tmp_path: Path) -> None:
    path = table(tmp_path)
    text = path.read_text()
    path.write_text(text + "\ufeff" + text.replace("row", "other") + text.replace("row", "third"))
    data = load(path)
    assert data.classes == ("a", "b")
    assert data.info.notes[0] == (
        f"{path}, line 26: the header again, as where files were put together: left out "
        "(and in 1 other rows)"
    )


def test_our_limits_and_not_the_librarys(tmp_path: Path) -> None:
    path = table(tmp_path, text="row {0} " + "long " * 40_000)
    assert min(map(len, everything(load(path)))) > 131_072


def test_dna_is_not_read_as_text(tmp_path: Path) -> None:
    path = table(tmp_path, text="ACGTACGTAC")
    with pytest.raises(DataError, match=r"every text is a sequence .*; set data.kind = dna"):
        load(path)
    assert load(path, "data.kind=dna").kind == "dna"


def test_rna_is_read_as_dna_and_said(tmp_path: Path) -> None:
    data = load(table(tmp_path, text="ACGUacguUU"), "data.kind=dna")
    assert set(everything(data)) == {"ACGTACGTTT"}
    assert any(
        "line 2: RNA: each U is read as T (and in 23 other rows)" in n for n in data.info.notes
    )


@pytest.mark.parametrize("label", ["{0}", "0.{0}7"])
def test_numbers_to_predict_are_no_classes(tmp_path: Path, label: str) -> None:
    path = table(tmp_path, rows=150, label=label)
    with pytest.raises(DataError, match=r"150 different labels in 150 rows; accepted: at most 100"):
        load(path)


@pytest.mark.parametrize("rows", [2, 3, 5, 8, 9])
def test_too_few_rows_say_how_many_it_takes(tmp_path: Path, rows: int) -> None:
    path = table(tmp_path, rows=rows)
    with pytest.raises(DataError) as caught:
        load(path, "run.clients=3", "data.server_rows=0")
    error = str(caught.value)
    assert f"rows.csv has {rows} rows" in error
    needed = int(error.split("accepted: ")[1].split()[0])
    assert load(table(tmp_path, rows=needed), "run.clients=3", "data.server_rows=0")
    with pytest.raises(DataError):
        load(table(tmp_path, rows=needed - 1), "run.clients=3", "data.server_rows=0")


@settings(max_examples=60, deadline=2000)
@given(raw=st.binary(max_size=300), source=st.sampled_from(["csv", "jsonl", "genomic"]))
def test_any_bytes_are_rows_or_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, source: str
) -> None:
    folder, texts = tmp_path_factory.mktemp("any"), list[str]()
    for head in (b"", b"text,label\n", b"seq,label\n"):
        for name in ("rows.csv", "train.csv", "test.csv"):
            (folder / name).write_bytes(head + raw)
        try:
            load(folder if source == "genomic" else folder / "rows.csv", source=source)
        except DataError as error:
            texts.append(str(error))
    assert all("; accepted: " in line and line.encode() for line in texts)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=2000)
@given(entry=st.fixed_dictionaries({"text": JSON, "label": JSON}))
def test_any_json_value_is_a_row_or_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, entry: dict[str, Any]
) -> None:
    path = jsonl(tmp_path_factory.mktemp("any"), json.dumps(entry))
    try:
        data = load(path, source="jsonl")
    except DataError as error:
        texts = [str(error)]
    else:
        texts = [*everything(data), *data.classes]
    assert "".join(texts).encode()
    assert len(texts) > 1 or "rows.jsonl, line 25" in texts[0] or "3 classes" in texts[0]


@pytest.mark.parametrize("written", [b"{", b"[]", b'{"info": null}', b'{"info": {"features": 3}}'])
def test_metadata_of_another_program_names_no_classes(written: bytes, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"text": ["a", "b"], "label": [0, 1]})
    pq.write_table(table.replace_schema_metadata({b"huggingface": written}), tmp_path / "x")
    assert read_parquet(tmp_path / "x", Wanted()).labels == ("0", "1")
