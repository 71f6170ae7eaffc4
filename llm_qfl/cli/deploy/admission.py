"""Which nodes a SuperLink admits: keys are registered, and thrown out again for good.

Flower keeps keys in its database and knows a node by a number of its own, which it tells once,
when a key is registered. We note it, since only by that number can a key be thrown out.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core import (
    UserError,
    by_number,
    json_object,
    read_json,
    write_bytes,
    write_json,
)
from llm_qfl.cli.deploy.keys import make_node_key
from llm_qfl.cli.flower import CONNECTION, Flwr, output
from llm_qfl.cli.formatting import LONGEST, clip, one_line
from llm_qfl.cli.superlink import LaunchError

NODES, REVOKED = "nodes", "revoked"
"""Folders of ``superlink/`` with the public keys that are admitted, and those that were."""

IDS = "registered.json"
"""In ``superlink/``: Flower's number of each key's node, by the key's fingerprint."""

DATABASE = "state.db"
"""In ``superlink/``: Flower's own."""

OUT = "out"
"""Instead of a number: that key has been thrown out."""

_KNOWN = "already in use"
"""In Flower's answer when a node's key has been registered before."""

_UNNOTED = (
    "Flower's number of that node was not noted; stop the SuperLink, move its state.db away, and "
    "start it: all others are registered anew"
)

_UNKNOWN = "node id not found"
"""In Flower's answer when there is no such node (any more)."""


def fingerprint(public: Path) -> str:
    """Return the sha256 of a public key, whatever comment its file has."""
    key = b" ".join(public.read_bytes().split()[:2])
    return hashlib.sha256(key).hexdigest()


def keys_seen(superlink: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what tells one state of a SuperLink's keys from another: names, sizes and times."""
    files = [file for place in (NODES, REVOKED) for file in (superlink / place).glob("*.pub")]
    facts = [(str(file.relative_to(superlink)), file.stat()) for file in files]
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in facts))


def is_out(superlink: Path, key: Path) -> bool:
    """Whether a revoked key has been thrown out of the SuperLink's database."""
    return read_json(superlink / IDS).get(fingerprint(key)) == OUT


def admit(flwr: Flwr, superlink: Path) -> int:
    """Throw out the revoked keys of a running SuperLink, and register the others.

    Parameters
    ----------
    flwr : Flwr
        Flower's command, connected to it.
    superlink : Path
        Its folder. Only its supervisor calls this: nobody else writes ``registered.json``.

    Returns
    -------
    int
        Keys that are registered now.

    Raises
    ------
    LaunchError
        If it refuses a key, or a revoked one could not be thrown out.
    """
    refusals = throw_out(flwr, superlink)
    ids = read_json(superlink / IDS)
    # A key that was revoked may still lie there: left by a copy, or by an end in between.
    revoked = {fingerprint(key) for key in (superlink / REVOKED).glob("*.pub")}
    lying = sorted((superlink / NODES).glob("*.pub"), key=by_number)
    keys = [key for key in lying if fingerprint(key) not in revoked]
    at_once = os.cpu_count() or 1  # each is a Python process of 1.5 s
    for first in range(0, len(keys), at_once):
        refusals += _register(flwr, superlink, keys[first : first + at_once], ids)
    if refusals:  # the others are in, or out, all the same
        raise LaunchError(_clipped(refusals[0]))
    return len(keys)


def _register(flwr: Flwr, superlink: Path, keys: Sequence[Path], ids: dict[str, Any]) -> list[str]:
    """Register some keys at once, and note their numbers, which are told only this once."""
    refusals: list[str] = []

    def hear(key: Path, command: subprocess.Popen[bytes], seconds: float) -> None:
        answer = output(command, seconds)
        if refusal := _refusal(answer, command.returncode, _KNOWN):
            refusals.append(f"{key} was not registered: {refusal}")
        if number := _told(answer).get("node-id"):
            ids[fingerprint(key)] = str(number)

    asked = [(key, flwr.start(*_registration(key), errors=True)) for key in keys]
    try:
        for key, command in asked:
            hear(key, command, 120.0)
    except BaseException:  # interrupted: what Flower has done by now is noted all the same
        for key, command in asked:
            with contextlib.suppress(Exception):
                hear(key, command, 10.0)
        raise
    finally:
        write_json(superlink / IDS, ids)
    return refusals


def throw_out(flwr: Flwr, superlink: Path) -> list[str]:
    """Have a running SuperLink forget the nodes of all revoked keys.

    Returns
    -------
    list of str
        Why it did not, for each key that it did not forget.
    """
    ids, refusals = read_json(superlink / IDS), []
    for key in sorted((superlink / REVOKED).glob("*.pub"), key=by_number):
        number = ids.get(fingerprint(key)) or _number(flwr, key)
        if number == OUT:
            continue
        if not number:
            refusals.append(f"{key} was not thrown out: {_UNNOTED}")
            continue
        ids[fingerprint(key)] = number
        write_json(superlink / IDS, ids)
        words = ["supernode", "unregister", number, CONNECTION, "--format", "json"]
        asked = flwr.start(*words, errors=True)
        answer = output(asked, 120.0)
        if refusal := _refusal(answer, asked.returncode, _UNKNOWN):
            refusals.append(f"{key} was not thrown out: {refusal}")
            continue
        ids[fingerprint(key)] = OUT
        write_json(superlink / IDS, ids)
    return refusals


def _number(flwr: Flwr, key: Path) -> str:
    """Learn a revoked key's number where it was not noted: a new database tells it once more."""
    answer = _told(output(flwr.start(*_registration(key), errors=True), 120.0))
    return str(answer.get("node-id") or "")


def forget_numbers(superlink: Path) -> None:
    """Before a SuperLink makes a new database: numbers of the old one would mislead."""
    ids = read_json(superlink / IDS)
    if ids and not (superlink / DATABASE).exists():
        write_json(superlink / IDS, {key: OUT for key, number in ids.items() if number == OUT})


def revoke_key(superlink: Path, name: str, node: Path | None) -> Path:
    """Put a node's public key to the revoked ones, and make it a new pair if it is at hand.

    Parameters
    ----------
    superlink : Path
        Its folder.
    name : str
        The node's, for instance ``node-1``.
    node : Path or None
        The node's folder, which gets the new private key.

    Returns
    -------
    Path
        Where the revoked key lies now.

    Raises
    ------
    UserError
        If no such key is admitted.
    """
    admitted = {key.stem: key for key in sorted((superlink / NODES).glob("*.pub"), key=by_number)}
    if name not in admitted:
        known = ", ".join(admitted) or "none"
        raise UserError(f"no node {name!r} is admitted", known, f"look into {superlink / NODES}")
    public = admitted[name]
    kept = superlink / REVOKED / f"{name}-{fingerprint(public)[:12]}.pub"
    kept.parent.mkdir(mode=0o700, exist_ok=True)
    fresh = (public.with_name(f".{name}.new"), (node or superlink) / "node.key.new")
    try:
        if node is not None:  # whole before the old one goes
            for path in fresh:
                path.unlink(missing_ok=True)
            make_node_key(fresh[1], fresh[0])
        write_bytes(kept, public.read_bytes())
        if node is None:
            public.unlink()
        else:  # killed in between: the node is not admitted, and to revoke again mends it
            fresh[1].replace(node / "node.key")
            fresh[0].replace(public)
    finally:
        for path in fresh:
            path.unlink(missing_ok=True)
    return kept


def _registration(key: Path) -> list[str]:
    words = ["supernode", "register", str(key), CONNECTION]
    return [*words, "--format", "json", "--name", key.stem]


def _told(answer: str) -> dict[str, object]:
    return json_object(answer[answer.find("{") : answer.rfind("}") + 1]) or {}


def _refusal(answer: str, code: int, harmless: str) -> str:
    """Say why Flower did not do it; empty if it did, or gives the harmless reason.

    Its exit code is 0 also when the SuperLink refuses: only the answer tells.
    """
    told = _told(answer)
    if told.get("success") is True and code == 0:
        return ""
    said = one_line(str(told.get("error-message") or answer))
    return "" if harmless in said.lower() else said or "Flower gives no reason"


def _clipped(text: str) -> str:
    return clip(one_line(text), LONGEST)
