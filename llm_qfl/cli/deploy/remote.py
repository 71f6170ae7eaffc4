"""A deployment as `llm-qfl run --on` sees it: its SuperLink belongs to somebody else."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from core import UserError, by_number
from llm_qfl.cli.children import LaunchError
from llm_qfl.cli.deploy.folder import Facts
from llm_qfl.cli.deploy.parts import SUPERLINK, running
from llm_qfl.cli.deploy.supervisor import read_state
from llm_qfl.cli.flower import Flwr
from llm_qfl.cli.processes import TAG, end_all, members, wait_for
from llm_qfl.cli.superlink import healthy, private_flwr

CHECK_SECONDS = 5.0
"""Seconds between two checks that the SuperLink is there."""

HOST = "127.0.0.1"
"""A SuperLink takes runs from its own machine alone: results are written there too."""

MISSED_SECONDS = 90.0
"""A SuperLink that does not answer for so long has ended; one started again is back sooner."""


@dataclass
class Deployed:
    """The SuperLink of a running deployment.

    Parameters
    ----------
    facts : Facts
        The deployment.
    program : str
        Absolute path of ``flwr``.
    logs : Path
        Folder for ``run.log``.

    Raises
    ------
    UserError
        If the deployment is not up.
    """

    facts: Facts
    program: str
    logs: Path
    flwr: Flwr = field(init=False)
    port: int = field(init=False)
    _checked: float = field(init=False, default=0.0)
    _answered: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.port = running_port(self.facts)
        self.flwr = private_flwr(self.program, self.logs)
        self.flwr.connect(f"{HOST}:{self.port}", self.facts.authority)

    simulated: ClassVar[bool] = False

    @property
    def node_logs(self) -> list[Path]:
        """Logs of the nodes that run on this machine, if any."""
        return sorted((self.facts.control.parent / "logs").glob("node-*.log"), key=by_number)

    def start(self) -> None:
        """Check that it is there.

        Raises
        ------
        LaunchError
            If it is not.
        """
        if not wait_for(self._answers, CHECK_SECONDS, 0.5):
            raise LaunchError(
                f"no SuperLink that {self.facts.authority} vouches for answers at "
                f"{HOST}:{self.port}; run it on the SuperLink's machine"
            )
        self._answered = self._checked = time.monotonic()

    def _answers(self) -> bool:
        return healthy(self.port, HOST, self.facts.authority)

    def dead(self) -> bool:
        """Whether the SuperLink has not answered for a while."""
        now = time.monotonic()
        if now - self._checked > CHECK_SECONDS:
            self._checked = now
            if self._answers():
                self._answered = time.monotonic()
        return now - self._answered > MISSED_SECONDS

    def tail(self) -> str:
        """Return what is known of its end."""
        return f"it has not answered for {MISSED_SECONDS:.0f} s"

    def close(self, grace: float = 10.0) -> int:
        """End our own commands, not the deployment; return how many could not be ended."""
        left = end_all(members(self.flwr.environment[TAG]), grace)
        self.flwr.clean_up()
        return len(left)


def running_port(facts: Facts) -> int:
    """Return the port at which a deployment's SuperLink takes runs.

    Raises
    ------
    UserError
        If the port is only known while the deployment runs, and it does not run here.
    """
    if facts.control_port:
        return facts.control_port
    folder = facts.control.parent
    port = running(folder / "superlink", SUPERLINK).get("port")
    if not port or not read_state(folder).get("ready", True):
        raise UserError(
            f"the deployment {str(folder)!r} is not up",
            "one that runs, with all its nodes",
            f"start it: llm-qfl deploy up {folder}",
        )
    return int(port)
