"""Run a server of Flower's so that it answers its own user (and root) alone.

``python -P owner_only.py PROGRAM ARGUMENT...`` runs, for instance, ``flower-superlink``.

Flower's open edition asks nobody who he is: whoever reaches a SuperLink's loopback port submits
code that runs as the SuperLink's user, and whoever reaches a SuperNode's is given its work. So
each connection is looked up in the system's own table, and one of another user is cut off.
"""

from __future__ import annotations

import asyncio
import logging
import os
import runpy
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from uvicorn.config import HTTP_PROTOCOLS

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as AutoHTTPProtocol
else:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

Address = tuple[str, int]

TABLE = Path("/proc/net/tcp")
"""Linux's IPv4 connections, each with its user (proc(5))."""


def same_user(here: Address, there: Address) -> bool:
    """Whether our own user, or root, holds the other end of an IPv4 connection on this machine.

    Linux says whose each connection is, whatever container holds it; psutil does not pass that on.
    Elsewhere it must be a connection of a process of ours.
    """
    if TABLE.exists():
        ends = [f"{_number(ip):08X}:{port:04X}" for ip, port in (there, here)]
        rows = (line.split() for line in TABLE.read_text(encoding="ascii").splitlines())
        # An inode of 0 is that of a connection whose process has let it go.
        return any(r[1:3] == ends and r[9] != "0" and int(r[7]) in (0, os.getuid()) for r in rows)
    return any(held.laddr == there and held.raddr == here for held in _connections_of_ours())


def _number(ip: str) -> int:
    return int.from_bytes(socket.inet_aton(ip), sys.byteorder)


def _connections_of_ours() -> Iterator[Any]:
    for process in psutil.process_iter():
        try:
            if process.uids().real == os.getuid():
                yield from process.net_connections("tcp4")
        except psutil.Error:
            continue


class OwnerOnly(AutoHTTPProtocol):
    """Uvicorn's own protocol, which hears nothing from other users."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Cut a stranger off before a byte of his is read."""
        super().connection_made(transport)
        here, there = (transport.get_extra_info(end)[:2] for end in ("sockname", "peername"))
        if not same_user(here, there):
            logging.getLogger("uvicorn.error").warning(
                "refused a connection from %s:%s: another user's", *there
            )
            transport.abort()


def main() -> None:
    """Run the program that the command line names, with our protocol in uvicorn's place."""
    HTTP_PROTOCOLS["auto"] = OwnerOnly  # type: ignore[assignment]
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
