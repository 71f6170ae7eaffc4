"""From the bytes of a file to its text: packed or not, in which encoding.

A file that is no text (a workbook, a web page ...) is named and refused. UTF-8 is read as it is,
UTF-16 by its mark. What is neither is read as cp1252, which Windows writes, where nothing speaks
against it, and a line says so; else the message names what it may be.
"""

from __future__ import annotations

import gzip
import re
import stat
import zlib
from pathlib import Path

from core import DataError

_NO_FILES = {
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file itself: git lfs pull"),
    b"<!DOCTYPE": ("a web page", "download the file itself"),
    b"<!doctype": ("a web page", "download the file itself"),
}
"""How files begin that stand for another."""

_NO_TEXTS = _NO_FILES | {
    b"PAR1": ("a Parquet file", "set data.source = parquet"),
    b"ARROW1": ("an Arrow file", "set data.source = arrow"),
    b"PK\x03\x04": ("a zip archive or an Excel workbook", "unpack it, or save the sheet as csv"),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", "save the sheet as csv"),
    b"BZh": ("compressed by bzip2", "unpack it, or compress it with gzip"),
    b"\xfd7zXZ": ("compressed by xz", "unpack it, or compress it with gzip"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "unpack it, or compress it with gzip"),
}
"""How files of other kinds begin."""

_MARKS = {b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32"}
_MARKS |= {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
"""Byte-order marks, the longer ones first."""

CANDIDATES = ("cp1252", "cp1250", "cp1251", "koi8-r", "gb18030", "big5", "shift_jis", "euc-kr")
"""What a file that is not UTF-8 may be in, for the message."""

_MANY_HIGH = re.compile(rb"[\x80-\xff]{3}")
"""No Western text has so many accents in a row."""


def read_bytes(path: Path, others: dict[bytes, tuple[str, str]] = _NO_FILES) -> bytes:
    """Read a file whole, unpacked if it is gzip.

    Parameters
    ----------
    path : Path
        The file.
    others : dict
        How files begin that are refused, with what they are and what to do.

    Raises
    ------
    DataError
        If it is missing, no regular file, damaged, or another file.
    """
    raw = _unpacked(path, _bytes_of(path))
    for begin, (found, fix) in others.items():
        if raw.startswith(begin):
            raise DataError(f"{path} is {found}", "the file itself, or gzip of it", fix)
    return raw


def read_text(path: Path, encoding: str = "utf-8") -> tuple[str, tuple[str, ...]]:
    """Read a text file whole, unpacked if it is gzip; a byte-order mark is dropped.

    Parameters
    ----------
    path : Path
        The file.
    encoding : str
        A codec's name; ``auto``: found as this module says.

    Returns
    -------
    (str, tuple of str)
        Its text, line ends untouched; and one line if another encoding than UTF-8 was found.

    Raises
    ------
    DataError
        If it is missing, no regular file, empty, of another kind, or in another or an unknown
        encoding.
    """
    raw = read_bytes(path, _NO_TEXTS)
    used = _find_encoding(path, raw) if encoding == "auto" else encoding
    text = _decoded(path, raw, used)
    if (zero := text.find("\0")) >= 0:
        line = text.count("\n", 0, zero) + 1
        given = f"{path}, line {line}: a zero byte, so it is no text or in UTF-16"
        raise DataError(given, "text", "save the file as UTF-8, or set data.encoding = utf-16-le")
    if not text.strip():
        raise DataError(f"{path} is empty", "a file with rows", "check the file")
    if used in (encoding, "utf-8"):
        return text, ()
    return text, (f"{path}: read as {used} (data.encoding = {used})",)


def _find_encoding(path: Path, raw: bytes) -> str:
    for mark, name in _MARKS.items():
        if raw.startswith(mark):
            return name
    if b"\0" in raw or raw.startswith(b"\xef\xbb\xbf") or _mostly_utf8(raw):
        return "utf-8"
    if not _MANY_HIGH.search(raw) and _decodes(raw, "cp1252"):
        return "cp1252"
    may_be = [name for name in CANDIDATES if _decodes(raw, name)]
    first = re.search(rb"[\x80-\xff]", raw)
    line = raw.count(b"\n", 0, first.start() if first else 0) + 1
    raise DataError(
        f"{path}, line {line}: not UTF-8",
        f"UTF-8, or the encoding of the file: it may be {', '.join(may_be) or 'no text at all'}",
        "set data.encoding, or save the file as UTF-8",
    )


def _mostly_utf8(raw: bytes) -> bool:
    """Whether it is UTF-8, perhaps with a damaged byte: other encodings make no such sequences."""
    if _decodes(raw, "utf-8"):
        return True
    text = raw.decode("utf-8", "replace")
    damaged = text.count("\ufffd")
    return sum(letter > "\x7f" for letter in text) > 2 * damaged


def _decodes(raw: bytes, encoding: str) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _decoded(path: Path, raw: bytes, encoding: str) -> str:
    utf8 = encoding.lower() in ("utf-8", "utf8", "utf-8-sig")
    name = "UTF-8" if utf8 else encoding
    try:
        return raw.decode("utf-8-sig" if utf8 else encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        # With the mark dropped, the codec counts bytes from behind it.
        start = error.start + (3 if utf8 and raw.startswith(b"\xef\xbb\xbf") else 0)
        line = raw.count(b"\n", 0, start) + 1
        raise DataError(
            f"{path}, line {line}: byte {raw[start]:#04x} at position {start} is not {name}",
            f"{name} text",
            "save the file as UTF-8",
        ) from error
    except UnicodeError as error:
        given = f"{path} is not {name} ({error})"
        raise DataError(given, f"{name} text", "correct data.encoding") from error


def lines_of(text: str) -> list[str]:
    r"""Split at ``\n`` only (texts may hold other line separators), ``\r`` before it dropped."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _bytes_of(path: Path) -> bytes:
    check = "check data.path and data.test_path, or --input"
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # reading a pipe would wait for ever
            kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise DataError(f"{path} is {kind}", "an existing file", check)
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist", "an existing file", check) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read ({why})", "a readable file", check) from error


def _unpacked(path: Path, raw: bytes) -> bytes:
    if not raw.startswith(b"\x1f\x8b"):
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        found = f"{path} is damaged gzip ({error})"
        raise DataError(found, "a whole gzip file", "copy the file again") from error
