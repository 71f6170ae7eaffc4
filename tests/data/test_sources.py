"""Every format of data: what is read, found and reported, and what is refused with candidates."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from core import DataError, SettingsError, parse_run
from data import ServerData, Site, load_federation

FEW = ("data.server_rows=4", "run.clients=2")
TEXTS = [f"row {i} café" for i in range(24)]
DNA = ["ACGT" * (i % 3 + 2) + "AC"[i % 2] for i in range(24)]
LABELS = ["ab"[i % 2] for i in range(24)]


@dataclass(frozen=True)
class Loaded:
    """What all parts of a run hold."""

    server: ServerData
    sites: tuple[Site, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        return self.server.info.notes

    @property
    def rows(self) -> dict[str, str]:
        """Label of each text, over all parts."""
        held = [part for site in self.sites for part in (site.train, site.validation)]
        return {
            text: self.server.classes[label]
            for part in (*held, self.server.validation, self.server.test)
            for text, label in zip(part.texts, part.labels.tolist(), strict=True)
        }


def load(source: str, path: Path, *given: str) -> Loaded:
    """Load what a run holds, whose settings are given as on the command line."""
    given = (f"data.source={source}", f"data.path={path}", *FEW, *given)
    return Loaded(*load_federation(parse_run([], list(given))[0]))


EXPECTED = dict(zip(TEXTS, LABELS, strict=True))


def delimited(mark: str) -> bytes:
    return "\n".join([f"text{mark}label", *(f"{t}{mark}{k}" for t, k in EXPECTED.items())]).encode()


def entries() -> list[dict[str, str]]:
    return [{"text": text, "label": label} for text, label in EXPECTED.items()]


def arrow_table() -> Any:
    import pyarrow as pa

    return pa.table({"text": TEXTS, "label": LABELS})


def parquet(table: Any = None) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table or arrow_table(), sink)
    return bytes(sink.getvalue())


def arrow(stream: bool) -> bytes:
    import pyarrow as pa

    sink, table = pa.BufferOutputStream(), arrow_table()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


FORMATS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "csv": ("csv", lambda: delimited(",")),
    "tsv": ("tsv", lambda: delimited("\t")),
    "jsonl": ("jsonl", lambda: "\n".join(map(json.dumps, entries())).encode()),
    "json": ("json", lambda: json.dumps(entries(), indent=1).encode()),
    "parquet": ("parquet", parquet),
    "arrow file": ("arrow", lambda: arrow(stream=False)),
    "arrow stream": ("arrow", lambda: arrow(stream=True)),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("form", FORMATS)
def test_every_format_of_tables_gives_the_same_rows(
    tmp_path: Path, form: str, packed: bool
) -> None:
    source, make = FORMATS[form]
    path = tmp_path / f"rows.{source}{'.gz' * packed}"
    path.write_bytes(gzip.compress(make()) if packed else make())
    data = load(source, path)
    assert data.rows == EXPECTED
    assert data.server.classes == ("a", "b")
    assert data.notes == ()


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_of_tables_has_sites_and_other_columns(tmp_path: Path, form: str) -> None:
    source, make = FORMATS[form]
    (tmp_path / "rows").write_bytes(make())
    (tmp_path / "test").write_bytes(make())
    given = ["data.text_column=label", "data.label_column=text", "data.labels=a,b"]
    with pytest.raises(DataError, match=r"rows, (line|row) \d+: a label that is not among the 2"):
        load(source, tmp_path / "rows", *given)
    by_column = ["data.partition=column", "data.partition_column=label", "features.kind=embedding"]
    settings = [f"data.source={source}", f"data.path={tmp_path}/rows", *FEW, *by_column]
    settings += [f"data.test_path={tmp_path}/test", "data.server_rows=2"]
    server, sites = load_federation(parse_run([], settings)[0])
    assert [set(site.train.labels.tolist()) for site in sites] == [{0}, {1}]
    assert len(server.test) == 24


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_of_another_format_is_one_line(tmp_path: Path, form: str) -> None:
    path = tmp_path / "rows"
    path.write_bytes(FORMATS[form][1]())
    for source in ("csv", "tsv", "jsonl", "json", "parquet", "arrow"):
        if source != FORMATS[form][0] and {source, FORMATS[form][0]} != {"csv", "tsv"}:
            with pytest.raises(DataError, match=r"rows.*; accepted: .*; ") as caught:
                load(source, path)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("utf-8", ""),
        ("utf-8-sig", ""),
        ("utf-16", "utf-16"),
        ("utf-16-be", "utf-16"),
        ("utf-32", "utf-32"),
        ("cp1252", "cp1252"),
        ("latin-1", "cp1252"),
    ],
)
@pytest.mark.parametrize("source", ["csv", "jsonl", "json"])
def test_the_encoding_is_found_and_reported(
    tmp_path: Path, encoding: str, name: str, source: str
) -> None:
    text = {
        "csv": delimited(",").decode(),
        "jsonl": "\n".join(json.dumps(e, ensure_ascii=False) for e in entries()),
        "json": json.dumps(entries(), ensure_ascii=False),
    }[source]
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    path = tmp_path / "rows"
    path.write_bytes(mark + text.encode(encoding))
    data = load(source, path)
    assert data.rows == EXPECTED
    line = f"{path}: read as {name} (data.encoding = {name})"
    assert data.notes == ((line,) if name else ())
    if name:
        named = load(source, path, f"data.encoding={encoding if not mark else 'utf-16'}")
        assert named.rows == EXPECTED
        assert named.notes == ()


def test_an_encoding_that_may_be_several_is_refused_with_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    text = "text,label\n" + "".join(f"привет {i},{'ab'[i % 2]}\n" for i in range(24))
    path.write_bytes(text.encode("cp1251"))
    with pytest.raises(DataError, match=r"line 2: not UTF-8; accepted: .*cp1251, koi8-r.*; set da"):
        load("csv", path)
    assert "привет 3" in load("csv", path, "data.encoding=cp1251").rows
    with pytest.raises(DataError, match=r"line 2: byte 0xef at position 11 is not ascii"):
        load("csv", path, "data.encoding=ascii")
    with pytest.raises(SettingsError, match=r"data.encoding = 'rot13'; accepted: auto, utf-8, utf"):
        load("csv", path, "data.encoding=rot13")


def test_an_encoding_is_no_setting_of_binary_files(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"data.encoding = 'cp1252' would be ignored because da"
    ):
        load("parquet", tmp_path / "rows", "data.encoding=cp1252")


@pytest.mark.parametrize(
    ("head", "found"),
    [
        ("text,label", []),
        ("review,label", ["the text is the column review (data.text_column)"]),
        ("Text,Label", ["the text is the column Text", "the label is the column Label"]),
        ("text,grade", ["the label is the column grade (data.label_column)"]),
        ("words,label", ["the text is the column words (data.text_column)"]),
    ],
)
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_columns_are_found_and_reported(
    tmp_path: Path, head: str, found: list[str], form: str
) -> None:
    first, second = head.split(",")
    table = [{first: text, second: label} for text, label in EXPECTED.items()]
    path = tmp_path / "rows"
    path.write_bytes(written(form, table))
    data = load(form, path)
    assert data.rows == EXPECTED
    assert len(data.notes) == len(found)
    assert all(line in note for line, note in zip(found, data.notes, strict=True))


def written(form: str, table: list[dict[str, str]]) -> bytes:
    """Write a table in a format."""
    if form == "parquet":
        import pyarrow as pa

        return parquet(pa.Table.from_pylist(table))
    if form == "jsonl":
        return "\n".join(map(json.dumps, table)).encode()
    return "\n".join([",".join(table[0]), *(",".join(row.values()) for row in table)]).encode()


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"target": "x"}, "the label may be any of the columns class, target; accepted: one label"),
        ({"body": "x"}, "the text may be any of the columns review, body; accepted: one text"),
    ],
)
def test_columns_that_may_be_it_are_named(
    tmp_path: Path, form: str, more: dict[str, str], line: str
) -> None:
    table = [{"review": text, "class": label} | more for text, label in EXPECTED.items()]
    (tmp_path / "rows").write_bytes(written(form, table))
    with pytest.raises(DataError, match=line):
        load(form, tmp_path / "rows")
    named = load(form, tmp_path / "rows", "data.text_column=review", "data.label_column=class")
    assert named.rows == EXPECTED


def test_two_delimiters_that_fit_are_named(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label,a;text;label\n")
    with pytest.raises(DataError, match=r"by commas or semicolons; accepted: one delimi"):
        load("csv", tmp_path / "rows.csv")


def test_class_names_of_datasets_are_read_from_its_files(tmp_path: Path) -> None:
    """The library writes them beside the columns; -1 stands for a label that is withheld."""
    import datasets

    features = datasets.Features(
        {"sentence": datasets.Value("string"), "gold": datasets.ClassLabel(names=["no", "yes"])}
    )
    gold = [i % 2 for i in range(24)]
    columns = {"sentence": TEXTS, "gold": gold}
    datasets.Dataset.from_dict(columns, features).to_parquet(tmp_path / "rows.parquet")
    data = load("parquet", tmp_path / "rows.parquet")
    assert data.rows == dict(zip(TEXTS, ["no", "yes"] * 12, strict=True))
    assert any("the label is the column gold" in note for note in data.notes)
    gold[3] = -1
    datasets.Dataset.from_dict(columns, features).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows.parquet, row 4: no label"):
        load("parquet", tmp_path / "rows.parquet")


@pytest.mark.parametrize(("value", "kind"), [(None, "null"), (1.5, "a number")])
def test_values_of_another_type_are_named(tmp_path: Path, value: Any, kind: str) -> None:
    import pyarrow as pa

    labels: list[Any] = [float(i % 2) for i in range(24)] if value else list(LABELS)
    labels[2] = value
    (tmp_path / "rows").write_bytes(parquet(pa.table({"text": TEXTS, "label": labels})))
    row = 1 if value else 3
    with pytest.raises(DataError, match=rf"row {row}: 'label' is {kind}; accepted: a string, a wh"):
        load("parquet", tmp_path / "rows")


def fasta(labels: list[str] | None = None) -> str:
    return "".join(
        f">id{i} class={labels[i]} x\n{s[:5]}\n{s[5:]}\n" if labels else f">id{i}\n{s}\n"
        for i, s in enumerate(DNA)
    )


def fastq() -> str:
    return "".join(f"@id{i} class={LABELS[i]}\n{s}\n+\n{'I' * len(s)}\n" for i, s in enumerate(DNA))


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("source", ["fasta", "fastq"])
def test_labels_in_headers(tmp_path: Path, source: str, packed: bool) -> None:
    content = (fasta(LABELS) if source == "fasta" else fastq()).encode()
    (tmp_path / "rows").write_bytes(gzip.compress(content) if packed else content)
    data = load(source, tmp_path / "rows", r"data.label_pattern=class=(\w+)")
    assert data.server.kind == "dna"
    assert data.rows == dict(zip(DNA, LABELS, strict=True))


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_a_file_a_class(tmp_path: Path, packed: str) -> None:
    for label, ending in (("human", ".fa"), ("worm", ".fasta")):
        letter = "A" if label == "human" else "C"
        content = "".join(f">{i}\n{letter * 9}\n" for i in range(12))
        file = tmp_path / f"{label}{ending}{packed}"
        file.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    (tmp_path / "README.md").write_text("no sequences")
    data = load("fasta", tmp_path)
    assert data.server.classes == ("human", "worm")
    assert data.rows == {"A" * 9: "human", "C" * 9: "worm"}
    assert f"{tmp_path}: the name of a file is the label of its sequences" in data.notes


def test_a_file_a_class_with_official_test_rows(tmp_path: Path) -> None:
    for split, count in (("train", 12), ("test", 3)):
        (tmp_path / split).mkdir()
        for label, letter in (("a", "A"), ("b", "C")):
            text = "".join(f">{i}\n{letter * (i + 3)}\n" for i in range(count))
            (tmp_path / split / f"{label}.fna").write_text(text)
    data = load("fasta", tmp_path)
    assert len(data.server.test) == 6
    assert len(data.rows) == 24


@pytest.mark.parametrize(
    ("source", "content", "line"),
    [
        ("fasta", "ACGT\n>a\nACGT\n", "line 1: not FASTA; accepted: a header that begins with >"),
        ("fasta", ">a\nACXT\n", "line 1: letter 'X' in a DNA sequence"),
        ("fasta", ">a class=1\n>b class=2\nAC\n", "line 1: no text"),
        ("fasta", ">b\nACGT\n", "line 1: data.label_pattern finds no label in the header"),
        ("fastq", "@a class=1\nACGT\n+\nIII\n", "line 2: not FASTQ; accepted: as many qualities"),
        ("fastq", "@a class=1\nACGT\n", "line 1: not FASTQ; accepted: four lines a sequence"),
        ("fastq", ">a class=1\nACGT\n", "line 1: not FASTQ; accepted: a header that begins with @"),
    ],
)
def test_what_is_wrong_with_sequences(tmp_path: Path, source: str, content: str, line: str) -> None:
    (tmp_path / "rows").write_text(content.replace(">a\nACX", ">a class=1\nACX"))
    with pytest.raises(DataError, match=line):
        load(source, tmp_path / "rows", r"data.label_pattern=class=(\w+)", "data.labels=1,2")


def test_sequences_whose_class_nothing_names(tmp_path: Path) -> None:
    (tmp_path / "rows.fa").write_text(fasta())
    with pytest.raises(
        DataError, match=r"nothing says which class .*; set data.label_pattern, for"
    ):
        load("fasta", tmp_path / "rows.fa")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty has no fasta files; accepted: files that end in"):
        load("fasta", tmp_path / "empty")
    for pattern in ("class", "(a)(b)", "(("):
        with pytest.raises(SettingsError, match=r"label_pattern = .*; accepted: a regular express"):
            load("fasta", tmp_path / "rows.fa", f"data.label_pattern={pattern}")


def test_a_file_a_site_of_every_format(tmp_path: Path) -> None:
    own = ["data.per_site=true", "data.labels=a,b", "evaluation.mode=federated", "run.clients=2"]
    for form, (source, make) in FORMATS.items():
        for client in range(2):
            (tmp_path / f"{client}").write_bytes(make())
        given = [f"data.source={source}", f"data.path={tmp_path}/{{client}}", *own]
        _, sites = load_federation(parse_run([], given)[0])
        parts = [(site.train, site.validation, site.test) for site in sites]
        assert [sum(map(len, part)) for part in parts] == [24, 24], form
    for client in range(2):
        (tmp_path / f"{client}.fa").write_text(fasta(LABELS))
    given = ["data.source=fasta", f"data.path={tmp_path}/{{client}}.fa", *own]
    server, sites = load_federation(parse_run([], [*given, r"data.label_pattern=class=(\w)"])[0])
    assert server.kind == "dna"
    assert sum(map(len, (sites[1].train, sites[1].validation, sites[1].test))) == 24
