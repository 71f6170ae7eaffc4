"""Write each demo site's own file: ``python docker/demo_data.py /data`` fills /data/site-0 to -2.

The rows are the synthetic DNA of `dna-demo`, each site's sequences different from the others'.
A real site mounts a folder of its own instead; nothing else changes.
"""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

from core import parse_settings, write_text
from data import load_site

SITES = 3
CHOICES = {
    "run.clients": SITES,
    "data.train_rows": 360,
    "data.heterogeneity": 0.5,
    "data.partition": "quantity",
    "data.alpha": 5.0,
}
"""Settings of the data set that the sites' files are cut from."""


def write_sites(folder: Path) -> list[int]:
    """Write ``site-K/rows.csv`` for every site, and return their numbers of rows."""
    settings = parse_settings(CHOICES)
    counts = []
    for client in range(SITES):
        info, site = load_site(settings, client, SITES)
        own = folder / f"site-{client}"
        own.mkdir(parents=True, exist_ok=True)
        rows = [
            (text, info.classes[label])
            for split in (site.train, site.validation)
            for text, label in zip(split.texts, split.labels, strict=True)
        ]
        table = io.StringIO(newline="")
        csv.writer(table).writerows([("text", "label"), *rows])
        write_text(own / "rows.csv", table.getvalue())
        counts.append(len(rows))
    return counts


if __name__ == "__main__":
    for site, rows in enumerate(write_sites(Path(sys.argv[1]))):
        print(f"site-{site}: {rows} rows")
