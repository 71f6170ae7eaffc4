"""Which nodes a SuperLink admits: keys are registered, and revoked for good.

Flower keeps the keys in its database. Its Control API lists them, so we keep no record of our own.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from core import UserError, by_number, write_bytes
from llm_qfl.cli.children import LaunchError
from llm_qfl.cli.deploy.keys import drafts, make_node_key, public_pem
from llm_qfl.cli.formatting import LONGEST, clip, one_line

if TYPE_CHECKING:
    from core.flower_compat import NodeRegistry

NODES, REVOKED = "nodes", "revoked"
"""Folders of ``superlink/`` with the public keys that are admitted, and those that were."""


def public_keys(folder: Path) -> list[Path]:
    """Return the public keys in a folder, node-2 before node-10."""
    return sorted(folder.glob("*.pub"), key=by_number)


def register(superlink: Path, port: int) -> int:
    """Make the SuperLink that runs from a folder admit its keys; return how many are admitted.

    Raises
    ------
    LaunchError
        If a key is invalid or the SuperLink refuses it. All other keys are dealt with before.
    """
    from core.flower_compat import NodeRegistry

    registry = NodeRegistry(f"127.0.0.1:{port}", (superlink / "ca.crt").read_bytes())
    with contextlib.closing(registry):
        return admit(registry, superlink)


def admit(registry: NodeRegistry, superlink: Path) -> int:
    """Unregister the revoked keys of a folder, then register the others, as `register`."""
    known, problems = _nodes(registry), []
    admitted, revoked, invalid = sort_keys(superlink)
    for action, keys in (("unregistered", revoked), ("registered", admitted)):
        for key, path in keys.items():
            try:
                if action == "unregistered" and key in known:
                    registry.unregister(known[key])
                elif action == "registered" and key not in known:
                    registry.register(key, path.stem)
            except ConnectionError as error:
                problems.append(f"{path} was not {action}: {clip(one_line(str(error)), LONGEST)}")
    if problems or invalid:
        raise LaunchError([*problems, *invalid][0])
    return len(admitted)


def sort_keys(superlink: Path) -> tuple[dict[bytes, Path], dict[bytes, Path], list[str]]:
    """Return the admitted and the revoked keys of a folder in PEM, and what is wrong with others.

    A revoked key is not admitted, also where a copy of the folder has left it.
    """
    found: dict[str, dict[bytes, Path]] = {NODES: {}, REVOKED: {}}
    invalid = []
    for place, keys in found.items():
        for path in public_keys(superlink / place):
            try:
                keys[public_pem(path)] = path
            except ValueError as error:
                invalid.append(f"{path} is no key of a node: {error}")
    admitted = {key: path for key, path in found[NODES].items() if key not in found[REVOKED]}
    return admitted, found[REVOKED], invalid


def _nodes(registry: NodeRegistry) -> dict[bytes, int]:
    try:
        return registry.nodes()
    except ConnectionError as error:
        raise LaunchError(
            f"the SuperLink does not list its nodes: {one_line(str(error))}"
        ) from None


def revoke_key(superlink: Path, name: str, node: Path | None) -> Path:
    """Move a node's public key to the revoked ones, and make a new pair if its folder is here.

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
        The revoked key's file.

    Raises
    ------
    UserError
        If no such key is admitted.
    """
    admitted = {key.stem: key for key in public_keys(superlink / NODES)}
    if name not in admitted:
        known = ", ".join(admitted) or "none"
        raise UserError(f"no node {name!r} is admitted", known, f"look into {superlink / NODES}")
    public = admitted[name]
    digest = hashlib.sha256(b" ".join(public.read_bytes().split()[:2])).hexdigest()
    revoked = superlink / REVOKED / f"{name}-{digest[:12]}.pub"
    revoked.parent.mkdir(mode=0o700, exist_ok=True)
    fresh = (node or superlink) / "node.key.new", public.with_name(f".{name}.new")
    with drafts(*fresh):
        if node is not None:  # the new pair is complete before the old one goes
            make_node_key(*fresh)
        write_bytes(revoked, public.read_bytes())
        if node is None:
            public.unlink()
        else:  # killed in between: the node is not admitted; revoking it again repairs that
            fresh[0].replace(node / "node.key")
            fresh[1].replace(public)
    return revoked
