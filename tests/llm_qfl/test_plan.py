"""Paths are made absolute, and what is handed to Flower comes through unharmed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_qfl.cli.plan
import llm_qfl.cli.shipped
from core import DataError, UserError
from llm_qfl.cli.flower import federation_config, to_toml
from llm_qfl.cli.plan import absolute_paths, check_paths, make_plan, make_run_folder, run_config
from llm_qfl.cli.shipped import app_description, commit
from llm_qfl.cli.superlink import environment

KEYS = st.from_regex(r"[a-z][a-z0-9_-]{0,8}\.[a-z][a-z0-9_-]{0,8}", fullmatch=True)
VALUES = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)


def flat(tree: dict[str, Any]) -> dict[str, Any]:
    return {f"{section}.{key}": v for section, table in tree.items() for key, v in table.items()}


@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_run_config_comes_back_as_it_went(config: dict[str, Any]) -> None:
    read = flat(tomllib.loads(to_toml(config)))
    assert read == config
    assert [type(read[key]) for key in config] == [type(value) for value in config.values()]


@pytest.mark.parametrize(
    "value", ["it's", 'a "quoted" one', "a = b # c", "C:\\new\\table", "two\nlines", "\x7f\x00é🧬"]
)
def test_awkward_strings(value: str) -> None:
    assert tomllib.loads(to_toml({"run.name": value})) == {"run": {"name": value}}


def test_flower_reads_our_run_config_the_same(tmp_path: Path) -> None:
    config = pytest.importorskip("flwr.common.config")
    facts: dict[str, Any] = {
        "run.name": 'it\'s "x" = y',
        "run.rounds": 3,
        "train.mu": 1e-5,
        "run.report": False,
    }
    file = tmp_path / "run-config.toml"
    file.write_text(to_toml(facts), encoding="utf-8")
    assert config.parse_config_args([str(file)]) == facts
    nodes = config.parse_config_args([federation_config(3, 1, 2)])
    assert nodes == {"num-supernodes": 3, "client-resources-num-cpus": 1}


@pytest.mark.parametrize(
    ("threads", "cores", "share"), [(1, 2, 1), (4, 2, 2), (2, 8, 2), (1, 1, 1)]
)
def test_no_client_asks_for_more_cores_than_there_are(threads: int, cores: int, share: int) -> None:
    assert federation_config(5, threads, cores).endswith(f"num-cpus={share}")


def test_paths_are_resolved_where_the_user_stands(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    given_paths = {
        "data.path": "data/a b.csv",
        "data.test_path": "/abs/t.csv",
        "data.unlabelled": "more-{client}.txt",
        "llm.store": "~/store",
        "llm.model": "models",
        "run.output": "runs",
        "run.name": "models",
    }
    assert absolute_paths(given_paths, tmp_path) == {
        "data.path": str(tmp_path / "data" / "a b.csv"),
        "data.test_path": "/abs/t.csv",
        "data.unlabelled": str(tmp_path / "more-{client}.txt"),
        "llm.store": str(Path.home() / "store"),
        "llm.model": str(tmp_path / "models"),
        "run.output": str(tmp_path / "runs"),
        "run.name": "models",
    }


def test_a_file_must_be_there_unless_each_node_has_its_own(tmp_path: Path) -> None:
    for name in ("more.txt", "more-{client}.txt"):
        given = {"data.unlabelled": str(tmp_path / name)}
        if "{client}" in name:
            check_paths(given, per_site=False)
        else:
            with pytest.raises(DataError, match=r"data.unlabelled = .*more.txt' does not exist"):
                check_paths(given, per_site=False)


def test_a_gguf_file_is_a_path_however_its_name_is_written(tmp_path: Path) -> None:
    (tmp_path / "model.GGUF").touch()
    found = absolute_paths({"llm.model": "model.GGUF"}, tmp_path)
    assert found == {"llm.model": str(tmp_path / "model.GGUF")}


def test_the_model_of_an_agent_is_a_path_in_this_process_only(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    given = {"agent.kind": "llm", "agent.model": "models"}
    assert absolute_paths(given, tmp_path)["agent.model"] == str(tmp_path / "models")
    served = {"agent.kind": "endpoint", "agent.model": "models"}
    assert absolute_paths(served, tmp_path) == served


@pytest.mark.parametrize("model", ["auto", "dna-tiny", "someone/some-model", ""])
def test_a_model_by_name_stays_a_name(model: str, tmp_path: Path) -> None:
    assert absolute_paths({"llm.model": model}, tmp_path) == {"llm.model": model}


def test_flower_is_told_the_overrides_and_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = make_plan([], ["run.rounds=3", "run.output=out"], "mine")
    folder = make_run_folder(plan)
    assert folder.parent == tmp_path / "out"
    assert folder.name.endswith("-mine")
    assert (folder / "logs").is_dir()
    assert (tmp_path / "out" / "latest").resolve() == folder
    assert run_config(plan, folder) == {
        "run.rounds": 3,
        "run.output": str(tmp_path / "out"),
        "run.name": "mine",
        "run.folder": str(folder),
    }


def test_a_folder_that_the_user_names_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = make_plan([], ["run.folder=here/now"], None)
    assert make_run_folder(plan) == tmp_path / "here" / "now"


def test_every_key_we_send_is_one_that_flower_knows() -> None:
    text = app_description().read_text(encoding="utf-8")
    known = flat(tomllib.loads(text)["tool"]["flwr"]["app"]["config"])
    from core import Settings, flatten

    assert set(flatten(Settings())) == set(known)


def test_without_a_checkout_the_error_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(llm_qfl.cli.shipped, "PACKAGES", tmp_path)
    monkeypatch.setattr(metadata, "distribution", nothing)
    with pytest.raises(UserError, match=r"no Flower app at .*accepted: a checkout"):
        make_plan([], [])


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(UserError, match=r"the program 'flwr' is missing"):
        llm_qfl.cli.plan.find_programs()


def test_the_environment_keeps_flower_to_itself(tmp_path: Path) -> None:
    user = {"PATH": "/bin", "NO_PROXY": "a.org", "RAY_ADDRESS": "auto", "HF_HUB_OFFLINE": "1"}
    env = environment(user, tmp_path, "tag", 2)
    assert "RAY_ADDRESS" not in env
    assert env["NO_PROXY"] == env["no_proxy"] == "a.org,127.0.0.1,localhost"
    assert env["FLWR_HOME"] == env["RAY_TMPDIR"] == str(tmp_path)
    assert env["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert env["FLWR_SUPEREXEC_TASK_POLL_INTERVAL"] == "0.2"
    assert env["FLWR_TELEMETRY_ENABLED"] == env["RAY_USAGE_STATS_ENABLED"] == "0"
    assert env["RAY_AUTH_MODE"] == "token"
    assert len(env["RAY_AUTH_TOKEN"]) == 64
    assert env["RAY_AUTH_TOKEN"] != environment(user, tmp_path, "tag", 2)["RAY_AUTH_TOKEN"]
    assert env["OMP_NUM_THREADS"] == "2"
    assert env["HF_HUB_OFFLINE"] == "1"
    assert env["PATH"].endswith(":/bin")
    assert user["NO_PROXY"] == "a.org"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_told_and_whether_files_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    repository = tmp_path / "scratch"
    repository.mkdir()

    def git(*words: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        command = ["git", "-C", str(repository), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert commit(repository) == "unknown"
    git("init", "--quiet")
    assert commit(repository) == "unknown"
    (repository / "a").write_text("1")
    git("add", "a")
    git("commit", "--quiet", "--message", "one")
    git("tag", "--annotate", "v1", "--message", "a tag, which must not stand for the commit")
    head = git("rev-parse", "HEAD")
    assert commit(repository) == head[:12]
    (repository / "a").write_text("2")
    assert commit(repository) == f"{head[:12]}-dirty"


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit() == "unknown"
    assert environment({}, tmp_path, "tag", 1)["LLM_QFL_COMMIT"] == "unknown"
    image = {"LLM_QFL_COMMIT": "0123abc"}  # an image knows what it was built from
    assert environment(image, tmp_path, "tag", 1)["LLM_QFL_COMMIT"] == "0123abc"


PER_SITE = (
    "data.source=csv",
    "data.per_site=true",
    "data.labels=a,b",
    "evaluation.mode=federated",
)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ([], "dna-demo"),
        (["data.source=tweet-eval", "data.task=hate"], "hate"),
        (["data.source=genomic"], "Genomic_Benchmarks_demo_human_or_worm"),
        (["data.source=csv", "data.path=my rows (2).csv"], "my-rows-2"),
        (["run.name=own"], "own"),
        ([*PER_SITE, "data.path=ward-{client}.csv"], "ward"),
        ([*PER_SITE, "data.path={client}/rows.csv"], "rows"),
    ],
)
def test_a_run_is_called_after_its_data(
    given: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my rows (2).csv").write_text("text,label\n")
    plan = make_plan([], given, None)
    assert plan.settings.run.name == plan.overrides["run.name"] == name
    assert make_run_folder(plan).name.endswith(f"-{name}")


def test_a_run_is_called_after_its_last_config_file(tmp_path: Path) -> None:
    for file in ("base.toml", "ward 7.toml"):
        (tmp_path / file).write_text("[run]\nrounds = 3\n")
    files = [tmp_path / "base.toml", tmp_path / "ward 7.toml"]
    assert make_plan(files, [], None).settings.run.name == "ward-7"
    assert make_plan(files, ["run.name=set"], None).settings.run.name == "set"
    assert make_plan(files, [], "given").settings.run.name == "given"


def test_the_paths_among_a_models_options(tmp_path: Path) -> None:
    given = {"llm.model": "soft-labels", "llm.options": "path=labels"}
    assert absolute_paths(given, tmp_path)["llm.options"] == f"path={tmp_path / 'labels'}"
    given = {"llm.model": "tfidf", "llm.options": "c=2,rarest=3"}
    assert absolute_paths(given, tmp_path) == given
