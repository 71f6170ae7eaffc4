"""The extension points: the settings that name a thing that a user may bring."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """An extension point.

    Attributes
    ----------
    name : str
        What it is called; the entry points' group is ``llm_qfl.<name>``.
    setting : str
        The setting that names an extension.
    package : str
        The folder of what we ship, a module each.
    attribute : str
        What a shipped module calls its extension.
    expected : str
        What an extension is, for errors.
    at_sites : bool
        Whether the sites use it too, or the server alone.
    open : bool
        Whether the setting takes other texts too (a model's hub id or folder).
    texts : str
        What those are, for errors.
    sees_rows : bool
        Whether it sees rows: what its code raises may quote one, and stays on the machine.
    other : str
        Module of the folder whose extension stands for every one of them; empty: there is none.
    """

    name: str
    setting: str
    package: str
    attribute: str
    expected: str
    at_sites: bool = True
    open: bool = False
    texts: str = ""
    sees_rows: bool = False
    other: str = ""


POINTS = {
    point.name: point
    for point in (
        Point(
            "ansatz",
            "quantum.model",
            "quantum.ansatz",
            "ANSATZ",
            "an object with circuit(features, weights, wires) and shape(qubits, classes)",
        ),
        Point(
            "agent",
            "agent.kind",
            "strategies.agents",
            "AGENT",
            "an object or class with decide(observation) that returns a Decision",
            at_sites=False,
        ),
        Point(
            "dataset",
            "data.source",
            "data.sets",
            "DATASET",
            "a function that returns a Dataset of rows, labels and splits",
            sees_rows=True,
        ),
        Point(
            "aggregation",
            "aggregation.rule",
            "strategies.aggregations",
            "AGGREGATION",
            "a strategy of flwr.serverapp.strategy, or a function of updates and weights",
            at_sites=False,
            open=True,
        ),
        Point(
            "model",
            "llm.model",
            "llm.local_models",
            "MODEL",
            "an object or class with fit(rows, labels, validation_rows, validation_labels, "
            "classes, seed) and soft_labels(rows)",
            open=True,
            texts="a hub id or folder",
            sees_rows=True,
            other="_transformer",
        ),
    )
}
