"""Why a SuperLink and a node do not come together, as far as the node's machine can see it."""

from __future__ import annotations

import ssl
import time
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime
from pathlib import Path

AHEAD_SECONDS, BEHIND_SECONDS = 5.0, 300.0
"""How far a node's clock may be off: Flower refuses signatures from the future, and old ones."""


def probe(host: str, port: int, authority: Path) -> str:
    """Say what keeps a node of this machine from its SuperLink.

    Flower answers a signature of the wrong time with a bare 401, on which a SuperNode ends
    without a word; the SuperLink's answers carry its time, so we can tell.

    Parameters
    ----------
    host, port
        Where the SuperLink listens.
    authority : Path
        Certificate of the authority that must vouch for it.

    Returns
    -------
    str
        One line; empty if nothing is wrong with clock and certificate, or nobody answers.
    """
    context = ssl.create_default_context(cafile=str(authority))
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(f"https://{host}:{port}/health", timeout=5.0) as reply:
            theirs = parsedate_to_datetime(reply.headers["Date"]).timestamp()
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            why = error.reason.verify_message
            return f"the SuperLink's certificate is not accepted here: {why}"
        return ""
    except (OSError, ValueError, TypeError):
        return ""
    return clock_trouble(time.time() - theirs)


def clock_trouble(ahead: float) -> str:
    """Say that a clock is too far off; `ahead` is in seconds, and exact to one."""
    if -BEHIND_SECONDS < ahead < AHEAD_SECONDS:
        return ""
    way = "ahead of" if ahead > 0 else "behind"
    return (
        f"this machine's clock is {abs(ahead):.0f} s {way} the SuperLink's; accepted: at most "
        f"{AHEAD_SECONDS:.0f} s ahead, {BEHIND_SECONDS:.0f} s behind; set it"
    )
