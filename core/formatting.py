"""Figures, settings and TOML in words: what the launcher and the report both write.

Pure, and light to import.
"""

from __future__ import annotations

import csv
import io
import json
import math
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

BASELINES = (
    ("logistic_projected", "logistic regression, same features"),
    ("logistic_full", "logistic regression, all features"),
    ("local_projected", "own regressions, same features"),
    ("local_full", "own regressions, all features"),
    ("majority", "majority class"),
)
"""Keys of ``summary.json``'s baselines with their names, in the order of the tables.

Own regressions: each site's, fitted on its training rows and scored on its test rows.
"""


def is_number(value: Any) -> bool:
    """Whether a value from a JSON file is a number of less than 19 digits; true is none."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and abs(value) < 1e18


def printable(text: Any, most: int = 300) -> str:
    """Make one line of anybody's text that a terminal and a report may show, cut to a length.

    White space becomes blanks, and what hides is escaped (`core.formatting.display_safe`).
    """
    letters = str(text)[: 20 * most]  # more is not needed to fill a line
    shown = display_safe(" ".join(letters.split()))
    line = "".join(x if x.isprintable() else " " for x in shown)
    return line if len(line) <= most else line[: most - 1] + "…"


def figure(value: Any, places: int = 3, none: str = "-") -> str:
    """Write a number with so many decimal places, or `none` for none."""
    return f"{value:.{places}f}" if is_number(value) else none


def whole(value: Any, none: str = "-") -> str:
    """Write a whole number with separators, or `none` for none."""
    return f"{value:,.0f}" if is_number(value) else none


def percent(value: Any, places: int = 1, none: str = "-") -> str:
    """Write a share as per cent, or `none` for none; 0 and 100 only where they are exact."""
    if not is_number(value):
        return none
    text, step = f"{100 * value:z.{places}f}", 10**-places  # z: no "-0.0"
    if value > 0 and float(text) == 0:
        return f"< {step:.{places}f} %"
    if value < 1 and float(text) == 100:
        return f"> {100 - step:.{places}f} %"
    return f"{text} %"


def span(ends: Any, none: str = "-") -> str:
    """Write an interval of shares, two numbers, or `none` for none."""
    return f"{percent(ends[0])} to {percent(ends[1])}" if ends else none


def describe_circuits(count: Any, simulated: Any) -> str:
    """Describe how many circuits a run took, simulated ones apart from those on hardware.

    Parameters
    ----------
    count : int
        All circuits.
    simulated : int
        Those of simulators; unknown in records of older versions.
    """
    if not (is_number(count) and is_number(simulated)):
        return f"{whole(count)} circuits"
    if simulated >= count:
        return f"{whole(count)} circuits simulated"
    executed = f"{whole(count - simulated)} circuits executed"
    return f"{whole(simulated)} circuits simulated, {executed}" if simulated else executed


def duration(seconds: Any, none: str = "-") -> str:
    """Write seconds with readable units, or `none` for none."""
    if not is_number(seconds):
        return none
    if round(seconds) < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def byte_size(count: Any, none: str = "-") -> str:
    """Write a number of bytes with a unit, or `none` for none."""
    if not is_number(count):
        return none
    for unit in ("B", "kB", "MB"):
        if abs(count) < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def scored_at(test: Any, clients: int = 0) -> str:
    """Describe how many sites took part in a federated final test; empty if the server held it.

    Parameters
    ----------
    test : Mapping
        ``summary.json``'s final test, with ``sites`` where the sites scored.
    clients : int
        Sites of the federation; 0 if unknown.
    """
    sites = (test or {}).get("sites")
    if not is_number(sites):
        return ""
    return f"scored at {sites} of {clients} sites" if clients else f"scored at {sites} sites"


def kept_rounds(summary: Mapping[str, Any]) -> str:
    """Say of which round, or of which rounds' mean, a run's model is; empty: not on record."""
    averaged, best = summary.get("averaged_rounds") or [], summary.get("best_round")
    if averaged:
        return f"rounds {whole(averaged[0])}-{whole(averaged[-1])}, mean"
    return f"round {whole(best)}" if best else ""


def is_shifted(summary: Mapping[str, Any]) -> bool:
    """Whether the prior of a run's model was corrected (`evaluation.prior_correction`)."""
    return bool((summary.get("prior_correction") or {}).get("applied"))


def describe_privacy(privacy: Mapping[str, Any]) -> list[str]:
    """Describe a run's epsilon and its secure aggregation, from ``privacy`` of its summary."""
    lines = []
    rows = (privacy.get("updates") or {}).get("unit") == "row"
    whose = "a row's part in updates" if rows else "a client's updates"
    parts = {"updates": whose, "moments": "a row's part in moments", "rows": "a row's part in all"}
    for name, unit in parts.items():
        spent = privacy.get(name)
        if isinstance(spent, Mapping):
            count = f"{whole(spent.get('releases'))} {'steps' if rows else 'rounds'}"
            how = f" ({spent['dp']}, {count})" if "dp" in spent else ""
            drawn = spent.get("epsilon_if_known")
            how += f"; {figure(drawn)} for whoever knows who was drawn" if drawn else ""
            bound = f"epsilon {figure(spent.get('epsilon'))} at delta {spent.get('delta')}"
            open_to = "; none for whoever knows run.seed" if spent.get("seeded") else ""
            lines.append(f"{unit}: {bound}{how}{open_to}")
    secure = privacy.get("secure_aggregation")
    if isinstance(secure, Mapping):
        lost = f", {whole(secure.get('lost_groups'))} lost" if secure.get("lost_groups") else ""
        opened = f"{whole(secure.get('groups'))} sums opened{lost}"
        least = f"the smallest of {whole(secure.get('smallest_sum'))} updates"
        lines.append(f"secure aggregation: {opened}, {least}; no single update was seen")
    return lines


MOST_LISTED = 30
"""Numbers of clients that a line lists; more are counted."""


def listed(numbers: Iterable[int]) -> str:
    """List numbers in ascending order, the first `MOST_LISTED` of many.

    Examples
    --------
    >>> listed({2, 1})
    '1, 2'
    """
    found = sorted(numbers)
    text = ", ".join(map(str, found[:MOST_LISTED]))
    more = len(found) - MOST_LISTED
    return f"{text} and {more:,} more" if more > 0 else text


def toml_value(value: object) -> str:
    """Write a scalar as TOML.

    JSON's strings are TOML's basic strings, but for DEL; its infinities are not TOML's.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")


def split_list(text: str) -> tuple[str, ...]:
    """Split a comma-separated list; an entry in double quotes may hold commas.

    Examples
    --------
    >>> split_list('"yes, often", no')
    ('yes, often', 'no')
    """
    if not text:
        return ()
    (entries,) = csv.reader([" ".join(text.splitlines())], skipinitialspace=True)
    return tuple(entry.strip() for entry in entries)


def join_list(entries: Iterable[object]) -> str:
    """Write a comma-separated list that `split_list` takes apart again."""
    return ", ".join(map(_list_entry, entries))


def _list_entry(entry: object) -> str:
    """Write an entry, in double quotes where it holds a comma or a quote."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([entry])
    return line.getvalue()


_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories that cannot be seen: control, format (bidirectional marks are among them),
lone surrogates, line and paragraph separators."""


_JOINERS = "\u200c\u200d"
"""Zero-width joiners: Persian words and many emoji are written with them."""


def is_hidden(character: str) -> bool:
    """Whether a character cannot be seen, or changes how its neighbours are shown."""
    return unicodedata.category(character) in _HIDDEN and character not in _JOINERS


def hidden_character(name: str) -> str:
    """Return the first hidden character of a name as ``U+202E``; empty if it has none."""
    return next((f"U+{ord(x):04X}" for x in name if is_hidden(x)), "")


def display_safe(text: object) -> str:
    r"""Return one line of text that is safe to print, to log and to show on a page.

    Control characters (so terminal codes too), bidirectional marks, lone surrogates and line
    ends are written as escapes, for instance ``\x1b`` or ``\u202e``, so that nothing hides.

    Parameters
    ----------
    text : object
        Anybody's text; other values are turned into text; None is empty.

    Returns
    -------
    str
        Text that encodes as UTF-8. It is not escaped for HTML.
    """
    plain = "" if text is None else str(text)
    if plain.isprintable():
        return plain
    return "".join(x.encode("unicode_escape").decode("ascii") if is_hidden(x) else x for x in plain)


Z = 1.959963984540054
"""Of the standard normal distribution, 95 % lie between -Z and Z."""


Interval = tuple[float, float]


def wilson_interval(share: object, rows: object) -> Interval | None:
    """Return the 95 % interval of a share that was counted in so many rows.

    Wilson's score interval (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927): it stays within 0 and 1
    and is right for few rows and for shares near 0 and 1.

    Parameters
    ----------
    share : float
        Hits over rows, 0 to 1.
    rows : int
        Rows, at least 1.

    Returns
    -------
    tuple of float, or None
        Lowest and highest share; None where one of them is not on record.
    """
    if not (is_number(share) and is_number(rows)):
        return None
    p, n = float(share), float(rows)  # type: ignore[arg-type]
    if not 0 <= p <= 1 or n < 1:
        return None
    centre, spread = p + Z**2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    low, high = ((centre + sign * spread) / (1 + Z**2 / n) for sign in (-1, 1))
    return min(p, max(0.0, low)), max(p, min(1.0, high))


def difference_interval(first: float, second: float, rows: object) -> Interval | None:
    """Return the 95 % interval of first less second, two shares that were counted in as many rows.

    Newcombe's method 10 (Stat. Med. 17, 1998), for independent samples: of two models on the same
    rows it is too wide rather than too narrow.
    """
    one, other = wilson_interval(first, rows), wilson_interval(second, rows)
    if one is None or other is None:
        return None
    below = math.hypot(first - one[0], other[1] - second)
    above = math.hypot(one[1] - first, second - other[0])
    return first - second - below, first - second + above
