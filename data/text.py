r"""One rule for the text that enters: what is refused, what is cleaned, and why.

- A file that is no UTF-8 text (another encoding, zero bytes, Parquet, a zip archive ...) is
  refused: guessing its encoding would change texts without a word. gzip is unpacked.
- In texts, control characters and terminal codes become a space and halves of emoji (lone
  surrogates, as ``"\ud83d"`` in JSON) the replacement character U+FFFD, with one line that says
  where: they carry no meaning, and tokenizers fail on some. Bidirectional marks stay: Arabic and
  Hebrew are written with them, and nobody is shown a text.
- In names (classes, sites) all of these and bidirectional marks are refused: cleaning could make
  two names one, and a name that cannot be seen cannot be told from another.

Whatever is shown goes through `core.formatting.display_safe` besides.
"""

from __future__ import annotations

import gzip
import re
import stat
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from core import DataError
from core.formatting import display_safe, hidden_character

Place = Callable[[int], str]
"""Where row i (from 0) stands, for a message: ``rows.csv, line 3``."""

LONGEST_NAME = 200
"""Characters of a class or site name; what is longer is a text from a wrong column."""

MISSING = frozenset({"nan", "NaN", "NAN", "<NA>", "null", "NULL"})
"""What programs write for a value that is not there."""

_OTHER_FILES = {
    b"PAR1": ("a Parquet file", "write it as csv, for instance with pandas"),
    b"ARROW1": ("an Arrow file", "write it as csv, for instance with pandas"),
    b"PK\x03\x04": ("a zip archive or an Excel workbook", "unpack it, or save the sheet as csv"),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", "save the sheet as csv"),
    b"BZh": ("compressed by bzip2", "unpack it, or compress it with gzip"),
    b"\xfd7zXZ": ("compressed by xz", "unpack it, or compress it with gzip"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "unpack it, or compress it with gzip"),
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file itself: git lfs pull"),
    b"<!DOCTYPE": ("a web page", "download the file itself"),
    b"<!doctype": ("a web page", "download the file itself"),
    b"\xff\xfe": ("in UTF-16", "save it as UTF-8"),
    b"\xfe\xff": ("in UTF-16", "save it as UTF-8"),
}
"""How files of other kinds begin."""

# A terminal's code whole, so that "[31m" does not stay behind; tabs and line ends are no fault.
_UNCLEAN = re.compile(
    "\x1b\\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]|[\ud800-\udfff]"
)


def numbered(where: str, word: str = "row", numbers: Sequence[int] | None = None) -> Place:
    """Say of each row where it stands: by its line where `numbers` has it, else counted from 1."""
    return lambda row: f"{where}, {word} {numbers[row] if numbers else row + 1}"


def read_text(path: Path) -> str:
    """Read a UTF-8 file whole, unpacked if it is gzip; a byte-order mark is dropped.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
        Its text, line ends untouched.

    Raises
    ------
    DataError
        If it is missing, no regular file, empty, of another kind or not UTF-8.
    """
    raw = _unpacked(path, _bytes_of(path))
    for begin, (found, fix) in _OTHER_FILES.items():
        if raw.startswith(begin):
            raise DataError(f"{path} is {found}", "UTF-8 text, or gzip of it", fix)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # With the mark dropped, the codec counts bytes from behind it.
        start = error.start + (3 if raw.startswith(b"\xef\xbb\xbf") else 0)
        line = raw.count(b"\n", 0, start) + 1
        raise DataError(
            f"{path}, line {line}: byte {raw[start]:#04x} at position {start} is not UTF-8",
            "UTF-8 text",
            "save the file as UTF-8",
        ) from error
    if (zero := text.find("\0")) >= 0:
        line = text.count("\n", 0, zero) + 1
        found = f"{path}, line {line}: a zero byte, so it is no text or in UTF-16"
        raise DataError(found, "UTF-8 text", "save the file as UTF-8")
    if not text.strip():
        raise DataError(f"{path} is empty", "a file with rows", "check the file")
    return text


def _bytes_of(path: Path) -> bytes:
    check = "check data.path and data.test_path"
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


def lines_of(text: str) -> list[str]:
    r"""Split at ``\n`` only (texts may hold other line separators), ``\r`` before it dropped."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def clean_texts(texts: Sequence[str], place: Place) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Clean texts as this module's rule says.

    Parameters
    ----------
    texts : sequence of str
        One text a row.
    place : callable
        Where a row stands.

    Returns
    -------
    (tuple of str, tuple of str)
        The texts, and one line if any was changed.

    Raises
    ------
    DataError
        If a row has no text.
    """
    changed = [row for row, text in enumerate(texts) if _UNCLEAN.search(text)]
    cleaned = list(texts)
    for row in changed:
        cleaned[row] = _UNCLEAN.sub(
            lambda found: "\ufffd" if found[0] >= "\ud800" else " ", texts[row]
        )
    refuse_blank(cleaned, place)
    note = "control characters or halves of emoji in a text, now spaces or U+FFFD"
    return tuple(cleaned), tuple(count_note(changed, place, note))


def count_note(rows: Sequence[int], place: Place, note: str) -> list[str]:
    """Say what was found in some rows: one line that names the first; none if there are none."""
    if not rows:
        return []
    others = f" (and in {len(rows) - 1:,} other rows)" if len(rows) > 1 else ""
    return [f"{place(rows[0])}: {note}{others}"]


def refuse_blank(texts: Sequence[str], place: Place) -> None:
    """Raise `DataError` at the first row without text."""
    for row, text in enumerate(texts):
        if not text or text.isspace():
            raise DataError(f"{place(row)}: no text", "a text in every row", "remove the row")


def check_names(values: Sequence[str], place: Place, what: str, known: Sequence[str] = ()) -> None:
    """Refuse names of classes or sites that are missing, too long or cannot be seen.

    Parameters
    ----------
    values : sequence of str
        One name a row.
    place : callable
        Where a row stands.
    what : str
        What they name, for the message: ``label``.
    known : sequence of str
        Names that are right whatever they look like.

    Raises
    ------
    DataError
        At the first such name, which the message does not hold.
    """
    for value in dict.fromkeys(values):
        if value not in known and (wrong := _wrong_name(value, what)):
            found = f"{place(list(values).index(value))}: {wrong}"
            raise DataError(
                found,
                f"a {what} of 1 to {LONGEST_NAME} visible characters in every row",
                f"correct or remove the row, or check the column of the {what}",
            )


def _wrong_name(value: str, what: str) -> str:
    """Say what is wrong with a name; empty if nothing is."""
    if not value:
        return f"no {what}"
    if value in MISSING:
        return f"{display_safe(value)} in the place of a {what}: a missing value"
    if len(value) > LONGEST_NAME:
        return f"a {what} of {len(value):,} characters"
    hidden = hidden_character(value)
    return f"a {what} with the hidden character {hidden}" if hidden else ""
