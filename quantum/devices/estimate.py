"""What jobs will take of a QPU, before they are submitted."""

from __future__ import annotations

from quantum.devices.transpiling import Facts

JOB_SECONDS = 2.0
"""Overhead of a job on IBM's QPUs, seconds, as IBM documents it."""

REPETITION_SECONDS = 250e-6
"""IBM's default delay between two shots, seconds: the qubits relax."""


NOISE_FACTORS = 3
"""Zero-noise extrapolation runs each circuit at so many noise factors (IBM's default 1, 3, 5)."""


def qpu_seconds(
    backend: str, facts: Facts, circuits: int, shots: int, resilience_level: int = 0
) -> float:
    """Estimate the QPU time of one job.

    ``2 s + circuits x shots x (250 us + duration of a shot)``, IBM's own rule of thumb ("Workload
    usage"), three times the circuits at resilience level 2; the calibration circuits of read-out
    mitigation are not in it. What a job really took is read back from it.

    Parameters
    ----------
    backend : str
        As `quantum.backend` names it; Aer takes no QPU.
    facts : Facts
        The transpiled circuit's duration.
    circuits, shots : int
        Parameter sets, and shots of each.
    resilience_level : int
        The Estimator's.

    Returns
    -------
    float
        Seconds.
    """
    if backend.startswith("aer"):
        return 0.0
    factor = NOISE_FACTORS if resilience_level == 2 else 1
    return JOB_SECONDS + factor * circuits * shots * (REPETITION_SECONDS + facts.seconds)
