"""A trained model: what it predicts, and how it is handed on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from llm_qfl.model.predictor import Predictor


class Model(Predictor):
    """A trained model to take home; `llm_qfl.load` makes one.

    What it predicts is `Predictor`'s.
    """

    def save(self, folder: str | Path, *, include_encoder: bool = False) -> Path:
        """Write the model into a folder of its own, whole or not at all.

        `llm_qfl.load` reads it on any machine, without the training data.

        Parameters
        ----------
        folder : str or Path
            A new or empty folder.
        include_encoder : bool
            Take along the weights of the language model that makes the features (90 MB for
            MiniLM). Otherwise it is named, with its revision or digest, and must be found where
            the model is loaded.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        UserError
            If the folder holds something, or there is no encoder to take along. One line.
        """
        from llm_qfl.model.saving import save

        return save(self, folder, include_encoder=include_encoder)

    def card(self) -> str:
        """Return the model's card, Markdown, from what its run recorded.

        Data, scores with intervals, baselines, cost, privacy, limits and provenance.
        """
        from llm_qfl.model.card import card

        return card(self)

    def push_to_hub(
        self, repo_id: str, *, private: bool = True, include_encoder: bool = False
    ) -> str:
        """Upload the model with its card to the Hugging Face hub.

        The token is the hub client's own: of ``hf auth login``, or the environment's ``HF_TOKEN``.

        Parameters
        ----------
        repo_id : str
            ``USER/NAME``; made if it is not there.
        private : bool
            Whether a new repository is private.
        include_encoder : bool
            As in `save`.

        Returns
        -------
        str
            The repository's address.

        Raises
        ------
        UserError
            If there is no network or login, or the hub refuses. One line.
        """
        from llm_qfl.model.saving import push_to_hub

        return push_to_hub(self, repo_id, private=private, include_encoder=include_encoder)

    def circuit(self, form: Literal["pennylane", "qiskit", "qasm3"]) -> Any:
        """Return the trained circuit for another library, with a row's angles as its parameters.

        `angles` turns rows into these; ``parameters`` has what turns expectations into logits,
        ``weights`` (C, K) and ``bias`` (C,), or ``scale`` and ``bias`` of a read-out per class.

        Parameters
        ----------
        form : {"pennylane", "qiskit", "qasm3"}
            ``pennylane``: a quantum function of angles, (n,) or (rows, n), that returns the
            read-outs' expectations, for a QNode on n wires. ``qiskit``: a circuit without
            measurements, its parameters ``feature0`` to ``feature<n-1>``. ``qasm3``: OpenQASM 3
            with these as inputs, which measures the read-outs.

        Returns
        -------
        callable, QuantumCircuit or str
            The circuit.

        Raises
        ------
        SettingsError
            If there is no such form.
        """
        from quantum import circuit_as

        return circuit_as(self.pipeline.classifier, self.parameters, form)

    def observables(self, form: Literal["pennylane", "qiskit"]) -> list[Any]:
        """Return the K observables that are read out of `circuit`, in its library's form."""
        from quantum import observables_as

        return observables_as(self.pipeline.classifier, form)
