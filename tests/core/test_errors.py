"""Another library's exception reaches the user as one short line, whatever it says."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_app import cost
from core import ModelError, UserError, flatten, parse_run, short_message, unexpected_error
from server_app import preflight
from tests.conftest import SMALL


def bindings_error() -> TypeError:
    """Return what a binding to C++ really raises of a wrong argument."""
    from qiskit_aer.backends.controller_wrappers import AerConfig

    with pytest.raises(TypeError) as caught:
        AerConfig().shots = "many"
    assert "Invoked with: <" in str(caught.value)
    return caught.value


def test_what_a_binding_met_is_left_out() -> None:
    assert unexpected_error(bindings_error()) == "TypeError: (): incompatible function arguments"


@given(st.text(), st.sampled_from([ValueError, KeyError, OSError]))
def test_any_text_is_one_line_of_at_most_200(text: str, kind: type[Exception]) -> None:
    said = short_message(kind(text))
    assert 0 < len(said) <= 200
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(("module", "work"), [(cost, "estimate"), (preflight, "check")])
def test_a_library_that_fails_is_the_last_line_of_the_process(
    module: Any, work: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(settings: Any) -> None:
        raise bindings_error()

    settings, _ = parse_run([], list(SMALL))
    monkeypatch.setattr(module, work, fail)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(flatten(settings))))
    assert module.main() == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("TypeError: ")
    assert "Invoked" not in last


def test_a_picture_that_fails_ends_no_run(
    federate: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from matplotlib.figure import Figure

    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("Key backend: 'nonsense' is not a valid value")

    monkeypatch.setattr(Figure, "savefig", fail)
    ran = federate("run.rounds=1")
    assert ran.summary["test"]["rows"] == 60
    assert not (ran.folder / "circuit.svg").exists()
    said = "the circuit is not drawn (ValueError: Key backend: 'nonsense' is not a valid value)"
    assert said in caplog.messages


def test_a_run_that_a_library_ends_says_so_in_short(tmp_path: Path) -> None:
    from server_app.app import _why

    known, text = _why(bindings_error(), tmp_path)
    assert not known
    assert "Invoked" not in text


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::PendingDeprecationWarning",  # the plugin's own
)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("method=nonsense", "Backend 'aer_simulator_nonsense' does not exist"),
        ("max_parallel_threads=abc", "invalid option type: name=max_parallel_threads"),
        ("noise_model=5", "'int' object has no attribute"),
    ],
)
def test_a_plugins_options_that_do_not_serve(options: str, said: str) -> None:
    pytest.importorskip("pennylane_qiskit")
    import torch

    from core import HardwareSettings, QuantumSettings
    from quantum import Host, build_classifier

    settings = QuantumSettings(
        qubits=2, backend="pennylane:qiskit.aer", device_options=options, block="paper"
    )

    def evaluate() -> None:
        model = build_classifier(settings, 2, Host(HardwareSettings(shots=10)))
        rows = model.prepare(np.zeros((1, 2)))
        model.engine.expectations(torch.zeros(model.angles), rows)

    with pytest.raises(UserError, match=r"cannot be used \(.*; change quantum") as caught:
        evaluate()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.json", b"{"), ("model.safetensors", b"\0" * 40), ("tokenizer.json", b"[1]")],
)
def test_a_damaged_model_folder_is_one_line(name: str, content: bytes, tmp_path: Path) -> None:
    import torch
    from transformers import BertConfig, BertModel

    import llm
    from core import LlmSettings
    from tests.llm.conftest import SIZE, _tokenizer

    with torch.random.fork_rng(devices=[]):
        BertModel(BertConfig(**SIZE, intermediate_size=32)).save_pretrained(tmp_path)
    _tokenizer(tmp_path, pad=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        llm.embed(["good"], LlmSettings(model=str(tmp_path)), "text")
    assert "\n" not in str(caught.value)
