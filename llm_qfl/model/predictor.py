"""What a trained model predicts: rows in, class names and probabilities out."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from core import DataError, ModelError, Settings, derive_seed, open_store
from core.formatting import split_list, wilson_interval
from core.model_file import ModelFile
from llm_qfl.model.rows import Rows, checked_rows, finite, threads

if TYPE_CHECKING:
    from llm import FrozenAdapter
    from server_app.pipeline import Pipeline

ARRAYS, ADAPTER = "model.safetensors", "adapter.safetensors"
"""Files of a model: parameters and projection, and the sites' shared adapter."""

PREFIX = "projection."
CHUNK = 16_384
"""Most rows that go through features and circuit at once."""

TEST = "test"
"""What the circuits are for: as in the run's final test, so that shots are the same."""

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Files:
    """Where a model came from.

    Attributes
    ----------
    folder : Path
        A run's results folder or a saved model.
    notes : tuple of str
        What its user should know; a line each.
    """

    folder: Path
    notes: tuple[str, ...] = ()


class Predictor:
    """Predicts with a trained quantum classifier, its features, projection and read-out.

    Attributes
    ----------
    classes_ : ndarray of str, shape (C,)
        Class names, in order of the probabilities.
    kind : {"text", "dna"}
        What a row is.
    settings : Settings
        Features, circuit, backend and language model; the other sections have their defaults.
    parameters : dict of ndarray
        ``angles`` (P,) in radians, and ``scale`` and ``bias`` (R,) of the read-out: the logits are
        ``scale <Z> + bias``, with a logit of 0 before it where there are two classes.
    notes : tuple of str
        What the user should know of the model's folder; a line each.
    """

    def __init__(
        self,
        about: ModelFile,
        settings: Settings,
        arrays: Arrays,
        adapter: Arrays | None,
        files: Files,
    ) -> None:
        self.about, self.settings, self.files = about, settings, files
        self.arrays, self.adapter_arrays = arrays, adapter
        self.classes_ = np.array(about.classes)
        self.kind = about.kind
        self.parameters = {k: v for k, v in arrays.items() if not k.startswith(PREFIX)}
        self.notes = files.notes

    def __repr__(self) -> str:
        quantum, name = self.settings.quantum, type(self).__name__
        classes = ", ".join(self.about.classes)
        return f"{name}({quantum.model}, {quantum.qubits} qubits, {quantum.backend}; {classes})"

    def predict(self, rows: Rows) -> npt.NDArray[np.str_]:
        """Return the most probable class of each row.

        Parameters
        ----------
        rows : sequence of str, array or pandas Series
            Raw texts, or DNA sequences in upper or lower case.

        Returns
        -------
        ndarray of str, shape (rows,)
            Class names.

        Raises
        ------
        UserError
            If a row cannot be read, or the backend or the encoder cannot be had. One line.
        """
        return self._names(self.predict_proba(rows))

    def predict_proba(self, rows: Rows) -> npt.NDArray[np.float64]:
        """Return each class's probability, shape (rows, C), in the order of `classes_`.

        Parameters and errors are those of `predict`.
        """
        return self._in_parts(self._checked(rows), self.pipeline.raw)

    def predict_features(
        self, features: npt.ArrayLike, *, probabilities: bool = False
    ) -> npt.NDArray[Any]:
        """Return the most probable class of rows whose raw features are known.

        Parameters
        ----------
        features : array of float, shape (rows, d)
            What `features` returns, for instance embeddings from a store of your own.
        probabilities : bool
            Return the probabilities, (rows, C), in place of the names.

        Returns
        -------
        ndarray of str, shape (rows,), or of float, shape (rows, C)
            Class names or probabilities.

        Raises
        ------
        DataError
            If the features are not d finite numbers a row.
        """
        given = finite(features)
        found = self._in_parts(given, lambda part: part)
        return found if probabilities else self._names(found)

    def features(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Return the raw features of rows, shape (rows, d): what the projection takes."""
        with threads(self.settings.quantum.threads):
            return self.pipeline.raw(self._checked(rows))

    def angles(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Return what the circuit takes, shape (rows, n): projected features, radians."""
        return self.pipeline.projection.apply(self.features(rows))

    def problems(self, rows: Rows) -> dict[int, str]:
        """Say which rows cannot be read, and why: `predict` takes all the others.

        Returns
        -------
        dict
            By place from 0. Rows of DNA in which there is nothing that the features look at are
            among them, though `predict` takes them.
        """
        texts, found = list(rows), dict[int, str]()
        unread = [(0, len(texts))] if texts else []
        while unread:  # halves of what cannot be read as a whole, down to single rows
            start, end = unread.pop()
            try:
                nothing = self._without_features(texts[start:end])
                found |= dict.fromkeys(start + nothing, "nothing in it that the features look at")
            except DataError as error:
                middle = (start + end) // 2
                if end - start == 1:
                    found[start] = str(error).removeprefix("row 1: ").rstrip(".")
                else:
                    unread += [(start, middle), (middle, end)]
        return dict(sorted(found.items()))

    def _without_features(self, texts: Sequence[str]) -> npt.NDArray[np.intp]:
        """Return the places of rows whose features are all 0; none where texts are embedded."""
        checked = self._checked(texts)
        if self.embeds:
            return np.zeros(0, dtype=np.intp)
        raw = self.pipeline.raw(checked)
        self.pipeline.projection.apply(raw)
        return np.flatnonzero(~raw.any(axis=1))

    def evaluate(self, rows: Rows, labels: Iterable[str]) -> dict[str, Any]:
        """Score the model on labelled rows.

        Parameters
        ----------
        rows : sequence of str
            As `predict` takes them; at least one.
        labels : iterable of str
            Their classes, by name.

        Returns
        -------
        dict
            ``accuracy`` with its 95 % Wilson ``interval``, ``macro_f1``, ``macro_recall``,
            ``loss`` in nats, ``rows``, ``confusion``, ``calibration``: as in ``summary.json``.

        Raises
        ------
        DataError
            If there is no row, or a label is none of the classes.
        """
        from data import calibration, scores

        truth = self._indices(list(labels))
        probabilities = self.predict_proba(rows)
        if len(truth) != len(probabilities) or not len(truth):
            given = f"{len(probabilities)} rows with {len(truth)} labels"
            raise DataError(given, "one label a row, and a row at least", "check both")
        found = scores(truth, probabilities)
        interval = wilson_interval(found["accuracy"], found["rows"])
        return {**found, "interval": interval, **calibration(truth, probabilities)}

    @functools.cached_property
    def run(self) -> dict[str, Any]:
        """What is on record of its run (`llm_qfl.model.run_facts.RunFile`); empty if nothing."""
        from llm_qfl.model.run_facts import run_facts

        return run_facts(self.files.folder)

    @functools.cached_property
    def pipeline(self) -> Pipeline:
        """Features, projection and circuit on the chosen backend; opened on first use."""
        from data import Projection
        from quantum import Host, build_classifier
        from server_app.pipeline import Pipeline

        settings, seed = self.settings, self.settings.run.seed
        host = Host(
            hardware=settings.hardware,
            seed=derive_seed(seed, "judge"),  # as the server's own evaluation
            layout_seed=seed,
            store=open_store(settings.llm.store),
            run="predict",
        )
        projection = self._projection(Projection)
        classifier = build_classifier(settings.quantum, len(self.classes_), host)
        try:
            classifier.flatten(self.parameters)
        except ValueError as error:
            raise _foreign(str(error)) from None
        if projection.matrix.shape[1] != settings.quantum.qubits:
            raise _foreign(f"a projection to {projection.matrix.shape[1]} qubits")
        return Pipeline(settings, self.kind, self._embed, projection, classifier)

    def _projection(self, kind: Any) -> Any:
        names = ("mean", "matrix", "scale", "clip")
        parts = [self.arrays[key] for name in names if (key := f"{PREFIX}{name}") in self.arrays]
        if len(parts) < len(names) or parts[3].shape != (1,):
            raise _foreign("no projection")
        return kind(*parts[:3], float(parts[3][0]))

    @functools.cached_property
    def _letters(self) -> int | None:
        """How long sequences were in training; None if the features take any length."""
        from data import feature_kind, needs_length

        if not needs_length((feature_kind(self.kind, self.settings.features),)):
            return None
        one, two = (self.pipeline.raw(["A" * length]).shape[1] for length in (1, 2))
        return int(1 + (len(self.pipeline.projection.matrix) - one) // (two - one))

    def _checked(self, rows: Rows) -> tuple[str, ...]:
        """Return rows as the readers would, of the length that the features take."""
        texts, letters = checked_rows(rows, self.kind), self._letters
        wrong = next((k for k, text in enumerate(texts) if letters not in (None, len(text))), None)
        if wrong is not None:
            given = f"row {wrong + 1}: a sequence of {len(texts[wrong])} letters"
            accepted = f"{letters}, as in training: one-hot features are of aligned sequences"
            raise DataError(given, accepted, "align the row, or remove it")
        return texts

    def _in_parts(self, rows: Any, raw: Any) -> npt.NDArray[np.float64]:
        """Return the probabilities (rows, C) of rows, so many at a time."""
        found = [np.zeros((0, len(self.classes_)))]
        with threads(self.settings.quantum.threads):
            for start in range(0, len(rows), CHUNK):
                label = f"{TEST}, from row {start + 1}" if start else TEST
                angles = self.pipeline.projection.apply(raw(rows[start : start + CHUNK]))
                found.append(self.pipeline.probabilities(self.parameters, angles, label))
        return np.concatenate(found)

    def _names(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.str_]:
        return np.asarray(self.classes_[probabilities.argmax(axis=1)])

    def _indices(self, labels: Sequence[str]) -> npt.NDArray[np.int64]:
        index = {name: number for number, name in enumerate(self.about.classes)}
        wrong = next((k for k, label in enumerate(labels) if str(label) not in index), None)
        if wrong is not None:
            given = f"row {wrong + 1}: a label that is none of the classes"
            raise DataError(given, ", ".join(self.about.classes), "correct the labels")
        return np.array([index[str(label)] for label in labels], dtype=np.int64)

    def _embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed rows with the encoder that the model was trained with."""
        from llm import embed

        return embed(texts, self.encoder, self.kind, adapter=self._frozen_adapter)

    @property
    def embeds(self) -> bool:
        """Whether a language model makes its features."""
        return "embedding" in split_list(self.settings.features.kind)

    @functools.cached_property
    def encoder(self) -> Any:
        """`LlmSettings` of the encoder, its weights checked against those of the training.

        Raises
        ------
        ModelError
            If it is another one, or cannot be had.
        """
        from llm_qfl.model.encoders import find_encoder

        return find_encoder(self.settings.llm, self.kind, self.about.encoder, self.files.folder)

    @functools.cached_property
    def _frozen_adapter(self) -> FrozenAdapter | None:
        from llm import freeze_adapter

        if self.adapter_arrays is None:
            return None
        seed = self.settings.run.seed
        return freeze_adapter(self.adapter_arrays, len(self.classes_), seed)


def _foreign(what: str) -> ModelError:
    given = f"a model whose arrays do not fit its settings ({what.rstrip('.')})"
    return ModelError(given, "a whole folder of one run", "copy the folder again")
