"""What tests of whole runs share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.quantum.http_cloud import HttpCloud, client_of, serve


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpCloud]:
    """A cloud on loopback that IBM's own client reaches, whatever the account."""
    monkeypatch.setattr("quantum.engines.devices.jobs.SETTLE", 0.0)
    with serve() as running:
        monkeypatch.setattr(
            "quantum.engines.devices.backends.connect", lambda account: client_of(running)
        )
        yield running
