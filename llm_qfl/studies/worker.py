"""A study's worker process: ``python -m llm_qfl.studies.worker``.

Reads tasks from its standard input, a line of JSON each, and answers each with a line: the error,
or nothing.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from typing import IO

from llm_qfl.studies.workers import Task, run_task


def _serve(answers: IO[str]) -> None:
    """Run tasks until there are no more."""
    tasks: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            tasks.put(line)
        os._exit(0)  # who started us is gone, or has no more for us

    threading.Thread(target=read, daemon=True).start()
    while True:
        error = run_task(Task(**json.loads(tasks.get())))
        answers.write(json.dumps({"error": error}) + "\n")
        answers.flush()


def main() -> None:
    """Be a worker: answers go where the standard output went, all else to the log."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _serve(answers)


if __name__ == "__main__":
    main()
