"""Settings of the quantum classifier."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from core import registry
from core.settings.backends import EXACT, PENNYLANE
from core.settings.declare import AUTO, Auto, Condition, Section, own, setting, used_by

LAYERWISE = (
    Condition(
        "quantum.model",
        lambda name: bool(registry.declared("ansatz", name, "layerwise", False)),
        "`vqc`, `product`, `strongly-entangling` or one of your own that is `layerwise`",
    ),
)

MOST_QUBITS = 8
"""Most that `quantum.qubits = auto` becomes."""


class QuantumSettings(Section):
    """The quantum classifier and what it runs on."""

    model: str = setting("qcnn", point="ansatz")
    """Ansatz: one that ships, or `module:attribute` of a file of yours, see
    docs/extending/ansatz.md."""
    options: str = setting("", applies_when=own("ansatz"))
    """Options of an ansatz of yours, `key=value,key=value`."""
    qubits: Annotated[int, Field(ge=2, le=20)] | Auto = setting(4)
    """Number of qubits; `auto`: of at most 8 the fewest, but one for each discriminant, whose
    linear probe is within a standard error of the best on validation rows (4 where nothing may be
    sent to choose by)."""
    block: Literal["su4", "paper"] = setting("su4", applies_when=used_by("ansatz", "quantum.block"))
    """Two-qubit convolution block: 15 angles (all of SU(4)) or the paper's 3."""
    uploads: int = setting(1, applies_when=used_by("ansatz", "quantum.uploads"), ge=1, le=4)
    """Times that the features are written into the state, trainable gates between two (data
    re-uploading): of the QCNN a ring of convolution blocks, else a layer."""
    feature_reps: int = setting(1, applies_when=used_by("ansatz", "quantum.feature_reps"), ge=1)
    """Repetitions of the ZZ feature map."""
    reps: int = setting(3, applies_when=used_by("ansatz", "quantum.reps"), ge=1)
    """Layers of trainable gates; of the VQC repetitions of RealAmplitudes."""
    layers: str = setting("", applies_when=LAYERWISE, per_node=True, listed=True)
    """Layers of a client's circuit where its device has room for fewer than `quantum.reps`: the
    first ones, whose angles are averaged over all clients that have them. One number, or one for
    each client, comma-separated; empty: all. See docs/backends.md."""
    readout: Literal["per-class", "linear", "linear-zz"] = setting("linear", formerly="per-class")
    """What classes are read from: one Z each with a scale and a bias (the paper's; two classes
    share one); weights of every qubit's Z, trained with the angles; or of neighbours' ZZ too. The
    linear ones measure the same circuits and take up to 2^qubits classes."""
    backend: str = setting("exact", per_node=True, listed=True)
    """`exact` (our batched simulator), `pennylane:<device>`, `aer`, `aer:<fake or real IBM
    backend>` (its noise), `fake:<IBM backend>`, `ibm:<backend>` or `ibm:least_busy`; or one for
    each client, comma-separated. See docs/backends.md."""
    device_options: str = setting("", applies_when=PENNYLANE, per_node=True)
    """The PennyLane device's own arguments as `key=value,key=value`, for instance
    `c_dtype=complex64,batch_obs=true`."""
    noise: str = setting("", applies_when=PENNYLANE, per_node=True)
    """Noise channels after every gate as `channel=probability,...` (`depolarizing`,
    `amplitude-damping`, `phase-damping`, `bit-flip`, `phase-flip`) and before the measurement
    (`readout`); the device must take channels, as `default.mixed` does."""
    precision: Literal["single", "double"] = setting("single", applies_when=EXACT, per_node=True)
    """Number format of the exact engine's states; small circuits compute in double."""
    device: Literal["auto", "cpu", "cuda"] = setting("cpu", applies_when=EXACT, per_node=True)
    """Where the exact engine computes."""
    threads: int = setting(1, per_node=True, ge=1)
    """Torch threads of a client; more helps only beyond 8 qubits."""

    @property
    def width(self) -> int:
        """The number of qubits; of `auto` the most that it may become."""
        return MOST_QUBITS if self.qubits == AUTO else self.qubits
