"""Every site's public key at every node, by which sites know each other in secure aggregation.

Who made the deployment's folder distributes them: a server that did could put itself in the middle.
"""

from __future__ import annotations

import re
from pathlib import Path

from core import by_number, write_bytes

PEERS = "peers"
"""Folder of ``node-K/`` with the public keys of all sites."""

FEWEST, MOST = 3, 200
"""Nodes for which `init` distributes keys: a sum needs three, and n nodes need n^2 files."""

_NAME = re.compile(r"node-(0|[1-9]\d*)\.pub")


def distribute(folder: Path) -> list[str]:
    """Write the public keys in ``superlink/nodes/`` into each node's ``peers/`` of a deployment.

    Parameters
    ----------
    folder : Path
        The whole deployment's; nodes that are not in it are left out.

    Returns
    -------
    list of str
        Names of the nodes that have them now.
    """
    public = sorted((folder / "superlink" / "nodes").glob("node-*.pub"), key=by_number)
    keys = {path.name: path.read_bytes() for path in public if _NAME.fullmatch(path.name)}
    nodes = sorted((path.parent for path in folder.glob("node-*/node.key")), key=by_number)
    for node in nodes:
        place = node / PEERS
        place.mkdir(mode=0o700, exist_ok=True)
        for name, key in keys.items():
            if not (place / name).is_file() or (place / name).read_bytes() != key:
                write_bytes(place / name, key)
        for old in place.glob("*.pub"):
            if old.name not in keys:
                old.unlink()
    return [node.name for node in nodes]


def settings_of(folder: Path) -> dict[str, str]:
    """Return the settings by which a node signs with its own key and knows the others'.

    Parameters
    ----------
    folder : Path
        ``node-K/``, absolute.
    """
    found = {"privacy.site_key": folder / "node.key", "privacy.peers": folder / PEERS}
    return {key: str(path) for key, path in found.items() if path.exists()}
