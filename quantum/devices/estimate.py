"""What jobs will take of a QPU, before they are submitted."""

from __future__ import annotations

from quantum.devices.transpiling import Facts

JOB_SECONDS = 2.0
"""Overhead of a job on IBM's QPUs, seconds, as IBM documents it."""

REPETITION_SECONDS = 250e-6
"""IBM's default delay between two shots, seconds: the qubits relax."""


def qpu_seconds(backend: str, facts: Facts, circuits: int, shots: int) -> float:
    """Estimate the QPU time of one job.

    ``2 s + circuits x shots x (250 us + duration of a shot)``, IBM's own rule of thumb ("Workload
    usage"); what a job really took is read back from it.

    Parameters
    ----------
    backend : str
        As `quantum.backend` names it; Aer takes no QPU.
    facts : Facts
        The transpiled circuit's duration.
    circuits, shots : int
        Parameter sets, and shots of each.

    Returns
    -------
    float
        Seconds.
    """
    if backend.startswith("aer"):
        return 0.0
    return JOB_SECONDS + circuits * shots * (REPETITION_SECONDS + facts.seconds)
