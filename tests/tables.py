"""A small table of texts, as a user brings one."""

from __future__ import annotations

from pathlib import Path

TEXT = ("data.source=csv", "data.server_rows=0", "data.train_rows=60", "data.test_rows=20")
"""Settings of a run on it, besides `data.path`."""

GOOD, BAD = ("splendid", "wonderful", "delightful"), ("dreadful", "miserable", "abominable")


def text_table(folder: Path) -> str:
    """Write texts of two kinds, no two alike; return the file."""
    rows = [
        f"patient {k * 7919} had a {(GOOD if k % 2 else BAD)[k % 3]} week,{k % 2}"
        for k in range(120)
    ]
    path = folder / "rows.csv"
    path.write_text("\n".join(["text,label", *rows, ""]))
    return str(path)
