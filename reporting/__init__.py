"""The HTML report of a run, made from its results folder alone.

`python -m reporting RUN` makes it again for any folder, a failed run's too.
"""

from __future__ import annotations

from pathlib import Path

from core import write_bytes


def write_report(run_folder: Path) -> Path:
    """Write ``report.html`` into a results folder.

    Parameters
    ----------
    run_folder : Path
        A run's results folder; any of its files may be missing or damaged.

    Returns
    -------
    Path
        The report: one file that needs no network.

    Raises
    ------
    DataError
        If the folder holds nothing of a run.
    OSError
        If the report cannot be written there.
    """
    from reporting.record import read_record
    from reporting.run_page import build_page  # matplotlib and jinja2 only when wanted

    page = build_page(read_record(run_folder))
    path = run_folder / "report.html"
    write_bytes(path, page.encode("utf-8", "backslashreplace"))
    return path
