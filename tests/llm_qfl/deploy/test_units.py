"""systemd's units: what they call is ours, they restart and are confined, systemd accepts them."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llm_qfl.cli import main
from llm_qfl.cli.app import make_parser

PARTS = (
    "superlink/llm-qfl-superlink",
    "superlink/llm-qfl-superlink-exec",
    "superlink/llm-qfl-gate",
)
NODES = ("node-0/llm-qfl-node-0", "node-0/llm-qfl-node-0-exec")


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a deployment in a folder whose name systemd must be given with care."""
    folder = tmp_path_factory.mktemp("units") / "my 100% fed"
    assert main(["deploy", "init", str(folder), "--nodes", "1", "--host", "hub.example.org"]) == 0
    return folder


def unit(fed: Path, name: str) -> Path:
    folder, _, name = name.partition("/")
    return fed / folder / "systemd" / f"{name}.service"


def read(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path)
    return parser


def test_each_part_has_one(fed: Path) -> None:
    found = {str(path.relative_to(fed)) for path in fed.rglob("*.service")}
    assert found == {str(unit(fed, name).relative_to(fed)) for name in (*PARTS, *NODES)}


@pytest.mark.parametrize("name", [*PARTS, *NODES])
def test_it_restarts_what_is_ours_with_few_rights(fed: Path, name: str) -> None:
    parsed = read(unit(fed, name))
    service = parsed["Service"]
    calls = [
        service["ExecStart"],
        *([service["ExecStartPost"]] if "ExecStartPost" in service else []),
    ]
    for call in calls:
        program, *flags = shlex.split(call.replace("%%", "%").replace("$$", "$"))
        assert (program, flags[:3]) == (sys.executable, ["-P", "-m", "llm_qfl.cli"])
        chosen = make_parser().parse_args(flags[3:])
        assert chosen.folder == unit(fed, name).parent.parent
    assert ("register" in calls[-1]) == (name == PARTS[0])  # before the gate, which comes after it
    assert service["Restart"] == "always"
    assert int(service["LimitNOFILE"]) >= 65536
    assert service["NoNewPrivileges"] == service["RestrictSUIDSGID"] == "yes"
    assert service["UMask"] == "0077"
    server = {PARTS[1]: PARTS[0], PARTS[2]: PARTS[0], NODES[1]: NODES[0]}.get(name)
    if server:
        assert parsed["Unit"]["BindsTo"] == parsed["Unit"]["After"] == unit(fed, server).name


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_accepts_them(fed: Path, tmp_path: Path) -> None:
    for name in (*PARTS, *NODES):
        shutil.copy(unit(fed, name), tmp_path)
    files = [str(path) for path in sorted(tmp_path.glob("*.service"))]
    done = subprocess.run(
        ["systemd-analyze", "verify", *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "llm-qfl" not in done.stderr


def test_they_are_written_again_where_the_folder_lies_now(fed: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(fed / "node-0", tmp_path / "site"))
    assert main(["deploy", "units", str(moved)]) == 0
    text = unit(moved.parent, "site/llm-qfl-site").read_text()
    assert f'"{moved}"' in text
    assert str(fed) not in text
    assert main(["deploy", "units", str(tmp_path)]) == 2
