"""Tracing: an ansatz is called once with symbols, and what it does is written down.

An ansatz is an object with

* ``circuit(features, weights, wires)``, a PennyLane quantum function, which may take ``classes``
  as a fourth argument;
* ``shape(qubits, classes)``, the shape of its weights;
* optionally ``observables(wires, classes)``, what is measured; without it Z on every qubit, with a
  read-out per class on the last ones;
* optionally ``describe()``, a short name, and what `core.registry` says of any extension.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from core import QuantumSettings, SettingsError, parse_options
from core.registry import POINTS, bad_extension, build
from quantum.circuit.circuit import Circuit
from quantum.circuit.expression import symbols, tracing
from quantum.circuit.gates import Block, UnknownGateError, gates_of, wire_tuple
from quantum.circuit.recorder import Recorder
from quantum.circuit.slots import PauliWords, in_z_basis, resolve

MIN_QUBITS, MAX_QUBITS = 2, 20
ReadoutKind = Literal["per-class", "linear", "linear-zz"]


class Ansatz(Protocol):
    """A circuit and the shape of its weights."""

    def circuit(self, features: Any, weights: Any, wires: Sequence[int]) -> None:
        """Queue the gates of one row: features (n,), weights of `shape`, n wires."""

    def shape(self, qubits: int, classes: int) -> tuple[int, ...]:
        """Shape of the weights."""


def readout_count(classes: int) -> int:
    """Return the number of read-outs R that classes need: one for two, else one each."""
    return 1 if classes == 2 else classes


def trace_ansatz(
    ansatz: Any, qubits: int, classes: int = 2, name: str = "", readout: ReadoutKind = "per-class"
) -> Circuit:
    """Trace an ansatz.

    Parameters
    ----------
    ansatz : Ansatz
        The ansatz.
    qubits : int
        Number of qubits n, 2 to 20.
    classes : int
        Number of classes C >= 2.
    name : str
        What `quantum.model` calls it, for errors.
    readout : {"per-class", "linear", "linear-zz"}
        What is measured: ``per-class`` and of an ansatz of the user's the observables that it
        names; else Z of every qubit, with ``linear-zz`` ZZ of the ring's neighbours too.

    Returns
    -------
    Circuit
        What engines run.

    Raises
    ------
    SettingsError
        If it has too few qubits, or the ansatz is no good: one line that names its file.
    """
    _check_sizes(qubits, classes, readout)
    return _Tracing(ansatz, qubits, classes, name or type(ansatz).__name__, readout).circuit()


class _Tracing:
    """One tracing of one ansatz."""

    def __init__(
        self, ansatz: Any, qubits: int, classes: int, name: str, readout: ReadoutKind
    ) -> None:
        self._ansatz, self._qubits, self._classes, self._name = ansatz, qubits, classes, name
        self._readout = readout
        self._wires = list(range(qubits))

    def circuit(self) -> Circuit:
        """Trace, check and describe."""
        shape = self._shape()
        blocks, readouts = self._blocks(shape), self._readouts()
        blocks, words = in_z_basis(blocks, readouts, self._bad)
        resolved, formulas = resolve(blocks, math.prod(shape), self._bad)
        first = _encoding_length(resolved)
        text = self._identity(len(words))
        if not _ships(self._ansatz):
            parts = repr((resolved, words, formulas)).encode()
            text += f" {hashlib.sha256(parts).hexdigest()[:16]}"
        return Circuit(
            identity=text,
            description=self._description(),
            n_qubits=self._qubits,
            shape=shape,
            encoding=resolved[:first],
            layers=resolved[first:],
            readouts=words,
            formulas=formulas,
        )

    def _shape(self) -> tuple[int, ...]:
        for method in ("circuit", "shape"):
            if not callable(getattr(self._ansatz, method, None)):
                raise self._bad(f"has no {method}()")
        given = self._call(self._ansatz.shape, self._qubits, self._classes)
        shape = (given,) if isinstance(given, int) else given
        try:
            shape = tuple(int(size) for size in shape)
        except (TypeError, ValueError):
            raise self._bad(f"shape() returns {given!r}", "a tuple of whole numbers") from None
        if math.prod(shape) < 1 or min(shape, default=1) < 1:
            raise self._bad(f"has no trainable weights: shape() returns {shape}")
        return shape

    def _blocks(self, shape: tuple[int, ...]) -> tuple[Block, ...]:
        """Call the circuit; again if it was what imported PennyLane, whose gates were not seen.

        One of the user's own is called twice: every site traces for itself, so chance is refused.
        """
        imported = "pennylane" in sys.modules
        blocks = self._record(shape)
        if not imported and "pennylane" in sys.modules:
            blocks = self._record(shape)
        if not _ships(self._ansatz) and repr(self._record(shape)) != repr(blocks):
            raise self._bad(
                "circuit() queues other gates at each call",
                "the same gates at each call: numbers drawn at random are weights, or of a seed",
            )
        for gate in gates_of(blocks):
            foreign = [wire for wire in gate.wires if wire not in self._wires]
            if foreign or len(set(gate.wires)) < len(gate.wires):
                raise self._bad(
                    f"{gate.name} acts on wires {list(gate.wires)}", f"different of {self._wires}"
                )
        return blocks

    def _record(self, shape: tuple[int, ...]) -> tuple[Block, ...]:
        features, weights = symbols("feature", self._qubits), symbols("weight", *shape)
        circuit, recorder, returned = self._ansatz.circuit, Recorder(), None
        arguments = (self._classes,) if _takes_classes(circuit) else ()
        try:
            with recorder.recording(), tracing():
                returned = circuit(features, weights, list(self._wires), *arguments)
        except SettingsError:
            raise
        except UnknownGateError as error:
            raise self._bad(f"circuit(): {error}", "gates that PennyLane decomposes") from None
        except Exception as error:
            raise bad_extension("ansatz", self._name, error, self._file()) from error
        if returned is not None:
            raise self._bad("circuit() returns something", "gates only; observables() is measured")
        return tuple(recorder.blocks)

    def _readouts(self) -> list[PauliWords]:
        """Return what is measured, as sums of Pauli words."""
        method = getattr(self._ansatz, "observables", None)
        per_class = self._readout == "per-class"
        if not per_class and (method is None or _ships(self._ansatz)):
            words = linear_words(self._qubits, self._readout)
            return [{tuple((wire, "Z") for wire in word): 1.0} for word in words]
        if self._readout == "linear-zz":
            raise SettingsError(
                f"quantum.readout = 'linear-zz' with {self._name!r}, which names its observables",
                "linear, a head that sees these, or per-class",
                "change quantum.readout, or leave observables() out",
            )
        count = readout_count(self._classes)
        given: Any = self._wires[-count:]
        if method is not None:
            given = self._call(method, list(self._wires), self._classes)
        listed = list(given) if isinstance(given, Sequence) else [given]
        if not listed or (per_class and len(listed) not in (count, self._classes)):
            raise self._bad(
                f"observables() returns {len(listed)} of them for {self._classes} classes",
                f"{count}: one for two classes, else one for each class",
            )
        return [self._words(one) for one in listed]

    def _words(self, given: Any) -> PauliWords:
        found: dict[tuple[tuple[int, str], ...], float]
        if isinstance(given, int):
            found = {((given, "Z"),): 1.0}
        elif isinstance(given, Mapping):
            found = self._products(given)
        else:
            from quantum.circuit.from_pennylane import words_from

            try:
                found = words_from(given)
            except UnknownGateError as error:
                raise self._bad(f"observables(): {error}", "sums of Pauli words") from None
        foreign = {wire for word in found for wire, _ in word} - set(self._wires)
        if foreign or not found:
            raise self._bad(
                f"observables() measures wires {sorted(foreign)}", f"some of {self._wires}"
            )
        return found

    def _products(self, given: Mapping[Any, Any]) -> dict[tuple[tuple[int, str], ...], float]:
        """Read products of Z by their wires; those of the same wires add up."""
        found: dict[tuple[tuple[int, str], ...], float] = {}
        for wires, factor in given.items():
            try:
                word = tuple((wire, "Z") for wire in sorted(set(wire_tuple(wires))))
                number = float(factor)
            except (TypeError, ValueError):
                what = f"observables() has {wires!r}: {factor!r}"
                raise self._bad(what, "a number for each wire or tuple of wires") from None
            if len(word) < len(wire_tuple(wires)) or not math.isfinite(number):
                what = f"observables() has {wires!r}: {factor!r}"
                raise self._bad(what, "different wires and a finite number")
            found[word] = found.get(word, 0.0) + number
        return found

    def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return method(*arguments)
        except SettingsError:
            raise
        except Exception as error:
            raise bad_extension("ansatz", self._name, error, self._file()) from error

    def _identity(self, readouts: int) -> str:
        """Name the circuit; of dataclasses with their fields."""
        own = self._ansatz
        kind = readouts if self._readout == "per-class" else self._readout
        parts = [f"n_qubits={self._qubits}", f"readouts={kind}"]
        if is_dataclass(own):
            parts += [f"{f.name}={getattr(own, f.name)!r}" for f in fields(own) if f.repr]
        return f"{type(own).__name__}({', '.join(parts)})"

    def _description(self) -> str:
        describe = getattr(self._ansatz, "describe", None)
        name = self._call(describe) if callable(describe) else self._name
        first, comma, rest = str(name).partition(",")
        return f"{first}, {self._qubits} qubits{comma}{rest}"

    def _file(self) -> str:
        own = self._ansatz if inspect.isclass(self._ansatz) else type(self._ansatz)
        for one in (getattr(self._ansatz, "circuit", None), own):
            try:
                return Path(inspect.getsourcefile(one) or "").name  # type: ignore[arg-type]
            except TypeError:
                continue
        return ""

    def _bad(self, what: str, accepted: str = "") -> SettingsError:
        file = self._file()
        where = f"{file}: " if file else ""
        given = f"quantum.model = {self._name!r}: {where}{what}"
        return SettingsError(given, accepted or POINTS["ansatz"].expected, "correct the file")


def linear_words(qubits: int, readout: ReadoutKind) -> list[tuple[int, ...]]:
    """Return the qubits of each product of Z that a linear head sees."""
    pairs = [(k, (k + 1) % qubits) for k in range(qubits)]
    rings = sorted({tuple(sorted(pair)) for pair in pairs}) if readout == "linear-zz" else []
    return [(qubit,) for qubit in range(qubits)] + rings


def _check_sizes(qubits: int, classes: int, readout: ReadoutKind) -> None:
    if classes < 2:
        raise SettingsError(
            f"{classes} class(es)", "2 or more classes", "use data with more classes"
        )
    if not MIN_QUBITS <= qubits <= MAX_QUBITS:
        raise SettingsError(
            f"quantum.qubits = {qubits}", f"{MIN_QUBITS} to {MAX_QUBITS}", "change quantum.qubits"
        )
    readouts = readout_count(classes)
    if readout == "per-class" and readouts > qubits:
        raise SettingsError(
            f"quantum.qubits = {qubits} with {readouts} classes, each read out on its own qubit",
            f"at least {max(readouts, MIN_QUBITS)} qubits (at most {MAX_QUBITS})",
            "set quantum.readout=linear, raise quantum.qubits or use fewer classes",
        )
    if classes > 2**qubits:
        raise SettingsError(
            f"quantum.qubits = {qubits} with {classes} classes",
            f"at least {math.ceil(math.log2(classes))} qubits, which have as many basis states",
            "raise quantum.qubits or use fewer classes",
        )


def _ships(ansatz: Any) -> bool:
    return type(ansatz).__module__.startswith(f"{POINTS['ansatz'].package}.")


def _takes_classes(circuit: Callable[..., Any]) -> bool:
    try:
        return "classes" in inspect.signature(circuit).parameters
    except (TypeError, ValueError):
        return False


def _encoding_length(blocks: Sequence[Block]) -> int:
    """Count the first blocks without weights, up to the last of them that has features."""
    length = 0
    for place, block in enumerate(blocks):
        if any(gate.is_trainable for gate in block.gates):
            break
        if any(gate.needs_features for gate in block.gates):
            length = place + 1
    return length


def build_ansatz(settings: QuantumSettings, classes: int) -> Circuit:
    """Trace the ansatz that the settings name.

    Parameters
    ----------
    settings : QuantumSettings
        The `quantum` section; an ansatz with ``from_settings`` is given it.
    classes : int
        Number of classes C.

    Returns
    -------
    Circuit
        What engines run.

    Raises
    ------
    SettingsError
        Fewer than two classes, too few qubits for them, or an ansatz that is no good.
    """
    options = parse_options("quantum.options", settings.options)
    ansatz = build("ansatz", settings.model, settings, options)
    return trace_ansatz(ansatz, settings.width, classes, settings.model, settings.readout)
