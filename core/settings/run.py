"""Settings of the run as a whole, and when it ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from core.settings.backends import DEVICE, IBM
from core.settings.declare import Section, above, setting, when

(PATIENT,) = above("stop.patience", 0)
(PLATEAU,) = when("train.schedule", "plateau")


class RunSettings(Section):
    """The run as a whole."""

    name: str = setting("")
    """Name of the run; part of its results folder. Empty: the last config file's name, else the
    data's."""
    seed: int = setting(0, ge=0, le=2**31 - 1)
    """The one seed: every random choice derives from it."""
    clients: int = setting(4, ge=1)
    """Number of client nodes the run waits for."""
    rounds: int = setting(20, ge=1, resumable=True)
    """Upper bound on communication rounds."""
    min_replies: int = setting(1, ge=1, resumable=True)
    """Fewest valid replies a round may aggregate; it waits for as many nodes."""
    wait_seconds: float = setting(300.0, gt=0, resumable=True)
    """Longest wait for the nodes to appear, or for enough to return, seconds."""
    round_timeout: float = setting(3600.0, gt=0, resumable=True)
    """Longest wait for the replies of one round, seconds. A later reply is counted in the ledger
    and not aggregated; its client is left alone until then, for two more such waits at most, if
    `run.min_replies` others are left."""
    output: str = setting("runs", resumable=True)
    """Folder that collects the results folders."""
    folder: str = setting("", resumable=True)
    """This run's results folder; empty: made under `run.output`."""
    resume: bool = setting(False, resumable=True)
    """Go on with the interrupted run in `run.folder`; `llm-qfl run --resume` sets both."""
    report: bool = setting(True, resumable=True)
    """Write `report.html` at the end."""
    track: str = setting("", resumable=True, listed=True)
    """Trackers that the server sends the run's figures to while it runs: `wandb`, `mlflow`,
    `tensorboard`, or several; empty: none."""
    allow_code: bool = setting(True, per_node=True, resumable=True)
    """Take extensions of the user's own files (`module:attribute`), which travel with the run as
    code; false at a node: it refuses such a run."""


class StopSettings(Section):
    """When the run ends before its last round."""

    rule: Literal["none", "change", "gap", "either"] = setting("none", resumable=True)
    """Paper's criteria: the mean |L_k - L_server| changes by less than tau; or |L_server - L_LLM| <
    tau."""
    tau: float = setting(
        0.02, applies_when=when("stop.rule", "change", "gap", "either"), gt=0, resumable=True
    )
    """Tolerance of the criteria."""
    min_rounds: int = setting(2, ge=1, resumable=True)
    """No agent, rule or patience stops the run earlier."""
    patience: int = setting(3, ge=0, resumable=True)
    """Rounds without a better validation loss before the run stops; 0: off."""
    min_gain: float = setting(
        0.002, applies_when=(replace(PATIENT, or_else=PLATEAU),), formerly=0.0, ge=0
    )
    """A validation loss counts as better if it is by more than this below the last better one, in
    nats; for `stop.patience` and `train.schedule=plateau`."""
    target_accuracy: float = setting(0.0, ge=0, le=1, resumable=True)
    """Validation accuracy that ends the run; 0: off."""
    circuits: int = setting(0, ge=0, resumable=True)
    """Budget of circuits over all clients; 0: off."""
    shots: int = setting(0, applies_when=DEVICE, ge=0, resumable=True)
    """Budget of shots over all clients; 0: off."""
    qpu_seconds: float = setting(0.0, applies_when=IBM, ge=0, resumable=True)
    """Budget of QPU seconds over all clients, checked after each round; 0: off."""
    wall_seconds: float = setting(0.0, ge=0, resumable=True)
    """Budget of wall-clock seconds of the rounds; 0: off."""
