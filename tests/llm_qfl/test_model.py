"""A loaded model predicts what its formula says, and what its run's final test found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import UserError
from core.settings.resuming import recorded_settings
from data import load_server, load_site
from llm_qfl.model import load
from tests.conftest import NO_TEACHER, Federate
from tests.llm_qfl.models import tiny_probabilities, write_tiny

ROWS = ["AATTAACC", "GGCCGGCA", "acgt"]


def test_a_model_predicts_what_its_formula_says(tmp_path: Path) -> None:
    model = load(write_tiny(tmp_path / "tiny"))
    found, expected = model.predict_proba(ROWS), tiny_probabilities(ROWS)
    assert np.allclose(found, expected, atol=1e-6)
    assert list(model.classes_) == ["rich", "poor"]
    assert list(model.predict(ROWS)) == [["rich", "poor"][k] for k in expected.argmax(axis=1)]
    assert np.allclose(model.features(["AATC"]), [[0.75, 0.25]])
    assert np.allclose(model.angles(["AATC"]), [[np.pi / 8, -np.pi / 8]])
    features = np.array([[0.75, 0.25], [0.125, 0.875], [0.5, 0.5]])
    assert np.allclose(model.predict_features(features, probabilities=True), expected, atol=1e-6)
    assert list(model.predict_features(features)) == list(model.predict(ROWS))
    assert model.predict([]).shape == (0,)
    assert model.predict_proba(np.array(ROWS)).shape == (3, 2)


def test_rows_in_parts_are_the_rows_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm_qfl.model import predictor as module

    model = load(write_tiny(tmp_path / "tiny"))
    whole = model.predict_proba(ROWS * 3)
    monkeypatch.setattr(module, "CHUNK", 4)
    assert np.allclose(model.predict_proba(ROWS * 3), whole, atol=1e-7)


def test_evaluate_counts_by_hand(tmp_path: Path) -> None:
    model = load(write_tiny(tmp_path / "tiny"))
    found = model.evaluate(ROWS, ["poor", "rich", "poor"])
    assert found["confusion"] == [[0, 1], [0, 2]]
    assert found["accuracy"] == pytest.approx(2 / 3)
    likely = tiny_probabilities(ROWS)[[0, 1, 2], [1, 0, 1]]
    assert found["loss"] == pytest.approx(-np.log(likely).mean(), abs=1e-6)
    assert found["interval"][0] < 2 / 3 < found["interval"][1]
    with pytest.raises(UserError, match="row 2: a label that is none of the classes; accepted: ri"):
        model.evaluate(ROWS, ["poor", "worm", "poor"])
    with pytest.raises(UserError, match="3 rows with 1 labels"):
        model.evaluate(ROWS, ["poor"])


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("ACGT", "one text; accepted: a sequence of texts"),
        ([["ACGT"]], "rows of several columns"),
        (["ACGT", 7], "row 2 is of type int"),
        (["ACGT", "ACXT"], "row 2: letter 'X' in a DNA sequence"),
        (["ACGT", ""], "row 2: no text"),
    ],
)
def test_rows_that_cannot_be_read_are_one_line(tmp_path: Path, rows: Any, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        load(write_tiny(tmp_path / "tiny")).predict(rows)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("features", [[["a", "b"]], [[np.nan, 1.0]], [[1.0, 2.0, 3.0]]])
def test_features_that_do_not_fit_are_one_line(tmp_path: Path, features: Any) -> None:
    with pytest.raises(UserError, match="accepted"):
        load(write_tiny(tmp_path / "tiny")).predict_features(features)


def _same_as_the_final_test(folder: Path, summary: dict[str, Any]) -> None:
    """Compare predictions with the summary, on the rows of the run's own test."""
    test = load_server(recorded_settings(folder)).test
    model = load(folder)
    names = [str(model.classes_[label]) for label in test.labels]
    found = model.evaluate(test.texts, names)
    for key in ("accuracy", "confusion", "macro_f1", "rows"):
        assert found[key] == summary["test"][key]
    assert found["loss"] == pytest.approx(summary["test"]["loss"], abs=1e-6)
    assert found["calibration_error"] == pytest.approx(summary["test"]["calibration_error"])


def test_a_run_of_dna_gives_its_final_test(small_run: Any, tmp_path: Path) -> None:
    _same_as_the_final_test(small_run.folder, small_run.summary)
    # A run of an older version has no model.json.
    older = tmp_path / "older"
    shutil.copytree(small_run.folder, older)
    (older / "model.json").unlink()
    _same_as_the_final_test(older, small_run.summary)
    assert "older version" in load(older).notes[0]


def test_sites_that_test_for_themselves_add_up(federate: Federate) -> None:
    ran = federate("evaluation.mode=federated", "data.server_rows=0", *NO_TEACHER)
    settings, model = recorded_settings(ran.folder), load(ran.folder)
    confusion = np.zeros((2, 2), dtype=int)
    for client in range(3):
        test = load_site(settings, client, 3)[1].test
        confusion += model.evaluate(test.texts, model.classes_[test.labels])["confusion"]
    assert confusion.tolist() == ran.summary["test"]["confusion"]


def test_three_classes_of_text_and_shots_give_the_final_test(
    federate: Federate, tmp_path: Path
) -> None:
    words = {"north": "snow ice cold", "south": "sun heat dry", "sea": "wave salt tide"}
    rows = [
        {"text": f"{text} {k} {' '.join(text.split()[: k % 3])}", "label": label}
        for k in range(30)
        for label, text in words.items()
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    ran = federate(
        *("data.source=jsonl", f"data.path={path}", "data.train_rows=0", "data.test_rows=0"),
        *("data.server_rows=6", "evaluation.backend=aer", "hardware.shots=64", *NO_TEACHER),
        "quantum.backend=aer",
    )
    _same_as_the_final_test(ran.folder, ran.summary)
    model = load(ran.folder)
    assert model.about.encoder.startswith("minilm:")
    exact = load(ran.folder, {"quantum.backend": "exact"})
    assert 0 < np.abs(model.predict_proba(["ice"]) - exact.predict_proba(["ice"])).max() < 0.5


def test_the_shared_encoder_gives_the_final_test(federate: Federate) -> None:
    ran = federate(
        "llm.federated=ffa", "llm.rounds=1", "features.encoder=shared", "evaluation.keep=last"
    )
    _same_as_the_final_test(ran.folder, ran.summary)
    (ran.folder / "adapter.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"adapter\.safetensors is not the file"):
        load(ran.folder)


@pytest.mark.parametrize("backend", ["aer", "pennylane:default.qubit", "fake:manila"])
def test_a_model_predicts_on_another_backend(tmp_path: Path, backend: str) -> None:
    place, rows = write_tiny(tmp_path / "tiny"), ["AAAAAAAA", "GGGGAAAA"]
    shots = [] if backend.startswith("pennylane") else ["hardware.shots=4096"]
    found = load(place, [f"quantum.backend={backend}", *shots]).predict_proba(rows)
    again = load(place, [f"quantum.backend={backend}", *shots]).predict_proba(rows)
    assert np.array_equal(found, again)  # the same shots
    within = {"aer": 0.03, "fake:manila": 0.15}.get(backend, 1e-6)
    assert np.abs(found - tiny_probabilities(rows)).max() < within


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("quantum.qubits=3", "quantum.qubits of a trained model"),
        ("data.path=x", "data.path of a trained model; accepted: quantum.backend"),
        ("hardware.shots=5", "hardware.shots = 5"),
        ("quantum.backend=qpu", "quantum.backend = 'qpu'"),
        ("backend", "--set 'backend'; accepted: key=value"),
        ("site=here", "site of a trained model"),
    ],
)
def test_a_setting_that_cannot_change_is_one_line(tmp_path: Path, change: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load(write_tiny(tmp_path / "tiny"), change)


def test_another_encoder_is_refused(tmp_path: Path) -> None:
    settings = {"features": {"kind": "embedding"}, "quantum": {"qubits": 2}}
    place = write_tiny(tmp_path / "tiny", settings=settings, encoder="dna-tiny:0123")
    with pytest.raises(UserError, match="the encoder dna-tiny is not the one that the model was"):
        load(place).predict(["ACGT"])
