"""What a user writes in Python becomes the settings that it means, or one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import Settings, SettingsError, flatten, parse_run
from core.registry import find
from core.settings.schema import FIELDS
from llm_qfl.configuration import configure, dotted_key, extension_name
from tests.command import ROOT


def configured(config: Any = None, /, **overrides: Any) -> dict[str, Any]:
    return dict(flatten(configure(config, overrides).settings))


class Agent:
    """An agent of a test."""

    def decide(self, observation: Any) -> Any:
        return observation


@pytest.mark.parametrize("key", FIELDS)
def test_every_key_is_its_own_and_its_last_part_means_it_or_is_refused(key: str) -> None:
    assert dotted_key(key) == key
    leaf = key.partition(".")[2]
    same = [one for one in FIELDS if one.partition(".")[2] == leaf]
    if leaf in ("model", "aggregation", "agent", "dataset", "ansatz"):
        return  # an extension point's name
    if f"run.{leaf}" in FIELDS:
        assert dotted_key(leaf) == f"run.{leaf}"
    elif leaf in {one.partition(".")[0] for one in FIELDS}:
        with pytest.raises(SettingsError, match=f"{leaf}; accepted: a dict of its keys; write"):
            dotted_key(leaf)
    elif len(same) == 1:
        assert dotted_key(leaf) == key
    else:
        several = f"{leaf}, which several sections have; accepted: {', '.join(same)}; write"
        with pytest.raises(SettingsError) as error:
            dotted_key(leaf)
        assert str(error.value).startswith(several)


def test_the_same_settings_in_every_form(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[run]\nrounds = 5\n[train]\nsteps = 7\n[agent]\nkind = 'bandit'\n")
    wanted = dict(flatten(parse_run([file], [])[0]))
    tree = {"run": {"rounds": 5}, "train": {"steps": 7}, "agent": {"kind": "bandit"}}
    forms: list[dict[str, Any]] = [
        configured({"run.rounds": 5, "train.steps": 7, "agent.kind": "bandit"}),
        configured(tree),
        configured(**tree),
        configured(rounds=5, agent="bandit", **{"train.steps": 7}),
        configured({"rounds": np.int64(5)}, train={"steps": np.int32(7)}, agent="bandit"),
        configured(parse_run([file], [])[0]),
        configured([{"rounds": 9, "agent": "bandit"}, {"rounds": 5}], train={"steps": 7}),
    ]
    assert configured(file) == wanted | {"run.name": "mine"}
    wanted["run.name"] = "dna-demo"
    assert [form == wanted for form in forms] == [True] * len(forms)


def test_shipped_names_and_none() -> None:
    file = configured(ROOT / "config" / "demo.toml")
    assert configured("demo") == configured("config/demo.toml") == file
    assert configured() == dict(flatten(Settings())) | {"run.name": "dna-demo"}


def test_keywords_win_and_what_they_leave_without_effect_is_dropped_with_a_notice() -> None:
    found = configure({"agent.kind": "rule", "agent.rule": "hybrid"}, {"agent": "bandit"})
    assert found.settings.agent.kind == "bandit"
    (notice,) = found.notices
    assert notice.startswith("the configuration: agent.rule = 'hybrid' would be ignored because")
    back = configure("demo", {"stop.rule": None, "rounds": 9})
    assert back.settings.stop.rule == "none"


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        (None, {"roundz": 3}, "unknown setting 'roundz'; .* did you mean 'run.rounds'"),
        (None, {"train": 3}, r"train = 3; accepted: a dict of its keys; write for instance train="),
        (None, {"rounds": 3, "run.rounds": 4}, "run.rounds twice; accepted: a key once"),
        (None, {"rounds": "many"}, "run.rounds = 'many'; accepted: a whole number"),
        (3, {}, "config = 3; accepted: a TOML file, a shipped name such as 'demo'"),
        ("nowhere.toml", {}, "no config file 'nowhere.toml'"),
        (None, {"agent": 3}, r"agent.kind = 3; accepted: a name, or an object or class with"),
        (None, {"agent": "bandits"}, "agent.kind = 'bandits'; accepted: .*bandit, "),
        ({"rule": "hybrid"}, {}, "rule = 'hybrid', which several sections have; accepted: agent"),
    ],
)
def test_mistakes_are_one_line(config: Any, overrides: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as error:
        configure(config, overrides)
    assert "\n" not in str(error.value)


def test_lists_and_paths_are_written_as_the_settings_hold_them(tmp_path: Path) -> None:
    table = {"source": "csv", "path": tmp_path / "a.csv", "labels": ["yes", "no, not"]}
    found = configure(None, {"data": table}).settings.data
    assert found.path == str(tmp_path / "a.csv")
    assert found.labels == 'yes, "no, not"'


def test_an_object_has_a_name_in_this_process() -> None:
    first, second = Agent(), Agent()
    name = extension_name("agent", first)
    assert extension_name("agent", first) == name
    other = extension_name("agent", second)
    assert other != name
    assert (find("agent", name), find("agent", other)) == (first, second)


def make(number: int) -> type:
    class Made(Agent):
        value = number

    return Made


def test_a_class_defined_again_keeps_its_name_and_made_ones_are_told_apart() -> None:
    cell = "class Cell:\n    def decide(self, seen): ..."
    spaces: list[dict[str, Any]] = [{"__name__": "__main__"}, {"__name__": "__main__"}]
    for space in spaces:
        exec(cell, space)
    names = [extension_name("agent", space["Cell"]) for space in spaces]
    assert names == ["Cell", "Cell"]
    assert find("agent", "Cell") is spaces[1]["Cell"]
    made = make(1), make(2)
    one, two = (extension_name("agent", each) for each in made)
    assert [find("agent", name).value for name in (one, two)] == [1, 2]


def test_what_a_file_of_the_folder_defines_is_named_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    (tmp_path / "agents_of_a_test.py").write_text(
        "class Mine:\n    def decide(self, seen): ...\n\nmine = Mine()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("agents_of_a_test")
    assert extension_name("agent", module.Mine) == "agents_of_a_test:Mine"
    assert extension_name("agent", module.mine) == "Mine"  # an instance has no path of its own
