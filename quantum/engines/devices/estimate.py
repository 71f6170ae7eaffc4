"""What jobs will take of a QPU, before they are submitted."""

from __future__ import annotations

from core import is_shot_based

JOB_SECONDS = 2.0
"""Overhead of a job on IBM's QPUs, seconds, as IBM documents it."""

REPETITION_SECONDS = 250e-6
"""IBM's default delay between two shots, seconds: the qubits relax."""


NOISE_FACTORS = 3
"""Zero-noise extrapolation runs each circuit at so many noise factors (IBM's default 1, 3, 5)."""


def qpu_seconds(
    backend: str,
    duration: float,
    circuits: int,
    shots: int,
    resilience_level: int = 0,
    jobs: int = 1,
) -> float:
    """Estimate the QPU time of jobs.

    ``2 s x jobs + circuits x shots x (250 us + duration of a shot)``, IBM's own rule of thumb
    ("Workload usage"), three times the circuits at resilience level 2; the calibration circuits of
    read-out mitigation are not in it. What a job really took is read back from it.

    Parameters
    ----------
    backend : str
        As `quantum.backend` names it. For a device's noise or snapshot it is what the device would
        take; `exact`, `aer` and PennyLane's devices stand for none.
    duration : float
        Of one shot's gates, seconds.
    circuits, shots : int
        Parameter sets of all jobs, and shots of each.
    resilience_level : int
        The Estimator's.
    jobs : int
        How many.

    Returns
    -------
    float
        Seconds.
    """
    if not is_shot_based(backend) or backend == "aer":
        return 0.0
    factor = NOISE_FACTORS if resilience_level == 2 else 1
    return JOB_SECONDS * jobs + factor * circuits * shots * (REPETITION_SECONDS + duration)
