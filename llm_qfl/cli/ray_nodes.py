"""Print the nodes of a Ray cluster as JSON: `ray_nodes.py ADDRESS`.

A process of its own, since Ray may never answer.
"""

from __future__ import annotations

import json
import logging
import sys


def main(address: str) -> None:
    """Connect to the cluster as a run would, and print its living nodes."""
    import ray

    ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    nodes = [
        {
            "host": f"{node['NodeManagerHostname']} {node['NodeManagerAddress']}",
            "resources": node["Resources"],
        }
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]
    print(json.dumps(nodes))


if __name__ == "__main__":
    main(sys.argv[1])
