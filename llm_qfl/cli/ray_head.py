"""A Ray cluster of a launch's own, which starts while Flower does: `ray_head.py FILE CORES`.

Flower would start Ray when all else is up, and then wait for the workers' imports. Writes the
cluster's address to FILE, or nothing if Ray does not start, and ends it when it is ended itself.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path


def main(file: Path, cores: int) -> None:
    """Start Ray, say where it is, and wait for SIGTERM."""
    import ray

    ended, address = threading.Event(), ""
    try:
        ray.init(
            num_cpus=cores,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        address = ray.get_runtime_context().gcs_address
    finally:
        half = file.with_suffix(".part")
        half.write_text(address, encoding="ascii")
        os.replace(half, file)
    signal.signal(signal.SIGTERM, lambda *_: ended.set())  # Ray's own handler prints a trace
    ended.wait()
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
