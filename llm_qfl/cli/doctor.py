"""`llm-qfl doctor`: what is installed here, what a run can use of it, and what is missing for what.

Imports none of the libraries that it looks at, and shows no secret.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from core import read_json, registry, size_on_disk, store_root
from core.formatting import byte_size
from llm_qfl.cli.app import version
from llm_qfl.cli.children import print_json
from llm_qfl.cli.shipped import app_description

EXTRAS = {
    "agents": "agent.kind = llm with agent.decoding = schema",
    "privacy": "privacy.dp, privacy.moment_noise",
    "embedded": "text without a download of its encoder",
    "smollm2": "models as GGUF files",
    "mlflow": "run.track = mlflow",
    "tensorboard": "run.track = tensorboard",
    "wandb": "run.track = wandb",
    "completion": "llm-qfl completion",
    "search": "llm-qfl study --search",
}
"""What each extra of the installation is for."""

PROGRAMS = {"nginx": ("deploy with --host", "apt install nginx-light")}

VARIABLES = {
    "IBM Quantum, environment": "QISKIT_IBM_TOKEN",
    "Hugging Face, environment": "HF_TOKEN",
    "agent endpoint": "LLM_QFL_AGENT_URL",
    "W&B": "WANDB_API_KEY",
    "MLflow": "MLFLOW_TRACKING_URI",
}
"""Environment variables by what they are for; only whether they are set is shown."""

LEAST_BYTES = 2 * 10**9
"""Free disk below which a run may fail: Ray's store, models and results need about so much."""


def doctor(*, as_json: bool = False) -> int:
    """Print what is here; 0 if nothing is wrong, 1 with a line for each problem."""
    found = examine()
    if as_json:
        print_json(found)
    else:
        print("\n".join(_lines(found)))
    return 1 if found["problems"] else 0


def examine() -> dict[str, Any]:
    """Return what `llm-qfl doctor` shows, section by section."""
    required, missing = _requirements()
    extensions, doubles = _extensions()
    disk = _disk()
    short = [
        {"what": f"{byte_size(free)} free at {place}", "for": "any run", "fix": "make room there"}
        for place, free in disk["free"].items()
        if free < LEAST_BYTES
    ]
    accounts = _accounts()
    broken = [one for one in missing if one["for"] == "llm-qfl itself"]
    return {
        "versions": {"llm-qfl": version(), "python": platform.python_version(), **required},
        "devices": _devices(),
        "accounts": accounts,
        "disk": disk,
        "privacy": _privacy(),
        "extensions": extensions,
        "missing": [one for one in missing if one not in broken] + list(_absent(accounts)),
        "problems": broken + doubles + short,
    }


def _requirements() -> tuple[dict[str, str], list[dict[str, str]]]:
    """Return the versions of required packages, and what is missing or of another version."""
    import tomllib

    project = tomllib.loads(app_description().read_text(encoding="utf-8"))["project"]
    versions: dict[str, str] = {}
    missing: list[dict[str, str]] = []
    groups = {"": project["dependencies"]}
    groups |= {k: v for k, v in project["optional-dependencies"].items() if k in EXTRAS}
    for extra, lines in groups.items():
        for wanted in map(Requirement, lines):
            here = _version(wanted.name)
            if here:
                versions[wanted.name] = here
            if not here or not wanted.specifier.contains(here, prereleases=True):
                what = f"{wanted.name}{wanted.specifier}" + f" (here: {here})" * bool(here)
                purpose = EXTRAS.get(extra, "llm-qfl itself")
                fix = f"pip install 'llm-qfl[{extra}]'" if extra else f"pip install '{wanted}'"
                missing.append({"what": what, "for": purpose, "fix": fix})
    return dict(sorted(versions.items())), missing


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _absent(accounts: dict[str, str]) -> Iterator[dict[str, str]]:
    """Yield programs, accounts and packages of no extra that are not here."""
    if {accounts["IBM Quantum, saved"], accounts["IBM Quantum, environment"]} == {"none"}:
        fix = "save one with QiskitRuntimeService.save_account (docs/backends.md)"
        yield {"what": "IBM Quantum account", "for": "quantum.backend = ibm:NAME", "fix": fix}
    if accounts["agent endpoint"] == "none":
        what, fix = VARIABLES["agent endpoint"], "export it (docs/agents.md)"
        yield {"what": what, "for": "agent.kind = endpoint", "fix": fix}
    for name in registry.shipped("model"):
        package, fix = registry.declared("model", name, "separately", ("", ""))
        if package and not _version(package):
            yield {"what": package, "for": f"llm.model = {name}", "fix": fix}
    for program, (purpose, fix) in PROGRAMS.items():
        if not (shutil.which(program) or shutil.which(program, path="/usr/sbin")):
            yield {"what": program, "for": purpose, "fix": fix}


def _devices() -> dict[str, Any]:
    """Return processors, CUDA devices as the driver counts them, and PennyLane's devices."""
    plugins = metadata.entry_points(group="pennylane.plugins")
    return {
        "cores": os.cpu_count(),
        "cuda": _cuda_devices(),
        "aer": _version("qiskit-aer") or "not installed",
        "pennylane": sorted({plugin.name for plugin in plugins}),
    }


def _cuda_devices() -> int:
    count = ctypes.c_int(0)
    with suppress(OSError):
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        if not driver.cuInit(0):
            driver.cuDeviceGetCount(ctypes.byref(count))
    return count.value


def _accounts() -> dict[str, str]:
    """Return which accounts are known here: never a token."""
    home = Path.home()
    saved = read_json(home / ".qiskit" / "qiskit-ibm.json")
    token = Path(os.environ.get("HF_HOME", home / ".cache" / "huggingface")) / "token"
    found = {"IBM Quantum, saved": ", ".join(sorted(saved)) or "none"}
    found["Hugging Face, saved"] = "yes" if token.is_file() else "none"
    return found | {what: "set" if os.environ.get(v) else "none" for what, v in VARIABLES.items()}


def _disk() -> dict[str, Any]:
    store = store_root()
    places = {"this folder": Path.cwd(), "temporary files": Path("/tmp"), "store": store}
    free = {}
    for what, place in places.items():
        there = next(path for path in (place, *place.parents) if path.exists())
        free[f"{what} ({place})"] = shutil.disk_usage(there).free
    return {"free": free, "store": size_on_disk(store) if store.exists() else 0}


def _privacy() -> dict[str, str]:
    """Return what the rows of each site of this store have spent, by the sites' own accounts."""
    from core.site_ledger import FOLDER, summed_up

    files = sorted((store_root() / FOLDER).glob("*.jsonl"))
    if files and not _version("dp-accounting"):
        return {"accounts": f"{len(files)}; pip install 'llm-qfl[privacy]' shows them"}
    return {f"client {path.stem.replace('-', ', rows ')}": summed_up(path) for path in files}


def _extensions() -> tuple[dict[str, dict[str, str]], list[dict[str, str]]]:
    """Return where each point's names come from, and names that more than one thing has."""
    points: dict[str, dict[str, str]] = {}
    doubles = []
    for point in registry.POINTS:
        points[point] = dict.fromkeys(registry.shipped(point), "llm-qfl")
        for entry in metadata.entry_points(group=f"llm_qfl.{point}"):
            package = entry.dist.name if entry.dist else entry.value
            before = points[point].setdefault(entry.name, package)
            if before != package:
                what = f"{point} {entry.name!r} is in {before} and in {package}"
                fix = f"pip uninstall {package}"
                doubles.append({"what": what, "for": f"{point} {entry.name!r}", "fix": fix})
    return points, doubles


def _lines(found: dict[str, Any]) -> Iterator[str]:
    """Write each section with its rows."""
    disk = {place: f"{byte_size(free)} free" for place, free in found["disk"]["free"].items()}
    points = {
        point: ", ".join(f"{n} ({p})" if p != "llm-qfl" else n for n, p in names.items())
        for point, names in found["extensions"].items()
    }
    devices = {**found["devices"], "pennylane": ", ".join(found["devices"]["pennylane"])}
    yield from _section("versions", found["versions"])
    yield from _section("devices", devices)
    yield from _section("accounts", found["accounts"])
    yield from _section("disk", {**disk, "size of the store": byte_size(found["disk"]["store"])})
    if found["privacy"]:
        yield from _section("privacy", found["privacy"])
    yield from _section("extensions", points)
    for name in ("missing", "problems"):
        rows = {one["what"]: f"for {one['for']}: {one['fix']}" for one in found[name]}
        yield from _section(name, rows or {"nothing": ""})


def _section(title: str, rows: dict[str, Any]) -> Iterator[str]:
    yield title
    width = max(map(len, rows))
    yield from (f"  {name:<{width}}  {value}".rstrip() for name, value in rows.items())
