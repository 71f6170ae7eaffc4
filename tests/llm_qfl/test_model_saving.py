"""A saved model is whole, says what it is, runs no code, and predicts anywhere."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm_qfl
from core import UserError
from llm_qfl.model import load
from tests.command import ROOT
from tests.conftest import NO_TEACHER, Federate
from tests.llm_qfl.hub import TOKEN, hub_here
from tests.llm_qfl.models import tiny_probabilities, write_tiny

ROWS = ["AATTAACC", "GGCCGGCA", "acgt"]


def fresh_process(code: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python where nothing of a run is."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **more}
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_saved_run_predicts_in_a_fresh_process(federate: Federate, tmp_path: Path) -> None:
    ran = federate("run.name=mine", *NO_TEACHER)
    model = load(ran.folder)
    saved = model.save(tmp_path / "home" / "model")
    assert {path.name for path in saved.iterdir()} == {
        *("model.json", "model.safetensors", "run.json", "README.md")
    }
    expected = model.predict_proba(ROWS)
    shutil.rmtree(ran.folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    code = (
        "import sys, json; from llm_qfl.model import load; model = load(sys.argv[1]);"
        f"print(json.dumps([model.predict_proba({ROWS}).tolist(), model.card()]))"
    )
    done = fresh_process(code.replace("sys.argv[1]", repr(str(saved))), empty)
    assert done.returncode == 0, done.stderr
    found, card = json.loads(done.stdout.splitlines()[-1])
    assert np.allclose(found, expected, atol=1e-6)
    assert card == (saved / "README.md").read_text("utf-8")
    assert list(empty.iterdir()) == []


def test_the_card_says_what_the_summary_says_and_names_no_place(
    federate: Federate, tmp_path: Path
) -> None:
    place = tmp_path / "secret-place"
    place.mkdir()
    rows = [f"{'ACGT' * 5}{'A' * k},one\n{'GGCC' * 5}{'C' * k},t*o\n" for k in range(40)]
    (place / "rows.csv").write_text("text,label\n" + "".join(rows), encoding="utf-8")
    ran = federate(
        *("data.source=csv", f"data.path={place / 'rows.csv'}", "data.kind=dna"),
        *("data.train_rows=0", "data.test_rows=0", "data.server_rows=4", *NO_TEACHER),
    )
    saved = load(ran.folder).save(tmp_path / "model")
    test, card = ran.summary["test"], (saved / "README.md").read_text("utf-8")
    row = next(line for line in card.splitlines() if line.startswith("| this model |"))
    assert f"| {100 * test['accuracy']:.1f} % |" in row
    assert f"| {test['macro_f1']:.3f} |" in row
    assert row.endswith(f"| {test['rows']} |")
    assert "| majority class |" in card
    assert "| logistic regression, same features |" in card
    assert f"{ran.summary['ledger']['circuits']:,} circuits simulated" in card
    assert "No differential privacy" in card
    assert "one, t\\*o" in card
    assert load(saved).about.files["model.safetensors"] in card
    for file in saved.glob("*.[jm]*"):
        assert "secret-place" not in file.read_text("utf-8", errors="replace")


def _change(file: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(change(json.loads(path.read_text()))), encoding="utf-8")

    return spoil


def _flip(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _without_digests(arrays: bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(arrays)
        path = folder / "model.json"
        about = json.loads(path.read_text())
        about["files"]["model.safetensors"] = hashlib.sha256(arrays).hexdigest()
        path.write_text(json.dumps(about))

    return spoil


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no json": (lambda f: (f / "model.json").write_text("{"), "is no JSON object"),
    "bytes": (lambda f: (f / "model.json").write_bytes(b"\xff\x00"), "is no JSON object"),
    "a list": (lambda f: (f / "model.json").write_text("[]"), "is no JSON object"),
    "newer": (_change("model.json", lambda a: {**a, "format": 2}), "is of format '2'"),
    "no format": (_change("model.json", lambda _: {}), "is of format 'None'"),
    "classes": (_change("model.json", lambda a: {**a, "classes": 7}), "no usable 'classes'"),
    "one class": (_change("model.json", lambda a: {**a, "classes": ["a"]}), "no usable 'classes'"),
    "kind": (_change("model.json", lambda a: {**a, "kind": "image"}), "no usable 'kind'"),
    "unknown setting": (
        _change("model.json", lambda a: {**a, "settings": {"quantum": {"cubits": 2}}}),
        "a model with the setting quantum.cubits",
    ),
    "bad setting": (
        _change("model.json", lambda a: {**a, "settings": {"quantum": {"qubits": 99}}}),
        "a model whose quantum.qubits cannot be used",
    ),
    "other circuit": (
        _change("model.json", lambda a: {**a, "settings": {"quantum": {"qubits": 3}}}),
        "whose arrays do not fit its settings",
    ),
    "other place": (
        _change("model.json", lambda a: {**a, "files": {"../up": "0"}}),
        r"lacks '\.\./up'",
    ),
    "flipped": (_flip, "is not the file that model.json was written for"),
    "gone": (lambda f: (f / "model.safetensors").unlink(), r"lacks 'model\.safetensors'"),
    "not arrays": (_without_digests(b"garbage"), r"model\.safetensors cannot be read"),
    "pickle": (_without_digests(b"\x80\x04cos\nsystem\n."), r"model\.safetensors cannot be read"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_folder_is_one_line(tmp_path: Path, name: str) -> None:
    spoil, says = SPOILT[name]
    place = write_tiny(tmp_path / "tiny")
    spoil(place)
    with pytest.raises(UserError, match=says) as caught:
        load(place).predict(ROWS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", ["nothing", "a file", "an empty folder"])
def test_what_is_no_model_is_one_line(tmp_path: Path, what: str) -> None:
    place = tmp_path / "place"
    if what == "a file":
        place.write_text("x")
    elif what == "an empty folder":
        place.mkdir()
    with pytest.raises(UserError, match="no trained model in"):
        load(place)


def test_code_in_a_models_folder_is_not_executed(tmp_path: Path) -> None:
    settings = {"quantum": {"model": "circuits:mine", "qubits": 2}}
    place = write_tiny(tmp_path / "tiny", settings=settings)
    (place / "circuits.py").write_text("open('executed', 'w').write('x')\nmine = 1\n")
    done = fresh_process("from llm_qfl.model import load; load('.')", place)
    assert "whose file lies in the model's own folder" in done.stderr.splitlines()[-1]
    assert not (place / "executed").exists()


def test_an_encoder_of_a_model_is_no_code(tmp_path: Path) -> None:
    settings = {
        "llm": {"encoder": "circuits:mine"},
        "features": {"kind": "embedding"},
        "quantum": {"qubits": 2},
    }
    place = write_tiny(tmp_path / "tiny", settings=settings)
    (place / "circuits.py").write_text("open('executed', 'w').write('x')\nmine = 1\n")
    done = fresh_process("from llm_qfl.model import load; load('.').predict(['ACGT'])", place)
    assert "whose llm.encoder is 'circuits:mine'; accepted: auto" in done.stderr.splitlines()[-1]
    assert not (place / "executed").exists()


def test_an_ansatz_that_is_absent_or_changed_is_one_line(tmp_path: Path) -> None:
    settings = {"quantum": {"model": "own_circuit:mine", "qubits": 2}}
    place = write_tiny(tmp_path / "tiny", settings=settings, code={"ansatz": "0" * 64})
    here = tmp_path / "here"
    here.mkdir()
    code = f"from llm_qfl.model import load; load({str(place)!r})"
    assert "there is no module 'own_circuit'" in fresh_process(code, here).stderr.splitlines()[-1]
    (here / "own_circuit.py").write_text("mine = 1\n")
    assert "its file is not the one" in fresh_process(code, here).stderr.splitlines()[-1]


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    model = load(write_tiny(tmp_path / "tiny"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for name in ("full", "full/mine.txt"):
        with pytest.raises(UserError, match="is there, and not empty"):
            model.save(tmp_path / name)
    (tmp_path / "empty").mkdir()
    model.save(tmp_path / "empty")
    assert np.allclose(load(tmp_path / "empty").predict_proba(ROWS), tiny_probabilities(ROWS))
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_a_save_that_fails_leaves_nothing(tmp_path: Path) -> None:
    model = load(write_tiny(tmp_path / "tiny"))
    with pytest.raises(UserError, match="whose features no language model makes"):
        model.save(tmp_path / "model", include_encoder=True)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_an_encoder_taken_along_gives_the_same_features(federate: Federate, tmp_path: Path) -> None:
    from llm import resolve

    encoder = tmp_path / "encoder"
    shutil.copytree(resolve("minilm", "text").folder or "", encoder)
    rows = [f'{{"text": "snow {k} ice", "label": "n"}}' for k in range(40)]
    rows += [f'{{"text": "sun {k} heat", "label": "s"}}' for k in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    ran = federate(
        *("data.source=jsonl", f"data.path={tmp_path / 'rows.jsonl'}", "data.train_rows=0"),
        *("data.test_rows=0", "data.server_rows=4", f"llm.model={encoder}", *NO_TEACHER),
        *("features.kind=embedding", "train.steps=1", "run.rounds=1", "llm.epochs=1"),
    )
    model = load(ran.folder)
    expected = model.predict_proba(["ice", "heat"])
    with pytest.raises(UserError, match="whose encoder is a file or folder of this machine"):
        model.push_to_hub("me/model")
    saved = model.save(tmp_path / "model", include_encoder=True)
    shutil.rmtree(encoder)
    assert np.allclose(load(saved).predict_proba(["ice", "heat"]), expected, atol=1e-6)
    assert not list(saved.rglob("*.bin")) + list(saved.rglob("*.py"))
    config = saved / "encoder" / "config.json"
    config.write_text(config.read_text().replace("{", "{ ", 1))
    with pytest.raises(UserError, match="is not the one that the model was trained with"):
        load(saved).predict(["ice"])


PUSH = "from llm_qfl.model import load; print(load({place!r}).push_to_hub({repo!r}))"


def test_what_is_pushed_is_what_is_saved(tmp_path: Path) -> None:
    place = write_tiny(tmp_path / "tiny")
    with hub_here() as hub:
        online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path)}
        code = PUSH.format(place=str(place), repo="me/model")
        done = fresh_process(code, tmp_path, HF_TOKEN=TOKEN, **online)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == f"{hub.address}/me/model"
        refused = fresh_process(code, tmp_path, **online)
    assert hub.repos == [{"name": "model", "organization": "me", "visibility": "private"}]
    saved = load(place).save(tmp_path / "saved")
    assert hub.files == {path.name: path.read_bytes() for path in saved.iterdir()}
    line = refused.stderr.splitlines()[-1]
    assert "the model was not uploaded to 'me/model'" in line
    assert "run hf auth login, or set HF_TOKEN" in line


def test_a_push_without_network_or_to_no_name_is_one_line(tmp_path: Path) -> None:
    place = str(write_tiny(tmp_path / "tiny"))
    offline = fresh_process(PUSH.format(place=place, repo="me/model"), tmp_path)
    assert "the model was not uploaded" in offline.stderr.splitlines()[-1]
    assert "HF_HUB_OFFLINE" in offline.stderr.splitlines()[-1]
    named = fresh_process(PUSH.format(place=place, repo="a b//c"), tmp_path)
    assert named.stderr.splitlines()[-1].endswith("write USER/NAME.")


BRICKS = """
from quantum.circuit import CZ, RY


class Bricks:
    def __init__(self, layers=1):
        self.layers = layers

    def shape(self, qubits, classes):
        return self.layers, qubits

    def circuit(self, features, weights, wires):
        for i, wire in enumerate(wires):
            RY(features[i], wires=wire)
            for layer in range(self.layers):
                RY(weights[layer, i], wires=wire)
        CZ(wires=wires[:2])
"""


def test_an_own_circuit_on_one_hot_features_in_a_fresh_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bricks.py").write_text(BRICKS)
    letters = np.random.default_rng(0).choice(list("ACGT"), (120, 12))
    rows = ["".join(row) for row in letters]
    labels = ["purine" if row[4] in "AG" else "other" for row in rows]
    table = "\n".join(["text,label", *map(",".join, zip(rows, labels, strict=True))])
    (tmp_path / "rows.csv").write_text(table)
    data = {"source": "csv", "kind": "dna", "path": "rows.csv", "server_rows": 30}
    small = {"rounds": 1, "clients": 2, "train": {"steps": 3}, "distill": {"weight": 0}}
    more: dict[str, Any] = {
        "ansatz": "bricks:Bricks",
        "quantum.options": "layers=2",
        "features.kind": "one-hot",
    }
    model = llm_qfl.run(small, data=data, quiet=True, report=False, **more).model
    model.save("taken")
    code = f"import llm_qfl; print(llm_qfl.load('taken').predict_proba({rows}).tolist())"
    ran = fresh_process(code, tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert np.allclose(json.loads(ran.stdout), model.predict_proba(rows), atol=1e-9)

    bad = model.problems([rows[0], "ACGT", rows[1] + "A"])
    assert list(bad) == [1, 2]
    assert bad[1].startswith("a sequence of 4 letters; accepted: 12, as in training")
    with pytest.raises(UserError, match="row 2: a sequence of 13 letters; accepted: 12"):
        model.predict([rows[0], rows[1] + "A"])
    with pytest.raises(UserError, match="row 1: a sequence of 4 letters"):
        model.features(["ACGT", "ACGT"])
