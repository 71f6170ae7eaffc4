"""Whether a part does its work, and what keeps a node from its SuperLink."""

from __future__ import annotations

import re
import ssl
import time
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime
from pathlib import Path

import psutil

from llm_qfl.cli.deploy.folder import read_endpoint
from llm_qfl.cli.deploy.parts import EXEC, GATE, NODE, running
from llm_qfl.cli.follow import last_words
from llm_qfl.cli.formatting import one_line
from llm_qfl.cli.superlink import healthy

PORT_TAKEN = "address already in use"
"""In the output of a server whose port another process has, in lower case."""

REFUSED = (
    "the SuperLink did not admit it: its key is not registered there, or it was killed within the "
    "last minute and is still thought to be running"
)
CLOCK = (
    "it ended before it was admitted, and Flower gives no reason: so it does when its clock is "
    "more than 5 seconds ahead of the SuperLink's or 5 minutes behind"
)

AHEAD_SECONDS, BEHIND_SECONDS = 5.0, 300.0
"""How far a node's clock may be off: Flower refuses signatures from the future, and old ones."""


_EXIT = re.compile(r"Exit Code: \d+\n(.+?)(?:\n\s*\n|\Z)", re.DOTALL)


def reason(code: int, output: str, port: int, unadmitted: bool) -> str:
    """Say in one line why a part ended, as far as it is known.

    Parameters
    ----------
    code : int
        Its exit code.
    output : str
        What it has printed since it was started.
    port : int
        Its port.
    unadmitted : bool
        Whether it is a node that no SuperLink has admitted.
    """
    if code < 0:
        return f"killed by signal {-code}"
    if PORT_TAKEN in output.lower():
        return f"port {port} of this machine is in use: end what uses it, or choose another"
    if "Failed to activate SuperNode" in output:
        return REFUSED
    match = _EXIT.search(output)
    if unadmitted and not match:
        return CLOCK
    return one_line(match.group(1)) if match else last_words(output) or "its log is empty"


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


def answers(folder: Path, kind: str) -> bool:
    """Whether a part that runs from a folder does its work."""
    found = running(folder, kind)
    if not found:
        return False
    pid, port = int(found["pid"]), int(found["port"])
    if kind == EXEC:
        return asks_for_work(pid, port)
    host = read_endpoint(folder).here if kind == GATE else "127.0.0.1"
    return healthy(port, host, None if kind == NODE else folder / "ca.crt")


def asks_for_work(pid: int, port: int) -> bool:
    """Whether a SuperExec runs and is connected to its server, which it polls all the time."""
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            return False
        connections = process.net_connections("tcp4")
    except psutil.Error:
        return False
    return any(c.status == psutil.CONN_ESTABLISHED and c.raddr[1:] == (port,) for c in connections)
