"""Objects in place of names: each extension point, from a notebook, in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm_qfl
from core.registry import _registered
from core.storage.files import read_json
from tests.llm_qfl.test_python_runs import QUICK, SMALL, losses


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class One:
    """Trains one client."""

    name = "one"

    def __init__(self, client: int = 1, steps: int = 2) -> None:
        self.client, self.steps, self.seen = client, steps, list[int]()

    def decide(self, observation: Any) -> llm_qfl.Decision:
        self.seen.append(observation.round)
        return llm_qfl.Decision.to_train({self.client: self.steps}, "it is the one")


class Tilted:
    """One angle a qubit."""

    def shape(self, qubits: int, classes: int) -> tuple[int, ...]:
        return (qubits,)

    def circuit(self, features: Any, weights: Any, wires: Any) -> None:
        import pennylane as qml

        for wire, x, angle in zip(wires, features, weights, strict=True):
            qml.RY(x, wires=wire)
            qml.RY(angle, wires=wire)


def words(seed: int) -> llm_qfl.Dataset:
    """DNA of two kinds."""
    rng = np.random.default_rng(seed)

    def rows(count: int) -> tuple[list[str], list[str]]:
        labels = ["rich" if k % 2 else "poor" for k in range(count)]
        odds = {"rich": [0.1, 0.4, 0.4, 0.1], "poor": [0.4, 0.1, 0.1, 0.4]}
        texts = ["".join(rng.choice(list("ACGT"), 60, p=odds[label])) for label in labels]
        return texts, labels

    return llm_qfl.Dataset(rows(120), test=rows(40), kind="dna", name="words")


def last_one(updates: Any, weights: Any, reference: Any) -> Any:
    """Take the last client's model as it is."""
    return updates[-1]


class Counting:
    """Knows how often each class occurs, and nothing else."""

    def fit(self, rows: Any, labels: Any, *more: Any, **named: Any) -> None:
        classes = named.get("classes", more[2] if len(more) > 2 else 2)
        self.shares = np.bincount(labels, minlength=classes) / len(labels)

    def soft_labels(self, rows: Any) -> Any:
        return np.tile(self.shares, (len(rows), 1)).astype(np.float32)


def test_an_agent() -> None:
    agent = One()
    result = llm_qfl.run(**{**QUICK, "agent": agent}, quiet=True)
    assert agent.seen == [1, 2]
    assert list(result.clients["client"]) == [1, 1]
    assert list(result.clients["steps"]) == [2, 2]
    assert result.settings["agent.kind"].startswith("One")
    assert set(result.decisions["reason"]) == {"it is the one"}


def test_an_ansatz_a_class_or_an_object() -> None:
    results = [llm_qfl.run(**QUICK, ansatz=given) for given in (Tilted, Tilted())]
    assert [one.status for one in results] == ["completed"] * 2
    assert losses(results[0].folder) == losses(results[1].folder)
    assert losses(results[0].folder) != losses(llm_qfl.run(**QUICK).folder)


def test_a_data_set() -> None:
    given = {key: value for key, value in QUICK.items() if key != "data"}
    result = llm_qfl.run(**given, dataset=words, train_rows=0)
    assert list(result.confusion) == ["poor", "rich"]
    assert result.confusion.to_numpy().sum() == 40


def test_an_aggregation_that_takes_one_model_is_the_round_in_which_that_client_trains() -> None:
    result = llm_qfl.run(**QUICK, aggregation=last_one)
    alone = llm_qfl.run(**{**QUICK, "agent": One(1, steps=3), "rounds": 1})
    assert result.rounds["loss"].iloc[0] == pytest.approx(alone.rounds["loss"].iloc[0], rel=1e-6)
    assert result.settings["aggregation.rule"] == "last_one"


def test_a_local_model() -> None:
    result = llm_qfl.run(**SMALL, model=Counting)
    expected = -np.log(0.5)
    assert result.clients["llm_loss"].tolist() == pytest.approx([expected] * 4, abs=0.05)


def test_a_local_model_defined_again_is_fitted_again() -> None:
    """A site's store must not take one class or object for another that has its name."""

    def constant(share: float) -> type:
        def soft_labels(self: Any, rows: Any) -> Any:
            return np.tile([share, 1 - share], (len(rows), 1))

        return type("Cell", (Counting,), {"soft_labels": soft_labels})

    more: dict[str, Any] = {"distill": {"calibrate": False}, "quiet": True}
    first, second = (llm_qfl.run(**SMALL, **more, model=constant(share)) for share in (0.5, 0.9))
    assert first.settings["llm.model"] == second.settings["llm.model"] == "Cell"
    assert first.clients["llm_loss"].max() < 0.7 < second.clients["llm_loss"].min()
    model: Any = constant(0.5)()
    assert llm_qfl.run(**SMALL, **more, model=model).clients["llm_loss"].max() < 0.7
    model.soft_labels = lambda rows: np.tile([0.9, 0.1], (len(rows), 1))
    assert llm_qfl.run(**SMALL, **more, model=model).clients["llm_loss"].min() > 0.7


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"agent": object()}, "agent.kind = 'object"),
        ({"ansatz": object()}, "quantum.model = 'object"),
        ({"dataset": object()}, "data.source = 'object"),
        ({"aggregation": object()}, "aggregation.rule = 'object"),
        ({"model": object()}, "llm.model = 'object"),
    ],
)
def test_objects_that_are_no_extensions_are_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(llm_qfl.UserError, match=message) as error:
        llm_qfl.run(**{**QUICK, **given})
    assert "\n" not in str(error.value)


def test_a_new_process_goes_on_with_the_object_given_again() -> None:
    def stop(figures: Any) -> None:
        raise KeyboardInterrupt

    whole = llm_qfl.run(**{**QUICK, "agent": One()})
    with pytest.raises(KeyboardInterrupt):
        llm_qfl.run(**{**QUICK, "agent": One()}, callbacks=stop)
    folder = Path("runs/latest").resolve()
    name = read_json(folder / "config.json")["settings"]["agent"]["kind"]
    del _registered["agent", name]  # as in a process that has just begun
    with pytest.raises(llm_qfl.UserError, match=f"agent.kind = '{name}'"):
        llm_qfl.run(resume=folder)
    agent = One()
    on = llm_qfl.run(resume=folder, agent=agent)
    assert agent.seen[-1] == 2
    assert losses(on.folder) == losses(whole.folder)


def test_two_objects_of_a_class_are_two_cells_of_a_study() -> None:
    made: list[Callable[[], Any]] = [lambda: One(0), lambda: One(1)]
    agents = [make() for make in made]
    found = llm_qfl.study(QUICK, grid={"agent": agents}, rounds=1)
    trained = [llm_qfl.read(folder).clients["client"].tolist() for folder in found.table["folder"]]
    assert trained == [[0], [1]]
    again = llm_qfl.study(QUICK, grid={"agent": agents}, rounds=1)
    assert not set(again.table["folder"]) & set(found.table["folder"])
