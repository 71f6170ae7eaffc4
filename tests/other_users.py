"""Another user of this machine, and what a run lets him reach."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil
import pytest

NOBODY = 65534

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")

_BECOME = f"import os; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"

# The interpreter may lie where only we can read: all is imported before.
_ASK = """
import encodings.idna, sys, urllib.error, urllib.request
BECOME
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    print("answered", opener.open(sys.argv[1], timeout=10).status)
except urllib.error.HTTPError as error:
    print("answered", error.code)
except OSError as error:
    print("refused", error)
"""

_PUT = """
import sys
from ray._raylet import GcsClient
BECOME
try:
    print("written", GcsClient(address=sys.argv[1]).internal_kv_put(b"k", b"v", True, None, 10))
except Exception as error:
    print("refused", error)
"""


def _without(code: str, *words: str) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], env=env, capture_output=True, text=True, timeout=60
    )
    return done.stdout + done.stderr


def asks(url: str) -> str:
    """Return what a stranger gets from an HTTP server: "answered" or "refused" and the rest."""
    return _without(_ASK.replace("BECOME", _BECOME), url)


def writes(gcs: str) -> str:
    """Return what happens when somebody without the token writes into a Ray cluster's store."""
    become = _BECOME if os.getuid() == 0 else ""
    return _without(_PUT.replace("BECOME", become), gcs)


@dataclass
class Watch:
    """What the processes of a run listened on while they ran.

    Parameters
    ----------
    mark : str
        ``NAME=VALUE`` in the environment of all of them.
    """

    mark: str
    found: dict[tuple[str, int], str] = field(default_factory=dict)

    def looks(self, process: subprocess.Popen[str], seconds: float) -> Iterator[None]:
        """Look twice a second until a process ends."""
        end = time.monotonic() + seconds
        while process.poll() is None:
            assert time.monotonic() < end, "it did not end in time"
            self.look()
            yield
            time.sleep(0.5)

    def look(self) -> None:
        """Look once."""
        self.found.update(self._listeners())

    def _listeners(self) -> Iterator[tuple[tuple[str, int], str]]:
        name, _, value = self.mark.partition("=")
        for held in psutil.net_connections("tcp"):
            try:
                if held.status == psutil.CONN_LISTEN and held.pid:
                    process = psutil.Process(held.pid)
                    if process.environ().get(name) == value:
                        address = held.laddr.ip.removeprefix("::ffff:"), held.laddr.port
                        yield address, " ".join(process.cmdline()[:4])
            except psutil.Error:
                continue

    def of(self, word: str) -> list[str]:
        """Return the addresses on which processes listened whose command line holds a word."""
        return [f"{ip}:{port}" for (ip, port), line in self.found.items() if word in line]

    def beyond_this_machine(self) -> dict[tuple[str, int], str]:
        """Return the listeners that other machines reach."""
        return {at: line for at, line in self.found.items() if not at[0].startswith("127.")}
