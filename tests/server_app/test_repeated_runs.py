"""Two runs of one seed give the same numbers, on every backend that docs/backends.md says so of."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pennylane as qml
import pytest
from safetensors.numpy import load_file

from tests.command import ROOT
from tests.conftest import NO_TEACHER, Federate

FEW = (
    "run.clients=2",
    "run.rounds=1",
    "data.train_rows=24",
    "data.test_rows=10",
    "data.server_rows=10",
    "quantum.qubits=2",
    "quantum.block=paper",
    "train.steps=2",
    "train.batch_rows=2",
    "train.optimizer=spsa",
    "evaluation.baselines=false",
    *NO_TEACHER,
)
SHOTS = ("hardware.shots=32",)
BACKENDS = {
    "exact": (),
    "pennylane:default.qubit": SHOTS,
    "pennylane:default.mixed": (*SHOTS, "quantum.noise=depolarizing=0.01,readout=0.02"),
    "pennylane:lightning.qubit": SHOTS,
    "pennylane:reference.qubit": SHOTS,
    "pennylane:qiskit.aer": (),  # samples all the same, with its own number of shots
    "pennylane:qiskit.basicsim": SHOTS,
    "aer": (*SHOTS, "hardware.layout_trials=1"),
    "aer:manila": (*SHOTS, "hardware.layout_trials=1"),
    "fake:manila": (*SHOTS, "hardware.layout_trials=1"),
}
WARNS = "ignore::DeprecationWarning"  # the plugin's, of its own devices


@pytest.fixture
def stores(tmp_path: Path, site_store: Path) -> Callable[[], str]:
    """Return a function that makes a store without jobs: jobs of the first run must not serve."""

    def make() -> str:
        store = tmp_path / f"store-{len(list(tmp_path.iterdir()))}"
        store.mkdir()
        for shared in ("teachers", "features", "circuits"):
            (site_store / shared).mkdir(mode=0o700, exist_ok=True)
            (store / shared).symlink_to(site_store / shared, target_is_directory=True)
        return f"llm.store={store}"

    return make


def needs(backend: str) -> None:
    plugin = {"lightning": "pennylane_lightning", "qiskit": "pennylane_qiskit"}
    family, _, device = backend.partition(":")
    if family == "pennylane" and (package := plugin.get(device.partition(".")[0])):
        pytest.importorskip(package)


def numbers(ran: Any) -> dict[str, Any]:
    """Return every number of a run that is no time."""
    model = load_file(ran.folder / "model.safetensors")
    return {
        "test": ran.summary["test"],
        "clients": [(e["client"], e["loss"], e["train_loss"]) for e in ran.events("client")],
        "rounds": [(e["loss"], e["accuracy"]) for e in ran.events("round")],
        "model": {name: array.tolist() for name, array in model.items()},
    }


@pytest.mark.filterwarnings(WARNS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_seed_gives_the_same_numbers(
    federate: Federate, stores: Callable[[], str], backend: str
) -> None:
    needs(backend)
    given = (*FEW, *BACKENDS[backend], f"quantum.backend={backend}")
    one, two = (numbers(federate(*given, stores())) for _ in range(2))
    assert one == two
    other = numbers(federate(*given, "run.seed=1", stores()))
    assert other["model"]["angles"] != one["model"]["angles"]


def test_the_docs_name_the_backends_that_repeat() -> None:
    text = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
    section = text.partition("## The same numbers again")[2].partition("\n## ")[0]
    for backend in BACKENDS:
        family, _, device = backend.partition(":")
        assert f"`{device if family == 'pennylane' else family}" in section
    table = text.partition("**Gradient.**")[2].partition("With a finite")[0]
    devices = set(re.findall(r"^\| `([a-z.`, ]+)` \|", table, re.M))
    named = {name for cell in devices for name in re.split("`, `", cell)}
    assert named == {b.partition(":")[2] for b in BACKENDS if b.startswith("pennylane:")}


@pytest.mark.filterwarnings(WARNS)
@pytest.mark.parametrize("name", ["qiskit.aer", "qiskit.basicsim"])
def test_a_seeded_devices_runs_are_not_alike(name: str) -> None:
    """One seed as an option of the device would draw the same shots in every step."""
    pytest.importorskip("pennylane_qiskit")
    from quantum.engines.pennylane import open_device

    def drawn(seed: int) -> list[float]:
        circuit = qml.QNode(measured, open_device(name, 1, seed=seed))
        return [float(qml.set_shots(circuit, 400)(1.5)) for _ in range(6)]

    assert len(set(drawn(3))) > 2
    assert drawn(3) == drawn(3) != drawn(4)
    assert abs(np.mean(drawn(3)) - np.cos(1.5)) < 5 / np.sqrt(6 * 400)


def measured(angle: float) -> Any:
    qml.RX(angle, wires=0)
    return qml.expval(qml.Z(0))


def test_a_device_without_a_seed_says_so(
    federate: Federate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Unseeded(qml.devices.DefaultQubit):  # type: ignore[misc]
        def __init__(self, wires: int, max_workers: int | None = None) -> None:
            super().__init__(wires, max_workers=max_workers)

    class Plugin:
        def load(self) -> type[Unseeded]:
            return Unseeded

    monkeypatch.setitem(qml.plugin_devices, "some.plugin", Plugin())
    monkeypatch.setattr(qml, "device", lambda name, **given: Unseeded(**given))
    said = "client 1: pennylane:some.plugin takes no seed: no run on it can be repeated"
    federate(*FEW, "quantum.backend=pennylane:some.plugin", *SHOTS)
    assert said in caplog.messages
    caplog.clear()
    federate(*FEW, "quantum.backend=pennylane:some.plugin")
    assert said not in caplog.messages
