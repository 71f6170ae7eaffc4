"""Circuits of unequal depth that share their first layers: which depths a run's sites may have."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from core import QuantumSettings, SettingsError, with_layers
from quantum.circuit import Circuit
from quantum.circuit.gates import gates_of
from quantum.circuit.trace import build_ansatz

Parameters = dict[str, npt.NDArray[np.floating]]


@functools.lru_cache(maxsize=8)
def depths(settings: QuantumSettings, classes: int) -> dict[int, int]:
    """Return the layers of each circuit of a run by its number of angles, the deepest last.

    Parameters
    ----------
    settings : QuantumSettings
        The run's `quantum` section: ``reps`` layers at most.
    classes : int
        Number of classes C.

    Raises
    ------
    SettingsError
        If a circuit of fewer layers is not the beginning of that of all, with the same read-outs:
        an ansatz that says ``layerwise = True`` and is not.
    """
    deepest = build_ansatz(with_layers(settings, settings.reps), classes)
    found = {}
    for layers in range(1, settings.reps + 1):
        circuit = build_ansatz(with_layers(settings, layers), classes)
        if not _begins(circuit, deepest):
            raise SettingsError(
                f"quantum.layers with quantum.model = {settings.model!r}, of which {layers} of "
                f"{settings.reps} layers are not the first ones",
                "an ansatz whose gates and weights come layer by layer",
                "remove `layerwise` from it, or quantum.layers",
            )
        found[circuit.angles] = layers
    return found


def _begins(circuit: Circuit, deepest: Circuit) -> bool:
    """Whether a circuit's gates are another's first ones, with the same weights and read-outs."""
    gates, all_gates = list(gates_of(circuit.blocks)), list(gates_of(deepest.blocks))
    formulas, all_formulas = circuit.formulas, deepest.formulas
    if formulas is not None and all_formulas is not None:
        all_formulas = all_formulas[: len(formulas)]
    return (
        gates == all_gates[: len(gates)]
        and formulas == all_formulas
        and circuit.readouts == deepest.readouts
    )


def first_layers(parameters: Parameters, angles: int) -> Parameters:
    """Return the parameters of a circuit of the first layers: so many angles, and the whole head.

    The same arrays where that is all of them.
    """
    if len(parameters["angles"]) == angles:
        return parameters
    return {**parameters, "angles": parameters["angles"][:angles]}
