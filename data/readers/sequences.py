"""FASTA and FASTQ: sequences with a header each, which or whose file names the class."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from core import DataError
from data.dataset import Columns
from data.readers.content import lines_of, read_text

ENDINGS = {
    "fasta": (".fasta", ".fa", ".fna", ".ffn", ".fas"),
    "fastq": (".fastq", ".fq"),
}
"""How the names of files end, behind which ``.gz`` may stand."""

Record = tuple[int, str, str]
"""The line of the header, the header without its mark, and the sequence."""


def read_sequences(path: Path, form: str, pattern: str, encoding: str = "auto") -> Columns:
    """Read sequences and their labels.

    Parameters
    ----------
    path : Path
        A file, or a folder with a file a class; gzip too.
    form : {"fasta", "fastq"}
        Format of the files.
    pattern : str
        Regular expression whose one group is the label in a header; empty: the label is the name
        of the file without its ending.
    encoding : str
        As `data.readers.content.read_text`.

    Raises
    ------
    DataError
        If a file is missing or malformed, a header has no label, or nothing names the class.
    """
    files = _files(path, form) if path.is_dir() else [path]
    if not pattern and not path.is_dir():
        raise DataError(
            f"{path}: nothing says which class a sequence is of",
            "a pattern that finds the label in a header, or a folder with a file a class",
            "set data.label_pattern, for instance class=(\\w+), or data.path to the folder",
        )
    texts, labels, lines, names = list[str](), list[str](), list[int](), list[str]()
    notes: tuple[str, ...] = ()
    for file in files:
        records, more = read_records(file, form, encoding)
        notes += more
        for line, header, sequence in records:
            where = f"{file}, line {line}"
            labels.append(_label(header, pattern, where) if pattern else _stem(file, form))
            texts.append(sequence)
            lines.append(line)
            names.append(str(file))
    if not pattern:
        notes += (f"{path}: the name of a file is the label of its sequences",)
    return Columns(texts, labels, (), str(path), lines, names, notes=notes)


def read_records(
    file: Path, form: str, encoding: str = "auto"
) -> tuple[list[Record], tuple[str, ...]]:
    """Read a file's sequences without labels, and say how it was read; as `read_sequences`."""
    content, notes = read_text(file, encoding)
    return list(_records(file, form, lines_of(content))), notes


def _files(folder: Path, form: str) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if _stem(file, form) != file.name)
    if not files:
        endings = ", ".join(ENDINGS[form])
        raise DataError(
            f"{folder} has no {form} files",
            f"files that end in {endings}, or these with .gz",
            "check data.path",
        )
    return files


def _stem(file: Path, form: str) -> str:
    """Return the name of a file without the ending of the form; the name itself without one."""
    plain = file.name.removesuffix(".gz")
    return next((plain[: -len(e)] for e in ENDINGS[form] if plain.endswith(e)), file.name)


def _label(header: str, pattern: str, where: str) -> str:
    found = re.search(pattern, header)
    if not found or not found[1]:
        given = f"{where}: data.label_pattern finds no label in the header"
        raise DataError(
            given, "headers that it matches", "correct data.label_pattern or the header"
        )
    return found[1].strip()


def _records(file: Path, form: str, lines: list[str]) -> Iterator[Record]:
    return (_fasta if form == "fasta" else _fastq)(file, lines)


def _fasta(file: Path, lines: list[str]) -> Iterator[Record]:
    """Yield the records of FASTA: a header after ``>``, and lines of letters."""
    start, letters = 0, list[str]()
    for number, line in enumerate([*lines, ">"], start=1):
        if line.startswith(">"):
            if start:
                yield start, lines[start - 1][1:], "".join(letters)
            start, letters = number, []
        elif line.strip() and not start:
            raise _malformed(file, number, "FASTA", "a header that begins with >", "before it")
        else:
            letters.append("".join(line.split()))


def _fastq(file: Path, lines: list[str]) -> Iterator[Record]:
    """Yield the records of FASTQ, four lines each; qualities are checked for their number only."""
    while lines and not lines[-1].strip():
        lines.pop()
    for start in range(0, len(lines), 4):
        record = lines[start : start + 4]
        if not record[0].startswith("@"):
            raise _malformed(file, start + 1, "FASTQ", "a header that begins with @", "here")
        if len(record) < 4 or not record[2].startswith("+"):
            accepted = "four lines a sequence: @header, letters, + and qualities"
            raise _malformed(file, start + 1, "FASTQ", accepted, "from here")
        if len(record[1].strip()) != len(record[3].strip()):
            raise _malformed(file, start + 2, "FASTQ", "as many qualities as letters", "here")
        yield start + 1, record[0][1:], record[1].strip()


def _malformed(file: Path, line: int, form: str, accepted: str, where: str) -> DataError:
    given = f"{file}, line {line}: not {form}"
    return DataError(given, f"{accepted} {where}", "correct the file, or check data.source")
