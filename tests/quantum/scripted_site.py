"""A site over the scripted cloud: its client can be started again, as after a crash."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from quantum.engines.base import Usage
from quantum.engines.devices.base import Budget
from quantum.engines.devices.job_store import JobStore
from quantum.engines.devices.jobs import JobRunner
from tests.quantum.scripted_service import Cloud, ScriptedService, expected

OWN_FAULT = ("ERROR", "Error code 9701; Internal error. Please try again.")
OUR_FAULT = ("ERROR", "Error code 6000; Too many shots given (2000000 > 1000000).")


@dataclass
class Site:
    """One site: its job store's file and the cloud outlive its client's processes."""

    path: Path
    cloud: Cloud = field(default_factory=Cloud)
    budget: Budget = field(default_factory=Budget)
    retries: int = 3
    timeout: float = 3600.0
    now: float = 0.0
    slept: list[float] = field(default_factory=list)
    service: ScriptedService = field(init=False)
    at_sleep: dict[int, BaseException] = field(default_factory=dict)

    def start(self, **script: list[str]) -> JobRunner:
        """Start the client again: nothing is left of the last but the file and the cloud."""
        self.service = ScriptedService(self.cloud, script)
        return JobRunner(
            self.service,
            JobStore(self.path),
            self.budget,
            self.retries,
            self.timeout,
            np.random.default_rng(0),
            self.sleep,
            lambda: self.now,
        )

    def sleep(self, seconds: float) -> None:
        if error := self.at_sleep.pop(len(self.slept) + 1, None):
            raise error
        self.slept.append(seconds)
        self.now += seconds

    @property
    def paid(self) -> int:
        return sum(self.cloud.bills.values())

    def entry(self, key: str = "k") -> Any:
        return JobStore(self.path).find(key)


def check(got: tuple[list[np.ndarray], Usage], key: str = "k", rows: int = 3) -> Usage:
    values, usage = got
    assert [v.tolist() for v in values] == [v.tolist() for v in expected(key, rows)]
    return usage


ONE = Usage(1, 4, 4096, 3.0, 90.0)
