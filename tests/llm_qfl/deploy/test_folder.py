"""A deployment's folder: each machine gets what it needs and no more; mistakes are one line."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import llm_qfl.cli.deploy.diagnosis
import llm_qfl.cli.deploy.keys
import llm_qfl.cli.deploy.remote
from core import SettingsError, UserError, parse_settings
from llm_qfl.cli import main
from llm_qfl.cli.deploy.diagnosis import answers
from llm_qfl.cli.deploy.folder import FACTS, Options, make_deployment, read_endpoint, read_facts
from llm_qfl.cli.deploy.keys import days_left, make_server
from llm_qfl.cli.deploy.parts import GATE, NODE, SUPERLINK, check, command
from llm_qfl.cli.deploy.remote import Deployed
from llm_qfl.cli.plan import make_plan


def table(path: Path) -> dict[str, object]:
    return tomllib.loads(path.read_text())


def made(folder: Path, *node_sets: str, nodes: int = 2, **more: object) -> Path:
    assert make_deployment(folder, Options(nodes, node_sets=node_sets, **more))  # type: ignore[arg-type]
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_each_part_gets_its_own_files_and_no_others(tmp_path: Path) -> None:
    folder = made(tmp_path / "fed")
    node = {"ca.crt", "connection.toml", "node.key", "node.toml"}
    superlink = {"ca.crt", "server.crt", "server.key", "superlink.toml"}
    public = {"nodes/node-0.pub", "nodes/node-1.pub"}
    assert files(folder / "ca") == {"ca.crt", "ca.key"}
    assert files(folder / "control") == {"ca.crt", "deployment.toml"}
    assert files(folder / "superlink") == superlink | public
    assert files(folder / "node-0") == files(folder / "node-1") == node
    assert (folder / "node-0/node.key").read_bytes() != (folder / "node-1/node.key").read_bytes()
    for part in folder.iterdir():
        assert part.stat().st_mode & 0o077 == 0
        assert (part / "ca.crt").read_bytes() == (folder / "ca" / "ca.crt").read_bytes()


def test_nobody_else_may_look_into_it(tmp_path: Path) -> None:
    folder = made(tmp_path / "fed")
    for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        assert place.stat().st_mode & 0o777 == 0o700, place


def test_a_nodes_file_is_what_its_client_app_reads(tmp_path: Path) -> None:
    sets = ("quantum.backend=exact", "1:quantum.backend=fake:manila", "1:hardware.shots=64")
    folder = made(tmp_path / "fed", *sets, "0:site=north")
    from flwr.common.config import parse_config_args

    configs = [parse_config_args([str(folder / f"node-{k}" / "node.toml")]) for k in range(2)]
    assert configs[0] == {
        "partition-id": 0,
        "num-partitions": 2,
        "site": "north",
        "quantum.backend": "exact",
    }
    settings = parse_settings({"run.clients": 2}, configs[1])
    assert settings.quantum.backend == "fake:manila"
    assert settings.hardware.shots == 64


def test_relative_data_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = made(tmp_path / "fed", "data.source=csv", "data.path=site-{client}.csv")
    own = table(folder / "node-1" / "node.toml")["data"]
    assert own == {"source": "csv", "path": str(tmp_path / "site-{client}.csv")}
    with pytest.raises(UserError, match=r"site-1.csv' of node-1 does not exist"):
        check(NODE, folder / "node-1")
    (tmp_path / "site-1.csv").write_text("text,label\n")
    check(NODE, folder / "node-1")


def test_on_one_machine_nothing_listens_outside_it(tmp_path: Path) -> None:
    folder = made(tmp_path / "fed")
    part = command(SUPERLINK, folder / "superlink")
    words = part.words
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert part.port > 0
    assert "--enable-supernode-auth" in words
    assert part.environment["LLM_QFL_HOME"] == str(folder / "superlink" / "store")
    assert "--ssl-certfile" in words
    assert "--insecure" not in words
    with pytest.raises(UserError, match="port = 0: a deployment on one machine"):
        command(NODE, folder / "node-0")


def test_with_a_host_the_parts_know_where_to_go(tmp_path: Path) -> None:
    folder = made(tmp_path / "fed", hosts=("hub.example.org",))
    link = command(SUPERLINK, folder / "superlink")
    assert link.words[4:8] == ["--host", "127.0.0.1", "--port", "8001"]  # the gate has 8000
    part = command(NODE, folder / "node-1")
    words = part.words
    assert words[words.index("--superlink") + 1] == "hub.example.org:8000"
    assert words[words.index("--root-certificates") + 1] == str(folder / "node-1" / "ca.crt")
    assert words[words.index("--auth-supernode-private-key") + 1].endswith("node-1/node.key")
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert "--insecure" not in words
    assert part.environment["LLM_QFL_HOME"] == str(folder / "node-1" / "store")
    assert part.environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"


def test_a_copy_of_control_is_enough_to_find_it(tmp_path: Path) -> None:
    folder = made(tmp_path / "fed", hosts=("hub.example.org",), port=9000)
    copied = (folder / "control").rename(tmp_path / "elsewhere")
    facts = read_facts(copied)
    assert (facts.nodes, facts.host, facts.port) == (2, "hub.example.org", 9000)
    assert facts.control_port == 9001
    assert facts.authority == copied / "ca.crt"


def test_made_again_it_stays_and_another_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path / "fed")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert not make_deployment(folder, Options(2))
    with pytest.raises(UserError, match=r"another deployment: node-0/node.toml differs"):
        make_deployment(folder, Options(3))
    with pytest.raises(UserError, match=r"another deployment: node-1/node.toml differs"):
        make_deployment(folder, Options(2, node_sets=("1:quantum.threads=2",)))
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_half_a_deployment_is_told(tmp_path: Path) -> None:
    folder = made(tmp_path / "fed")
    (folder / "control" / "deployment.toml").unlink()
    with pytest.raises(UserError, match="is there, but no whole deployment"):
        make_deployment(folder, Options(2))


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["--nodes", "0"], "--nodes 0; accepted: 1 to 1000"),
        (["--nodes", "2", "--port", "70000"], "--port 70000; accepted: 1 to 65534"),
        (["--nodes", "2", "--host", "a:1"], "--host 'a:1'; accepted: a host name"),
        (["--nodes", "2", "--node-set", "2:site=x"], "accepted: a node from 0 to 1"),
        (["--nodes", "2", "--node-set", "quantum.backend"], "accepted: key=value"),
        (["--nodes", "2", "--node-set", "run.rounds=5"], "set it for the whole run instead"),
        (["--nodes", "2", "--node-set", "quantum.bakend=aer"], "did you mean 'quantum.backend'?"),
        (["--nodes", "2", "--node-set", "quantum.backend=qpu"], "quantum.backend = 'qpu'"),
        (["--nodes", "2", "--node-set", "quantum.threads=none"], "quantum.threads = 'none'"),
        (["--port", "8000"], "--host, --port or --node-set without --nodes"),
        ([], "and no --nodes; accepted: how many"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], printed: str
) -> None:
    assert main(["deploy", "init", str(tmp_path / "fed"), *words]) == 2
    shown = capsys.readouterr()
    assert printed in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""
    assert not (tmp_path / "fed").exists()


@pytest.mark.parametrize(
    ("step", "lacks"), [("superlink", "superlink.toml"), ("node", "connection.toml")]
)
def test_a_part_without_its_files_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], step: str, lacks: str
) -> None:
    assert main(["deploy", step, str(tmp_path)]) == 2
    assert lacks in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_node_without_its_key_does_not_go_without(tmp_path: Path) -> None:
    folder = made(tmp_path / "fed", hosts=("hub.example.org",))
    (folder / "node-0" / "node.key").unlink()
    with pytest.raises(UserError, match=r"node-0' lacks node.key"):
        command(NODE, folder / "node-0")


def test_an_expired_certificate_is_told_and_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made(tmp_path / "fed", hosts=("hub.example.org",))
    authority = folder / "ca" / "ca.crt", folder / "ca" / "ca.key"
    server = folder / "superlink" / "server.crt", folder / "superlink" / "server.key"
    for path in server:
        path.unlink()

    class Past(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) - timedelta(days=400)

    with monkeypatch.context() as patched:
        patched.setattr(llm_qfl.cli.deploy.keys, "datetime", Past)
        make_server(authority, *server, ["hub.example.org"])
    assert -4 < days_left(server[0]) < -2
    with pytest.raises(UserError, match="expired 3 days ago"):
        command(SUPERLINK, folder / "superlink")
    assert main(["deploy", "renew", str(folder)]) == 0
    assert "good for 397 days" in capsys.readouterr().out
    command(SUPERLINK, folder / "superlink")
    assert server[1].stat().st_mode & 0o777 == 0o600


def test_a_run_on_what_is_not_up_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made(tmp_path / "fed")
    assert main(["run", "--on", "fed"]) == 2
    assert "is not up" in capsys.readouterr().err
    assert main(["run", "--on", "nowhere"]) == 2
    assert "no deployment in 'nowhere'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_deployment_says_how_many_clients_a_run_has(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[run]\nclients = 7\n")
    plan = make_plan([file], ["run.rounds=1"], None, clients=3)
    assert plan.settings.run.clients == plan.overrides["run.clients"] == 3
    with pytest.raises(UserError, match=r"run.clients = 4 on a deployment of 3 nodes"):
        make_plan([file], ["run.clients=4"], None, clients=3)


def test_a_folder_that_runs_would_send_to_every_node_is_refused() -> None:
    inside = Path(llm_qfl.cli.deploy.keys.__file__).parents[3] / "never-made"
    with pytest.raises(UserError, match="in the app's checkout, with which its keys"):
        make_deployment(inside, Options(2))
    assert not inside.exists()


def test_init_says_what_goes_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["deploy", "init", str(tmp_path / "fed"), "--nodes", "3", "--host", "hub.example.org"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    for part in ("ca/", "superlink/", "node-0/ ... node-2/ ", "control/", "deploy node FOLDER"):
        assert part in printed
    assert main(words) == 0
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ('data = "x"', "'data'"),
        ("quantum.threads = [1]", "accepted: text or a number"),
        ("run.rounds = 5", "set it for the whole run instead"),
        ('quantum.bakend = "aer"', "did you mean 'quantum.backend'?"),
        ('partition-id = "one"', "partition-id = 'one'"),
        ("partition-id = true", "partition-id = True"),
    ],
)
def test_an_edited_node_is_checked_in_one_line(tmp_path: Path, text: str, printed: str) -> None:
    file = made(tmp_path / "fed") / "node-0" / "node.toml"
    place = "num-partitions = 2\n" + ("" if "partition-id" in text else "partition-id = 0\n")
    file.write_text(place + text)
    with pytest.raises(UserError) as caught:
        check(NODE, file.parent)
    assert printed in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_edited_path_is_found_from_the_nodes_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = made(tmp_path / "fed", hosts=("hub.example.org",)) / "node-1"
    monkeypatch.setenv("HOME", str(tmp_path))
    (node / "own.csv").touch()
    (tmp_path / "test.csv").touch()
    with (node / "node.toml").open("a") as file:
        file.write('data.source = "csv"\ndata.path = "own.csv"\ndata.test_path = "~/test.csv"\n')
    part = command(NODE, node)
    config = Path(part.words[part.words.index("--node-config") + 1])
    assert table(config) == {
        "partition-id": 1,
        "num-partitions": 2,
        "site": "node-1",
        "data": {
            "source": "csv",
            "path": str(node / "own.csv"),
            "test_path": str(tmp_path / "test.csv"),
        },
        "privacy": {"site_key": str(node / "node.key")},
    }


@pytest.mark.parametrize("name", ["ca/ca.crt", "ca/ca.key", "superlink/server.crt"])
def test_a_damaged_certificate_is_one_line_and_renewal_keeps_the_old(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = made(tmp_path / "fed")
    (folder / name).write_text("-----BEGIN NOTHING-----\n")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main(["deploy", "renew", str(folder)]) == 2
    shown = capsys.readouterr().err
    assert f"{str(folder / name)!r} is damaged" in shown
    assert shown.count("\n") == 1
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    if name == "superlink/server.crt":
        with pytest.raises(UserError, match=r"server.crt' is damaged"):
            command(SUPERLINK, folder / "superlink")


def test_another_port_may_be_named_in_both_files(tmp_path: Path) -> None:
    make_deployment(tmp_path / "fed", Options(1, hosts=("hub.example.org",), port=9000))
    files = (tmp_path / "fed" / FACTS, tmp_path / "fed" / "superlink" / "superlink.toml")
    for path in files:
        path.write_text(f"{path.read_text()}control_port = 9500\n")
    assert read_facts(tmp_path / "fed").control_port == 9500
    assert read_endpoint(tmp_path / "fed" / "superlink").control_port == 9500
    for wrong in ('"x"', "70000", "true"):
        files[1].write_text(files[1].read_text().rsplit("=", 1)[0] + f"= {wrong}\n")
        with pytest.raises(UserError, match=r"control_port = .*; accepted: 0 to 65535"):
            read_facts(tmp_path / "fed")


def test_what_really_runs_decides_where_runs_go(tmp_path: Path) -> None:
    """`superlink.toml` may have been edited; a copy of control/ alone knows what was made."""
    make_deployment(tmp_path / "fed", Options(1, hosts=("hub.example.org",), port=9000))
    written = tmp_path / "fed" / "superlink" / "superlink.toml"
    written.write_text(written.read_text().replace("0.0.0.0", "127.0.0.1"))  # a proxy of one's own
    assert read_facts(tmp_path / "fed").control_port == 9000
    (tmp_path / "fed" / "control").rename(tmp_path / "control")
    assert read_facts(tmp_path / "control").control_port == 9001
    written.write_text(written.read_text() + "control_port = 9001\n")
    with pytest.raises(UserError, match="where only this machine reaches the SuperLink"):
        read_endpoint(tmp_path / "fed" / "superlink")


@pytest.mark.parametrize(
    ("hosts", "host", "gate"),
    [
        ((), "127.0.0.1", False),
        (("localhost",), "localhost", False),
        (("127.0.0.1", "hub.example.org"), "hub.example.org", True),
        (("hub.example.org", "localhost"), "hub.example.org", True),
    ],
)
def test_names_of_this_machine_alone_need_no_gate(
    tmp_path: Path, hosts: tuple[str, ...], host: str, gate: bool
) -> None:
    make_deployment(tmp_path / "fed", Options(1, hosts=hosts, port=9000))
    assert read_facts(tmp_path / "fed").host == host
    endpoint = read_endpoint(tmp_path / "fed" / "superlink")
    assert endpoint.gated == gate
    assert read_facts(tmp_path / "fed").control_port == endpoint.control_port
    assert endpoint.control_port == (9001 if gate else 9000)


def test_there_must_be_a_next_port(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--port 65535; accepted: 1 to 65534"):
        make_deployment(tmp_path / "fed", Options(1, port=65535))


def test_runs_are_submitted_behind_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = read_facts(made(tmp_path / "fed", hosts=("hub.example.org",), port=9000))
    calls: list[tuple[int, str]] = []

    def healthy(port: int, host: str, authority: Path | None) -> bool:
        calls.append((port, host))
        return True

    monkeypatch.setattr(llm_qfl.cli.deploy.remote, "healthy", healthy)
    link = Deployed(facts, "flwr", tmp_path)
    link.start()
    config = (link.flwr.home / "config.toml").read_text()
    link.close()
    assert '"127.0.0.1:9001"' in config
    assert calls == [(9001, "127.0.0.1")]


def test_the_gate_answers_where_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(tmp_path / "fed", hosts=("hub.example.org",)) / "superlink"
    file = folder / "superlink.toml"
    file.write_text(file.read_text().replace("0.0.0.0", "127.0.0.2"))
    calls: list[tuple[int, str, str]] = []

    def healthy(port: int, host: str, authority: Path) -> bool:
        calls.append((port, host, authority.name))
        return True

    monkeypatch.setattr(llm_qfl.cli.deploy.diagnosis, "healthy", healthy)
    monkeypatch.setattr(llm_qfl.cli.deploy.diagnosis, "running", lambda *_: {"pid": 1, "port": 9})
    assert answers(folder, GATE)
    assert answers(folder, SUPERLINK)
    assert calls == [(9, "127.0.0.2", "ca.crt"), (9, "127.0.0.1", "ca.crt")]
