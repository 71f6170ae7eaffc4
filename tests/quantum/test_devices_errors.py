"""What errors of the service mean, and that none of them shows the site's token."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from qiskit_ibm_runtime.exceptions import IBMRuntimeError

from core import BackendError
from quantum.engines.devices.jobs import JobRunner
from quantum.engines.devices.retrying_client import (
    is_backends_own,
    is_refused_for_now,
    is_transient,
    redacted,
)
from tests.quantum.device_jobs import go
from tests.quantum.http_cloud import CRN, TOKEN, HttpCloud
from tests.quantum.scripted_service import FAULTS

# Of the client's own making, each time that it submits.
pytestmark = pytest.mark.filterwarnings("ignore:The RuntimeOptions class is deprecated")


def test_no_error_of_a_call_contains_the_token(
    cloud: HttpCloud,
    start: Callable[..., JobRunner],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    # The library hands on none of its records. At DEBUG it writes the service's replies as they
    # are, and these ones hold the token.
    library = logging.getLogger("qiskit_ibm_runtime")
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, library.name)
    library.addHandler(caplog.handler)
    shown: list[str] = []

    def provoke(key: str, **given: Any) -> None:
        runner = start(**given)
        try:
            go(runner, key)
        except BackendError as error:
            shown.extend([str(error), repr(error), *traceback.format_exception(error)])
        shown.extend([repr(runner), repr(runner.service), repr(runner.store.find(key))])

    try:
        for number, script in enumerate((["400"], ["401"], ["403"], ["429"] * 3, ["500"] * 3)):
            cloud.submit = script
            provoke(f"k{number}")
        cloud.end = [("Failed", {"reason": f"Error, Authorization: Bearer {TOKEN}"})]
        provoke("failed")
        cloud.end = [("Failed", {"reason": f"no access for {TOKEN} at {CRN}"})]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("QISKIT_IBM_TOKEN", TOKEN)
            provoke("failed differently")
    finally:
        library.removeHandler(caplog.handler)
    assert sum("refused the job" in text for text in shown) >= 3
    assert any("refused Authorization: …" in text for text in shown)
    files = b"".join(f.read_bytes() for f in tmp_path.iterdir())
    assert b"refused Authorization" in files
    everything = "\n".join([*shown, caplog.text, files.decode("latin-1")])
    for secret in (TOKEN, "0123456789abcdef"):
        assert secret not in everything


def test_no_error_of_signing_in_contains_the_token(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SIGN_IN],
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("QISKIT")},
            "HOME": str(tmp_path),
            "QISKIT_IBM_RUNTIME_LOG_LEVEL": "DEBUG",
            "TEST_TOKEN": TOKEN,
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    lines = [line for line in ran.stdout.splitlines() if line]
    for line, why in zip(
        lines,
        (
            "no IBM Quantum account is saved on this machine; accepted: .*QISKIT_IBM_TOKEN; "
            "save one with QiskitRuntimeService.save_account.* .see docs/backends.md..$",
            "account = 'work', no account of this name .*; accepted: none is saved; save one",
            "IBM Quantum cannot be reached",
            "account = 'wrok', .*; accepted: work; save one",
            "IBM Quantum cannot be reached",
            "IBM Quantum cannot be reached",
            "(cannot be reached|does not take this machine's account)",
            "does not take this machine's account .*",
        ),
        strict=True,
    ):
        assert re.search(why, line), line
    saved = (tmp_path / ".qiskit" / "saved.json").read_text()
    assert TOKEN in saved
    assert TOKEN not in ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (f"Authorization: Bearer {TOKEN}", "Authorization: …"),
        (f"headers {{'Authorization': 'apikey {TOKEN}'}}", "headers {'Authorization': … …'}"),
        ("https://h/p?access_token=abc&x=1 gone", "https://h/p?… gone"),
        ("apikey=abc; no", "apikey=…; no"),
        ('{"apikey": "abc"}', '{"apikey": …"}'),
        ("https://me:secret@h/p", "https://…@h/p"),
        (f"instance {CRN} unknown", "instance crn:… unknown"),
        ("eyJhbGciOi.eyJpc3Mi.c2ln gone", "… gone"),
        ("x" * 50 + " long", "… long"),
        ("two\nlines", "two lines"),
        ("job d1abcdefghij0123 of API token. Please", "job d1abcdefghij0123 of API token. Please"),
        ("word " * 100, "word " * 40),
        (KeyError(), "KeyError"),
    ],
)
def test_redacted(given: object, expected: str) -> None:
    assert redacted(given) == expected


SIGN_IN = """
import json, logging, os
from pathlib import Path

logging.basicConfig(level=logging.DEBUG)
from core import BackendError
from quantum.engines.devices.backends import connect
from qiskit_ibm_runtime import QiskitRuntimeService

token, nowhere = os.environ.pop("TEST_TOKEN"), "https://localhost.invalid"
saved = Path.home() / ".qiskit" / "qiskit-ibm.json"

def provoke(account=""):
    try:
        connect(account)
    except BackendError as error:
        print(str(error))

provoke()
provoke("work")
QiskitRuntimeService.save_account(token=token, url=nowhere, name="work", set_as_default=True)
(saved.parent / "saved.json").write_text(saved.read_text())
provoke("work")
provoke("wrok")
provoke()
os.environ |= {"QISKIT_IBM_TOKEN": token, "QISKIT_IBM_URL": nowhere}
provoke()
os.environ["QISKIT_IBM_TOKEN"] = "{" + token + "}\\n"
provoke()
del os.environ["QISKIT_IBM_TOKEN"]
saved.write_text('{"work": {"token": "' + token + '", "channel": "' + token + '"}}')
provoke("work")
"""


def test_short_tokens_are_known_from_where_the_client_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "no access with in-env, nor with in-file"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("QISKIT_IBM_TOKEN", raising=False)
    assert redacted(message) == message
    monkeypatch.setenv("QISKIT_IBM_TOKEN", " in-env")
    (tmp_path / ".qiskit").mkdir()
    accounts = tmp_path / ".qiskit" / "qiskit-ibm.json"
    accounts.write_text('{"work": {"token": "in-file"}}')
    assert redacted(message) == "no access with…, nor with …"
    accounts.write_text("[")
    assert redacted(message) == "no access with…, nor with in-file"


def raised_while_handling(error: BaseException, earlier: BaseException) -> BaseException:
    error.__context__ = earlier
    return error


@pytest.mark.parametrize(
    ("error", "transient", "refused"),
    [
        (FAULTS["lost"](), True, False),
        (FAULTS["timeout"](), True, False),
        (FAULTS["429"](), True, True),
        (FAULTS["503"](), True, False),
        (FAULTS["bad"](), False, False),
        (FAULTS["401"](), False, False),
        (RuntimeError("400 Client Error. You have too many jobs, Error code: 3458."), True, True),
        (requests.exceptions.RetryError("too many 500 error responses"), True, False),
        (ConnectionResetError(), True, False),
        (ValueError("the circuit is not in the basis of the backend"), False, False),
        (KeyError("id"), False, False),
        # Refused after the line had come back: what was lost before is over.
        (raised_while_handling(FAULTS["bad"](), FAULTS["lost"]()), False, False),
        (raised_while_handling(IBMRuntimeError("…"), FAULTS["lost"]()), True, False),
    ],
)
def test_what_is_tried_again(error: Exception, transient: bool, refused: bool) -> None:
    assert is_transient(error) is transient
    assert is_refused_for_now(error) is refused


@pytest.mark.parametrize(
    ("reason", "own"),
    [
        ("Error code 9701; internal error", True),
        ("Error code 1010; Error returned at backend level.", True),
        ("Error code 4001; Job is part of a session that's been closed", True),
        ("Something broke. Please try again.", True),
        ("Error code 6000; Too many shots given", False),
        ("Error code 8008; Unconnected qubits.", False),
        ("Error code 1305; Ran too long", False),
        ("ValueError: unknown", False),
    ],
)
def test_whose_fault_a_failure_is(reason: str, own: bool) -> None:
    assert is_backends_own(reason) is own


def test_importing_loads_no_quantum_library() -> None:
    code = (
        "import sys, quantum.engines.devices.jobs, quantum.engines.devices.ibm; "
        "sys.exit(bool({'qiskit', 'qiskit_ibm_runtime', 'requests'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
