"""What hostile callers do to a SuperLink behind its gate: ``python -m bench.gate``.

Starts a SuperLink and its gate (nginx) on loopback, and prints the SuperLink's memory and
descriptors, and whether another address reaches it, after each kind of call.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from pathlib import Path

import httpx
import psutil

from core import read_json
from llm_qfl.cli.deploy.folder import Options, make_deployment
from llm_qfl.cli.deploy.keys import public_pem
from llm_qfl.cli.superlink import free_port

HOST = "127.0.0.2"
CALL = "POST /v1/fleet/push-object HTTP/1.1\r\nHost: gate\r\nContent-Type: application/protobuf\r\n"


class Target:
    """A SuperLink with its gate, and what is seen of it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        home = folder / "home"
        self.superlink = psutil.Process(read_json(home / "superlink.json")["pid"])
        key = b64encode(public_pem(folder / "nodes" / "node-0.pub")).decode()
        self.key = f"flwr-public-key: {key}\r\n"
        self.most = 0

    def connect(self) -> ssl.SSLSocket:
        """Open a connection over TLS."""
        raw = socket.create_connection((HOST, self.port), timeout=30)
        return self.context.wrap_socket(raw, server_hostname=HOST)

    def reached(self) -> str:
        """Say how fast another address gets an answer."""
        began = time.perf_counter()
        transport = httpx.HTTPTransport(verify=self.context, local_address="127.0.0.9")
        try:
            with httpx.Client(transport=transport, timeout=20) as client:
                code = client.get(f"https://{HOST}:{self.port}/health").status_code
        except httpx.HTTPError as error:
            return repr(error)
        return f"{code} in {time.perf_counter() - began:.2f} s"

    def show(self, what: str) -> None:
        """Print a row: the most memory of the SuperLink since the row before, and the rest."""
        memory = max(self.most, self.superlink.memory_info().rss) >> 20
        print(f"| {what} | {memory} | {self.superlink.num_fds()} | {self.reached()} |", flush=True)
        self.most = 0

    def send(self, size: int, key: str) -> None:
        """Send a body of zeros as fast as it is taken."""
        with contextlib.suppress(OSError), self.connect() as connection:
            connection.sendall(f"{CALL}{key}Content-Length: {size}\r\n\r\n".encode())
            for _ in range(0, size, 1 << 20):
                connection.sendall(bytes(1 << 20))
                self.most = max(self.most, self.superlink.memory_info().rss)
            connection.recv(100)
            self.most = max(self.most, self.superlink.memory_info().rss)

    def flood(self, count: int, size: int, key: str = "") -> None:
        """Send bodies at the same time, and print what came of it."""
        threads = [threading.Thread(target=self.send, args=(size, key)) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        known = "a registered key" if key else "no key"
        self.show(f"{count} bodies of {size >> 20} MB, {known}")


def attack(target: Target) -> None:
    """Do what hostile callers do, one after the other, and print what came of it."""
    target.show("nothing yet")
    slow = []
    for _ in range(300):
        slow.append(target.connect())
        slow[-1].sendall(f"{CALL}{target.key}Content-Length: 1000\r\n\r\nx".encode())
    target.show("300 bodies that stop after a byte")
    time.sleep(21)
    for connection in slow:
        with contextlib.suppress(OSError):
            connection.sendall(b"x")
        connection.close()
    target.show("the next byte after 21 s")
    idle = [target.connect() for _ in range(500)]
    target.show("500 idle connections")
    for connection in idle:
        connection.close()
    target.flood(8, 59 << 20)
    target.flood(32, 7 << 20)
    target.flood(32, 7 << 20, target.key)
    with contextlib.suppress(OSError), target.connect() as connection:
        connection.sendall(CALL.encode() + b"x-long: ")
        for _ in range(60):
            connection.sendall(b"x" * (1 << 20))
    target.show("a header of 60 MB")


def main() -> int:
    """Start the SuperLink and the gate, attack them, and end them."""
    with tempfile.TemporaryDirectory() as name:
        port = free_port()
        make_deployment(Path(name) / "fed", Options(1, hosts=(HOST,), port=port))
        folder = Path(name) / "fed" / "superlink"
        written = folder / "superlink.toml"
        written.write_text(written.read_text().replace("0.0.0.0", HOST))
        words = [sys.executable, "-m", "llm_qfl.cli", "deploy", "superlink", str(folder)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                while "ready" not in (line := process.stdout.readline()):
                    if not line:
                        return 1
                print("| what came | SuperLink, MB | descriptors | another address |")
                print("|---|---|---|---|")
                attack(Target(folder, port))
            finally:
                process.terminate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
