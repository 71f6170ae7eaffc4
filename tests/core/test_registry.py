"""The registry: names that ship, registered ones, installed packages, a user's file; bad ones."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core import SettingsError, parse_run, registry
from core.errors import UserError
from core.own_code import source_digest


class Patient:
    """An agent of these tests."""

    uses = ("agent.fraction",)

    def __init__(self, most: int = 1) -> None:
        self.most = most


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder, with nothing registered; forget its modules afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(registry, "_sessions", {})
    path = list(sys.path)
    registry._declared.cache_clear()
    yield
    sys.path[:] = path
    registry._declared.cache_clear()
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def install(folder: Path, package: str, declared: str, text: str = "") -> None:
    """Install a package with an entry point, as pip would leave it on the path."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[llm_qfl.agent]\n{declared}\n")
    (folder / f"{package}.py").write_text(text)
    sys.path.insert(0, str(folder))
    registry._declared.cache_clear()


def test_what_ships_is_the_modules_of_the_folder() -> None:
    agents = (
        *("all", "bandit", "endpoint", "frugal", "greedy", "llm", "oort", "power-of-choice"),
        *("random", "regulator", "rule"),
    )
    assert registry.shipped("agent") == agents
    assert "trimmed-mean" in registry.shipped("aggregation")  # trimmed_mean.py
    assert registry.find("agent", "rule").__name__ == "RuleAgent"


@pytest.mark.parametrize("point", ["agent", "aggregation"])
def test_every_module_that_ships_hands_out_an_extension(point: str) -> None:
    for name in registry.shipped(point):
        assert callable(registry.find(point, name))


def test_a_registered_object_has_its_name() -> None:
    assert registry.register("agent", "patient", Patient) is Patient
    assert registry.find("agent", "patient") is Patient
    assert "patient" in registry.names("agent")
    registry.check_name("agent", "patient")
    assert registry.build("agent", "patient", parse_run([], [])[0], {"most": 3}).most == 3
    assert registry.declared("agent", "patient", "uses") == ("agent.fraction",)


def test_register_is_a_decorator_too_and_a_cell_may_run_twice() -> None:
    for _ in range(2):

        @registry.register("agent", "again")
        class Again: ...

    assert registry.find("agent", "again").__name__ == "Again"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "rule",
            "registered as agent 'rule', which is one that ships; accepted: a name of its own",
        ),
        ("no name", "the name 'no name' for agent.kind; accepted: letters, digits"),
        ("taken", "registered as agent 'taken', which is .*Patient; accepted: a name of its own"),
    ],
)
def test_a_bad_registration_is_one_line(name: str, message: str) -> None:
    registry.register("agent", "taken", Patient)
    with pytest.raises(SettingsError, match=message):
        registry.register("agent", name, object())


def test_there_are_five_points() -> None:
    assert list(registry.POINTS) == ["ansatz", "agent", "dataset", "aggregation", "model"]
    with pytest.raises(SettingsError, match="an extension of 'colour'; accepted: ansatz, agent"):
        registry.register("colour", "red", object())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rul", "agent.kind = 'rul'; accepted: .*rule.* or module:attribute.*mean 'rule'"),
        ("xyzzy", "agent.kind = 'xyzzy'; accepted: .*; change agent.kind"),
    ],
)
def test_an_unknown_name_is_one_line_with_those_there_are(name: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        registry.check_name("agent", name)
    with pytest.raises(SettingsError, match=message):
        registry.find("agent", name)


def test_an_entry_point_of_an_installed_package_is_found(tmp_path: Path) -> None:
    install(tmp_path / "site", "ripe_agents", "ripe = ripe_agents:Ripe", "class Ripe: ...\n")
    assert "ripe" in registry.names("agent")
    registry.check_name("agent", "ripe")
    assert registry.find("agent", "ripe").__module__ == "ripe_agents"


def test_two_packages_of_one_name_are_one_line_that_names_both(tmp_path: Path) -> None:
    for package in ("one_agents", "two_agents"):
        install(tmp_path / package, package, f"same = {package}:Same", "class Same: ...\n")
    with pytest.raises(SettingsError, match=r"(one|two)_agents \(.*\) and (one|two)_agents \(.*ha"):
        registry.find("agent", "same")


def test_a_package_that_cannot_be_imported_is_one_line(tmp_path: Path) -> None:
    install(tmp_path / "site", "sour_agents", "sour = sour_agents:Sour", "1 / 0\n")
    with pytest.raises(SettingsError, match=r"'sour': sour_agents.py, line 1 raises ZeroDiv"):
        registry.find("agent", "sour")


def write(name: str, text: str) -> None:
    Path(f"{name}.py").write_text(text)


def test_a_file_of_the_users_is_found() -> None:
    write("mine_a", "class Mine: ...\n")
    assert registry.find("agent", "mine_a:Mine").__name__ == "Mine"
    assert registry.own_file("mine_a:Mine") == Path.cwd() / "mine_a.py"
    digest = hashlib.sha256(b"class Mine: ...\n").hexdigest()
    assert source_digest("agent", "mine_a:Mine") == digest
    assert source_digest("agent", "rule") == ""
    assert registry.own_file("numpy:array") is None


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (None, "absent_m:A", "there is no module 'absent_m'; .*put absent_m.py into this folder"),
        ("", "bare_m:A", "agent.kind = 'bare_m:A': bare_m.py has no 'A'; accepted: .*decide"),
        (
            "import nowhere_x",
            "needs_m:A",
            "needs_m.py, line 1 raises ModuleNotFoundError: .*nowhere",
        ),
        ("x = 1\nraise OSError('no')", "throws_m:A", "throws_m.py, line 2 raises OSError: no"),
        ("class A(:", "broken_m:A", "broken_m.py, line 1 raises SyntaxError"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(text: str | None, name: str, message: str) -> None:
    if text is not None:
        write(name.partition(":")[0], text)
    with pytest.raises(SettingsError, match=message) as caught:
        registry.find("agent", name)
    assert "\n" not in str(caught.value)


def test_options_that_a_class_does_not_take_are_one_line() -> None:
    write("small_m", "class A:\n    def __init__(self, most=1): ...\n")
    settings, _ = parse_run([], [])
    registry.build("agent", "small_m:A", settings, {"most": 2})
    with pytest.raises(SettingsError, match=r"raises TypeError: .*unexpected keyword .*'lea"):
        registry.build("agent", "small_m:A", settings, {"least": 2})


def test_options_of_what_is_no_class_are_refused() -> None:
    registry.register("agent", "made", Patient())
    assert registry.build("agent", "made", None, {}).most == 1
    with pytest.raises(SettingsError, match=r"agent.options with agent.kind = 'made'.*remove"):
        registry.build("agent", "made", None, {"most": 2})


def test_a_users_mistake_in_from_settings_passes_as_it_is() -> None:
    class Asks:
        @staticmethod
        def from_settings(settings: Any) -> Any:
            raise UserError("no key is set")

    registry.register("agent", "asks", Asks)
    with pytest.raises(UserError, match=r"^no key is set$"):
        registry.build("agent", "asks", None, {})


def test_what_raises_is_named_by_the_users_own_line() -> None:
    write("deep_m", "import json\n\ndef read(text):\n    return json.loads(text)\n")
    found = registry.find("agent", "deep_m:read")
    with pytest.raises(ValueError, match="Expecting") as caught:
        found("{")
    error = registry.bad_extension("agent", "deep_m:read", caught.value)
    assert "deep_m.py, line 4 raises JSONDecodeError" in str(error)


def test_of_other_texts_an_open_setting_declares_nothing() -> None:
    assert registry.is_extension("aggregation", "krum")
    assert not registry.is_extension("aggregation", "FedAdam")
    assert registry.declared("aggregation", "FedAdam", "uses", ()) == ()
    assert registry.declared("aggregation", "krum", "uses") == ("aggregation.trim",)
    assert registry.users("aggregation", "aggregation.trim") == ("krum", "trimmed-mean")


def test_an_object_called_with_arguments_that_it_does_not_take_names_its_file() -> None:
    """Its traceback has no frame of the user's: the call itself fails."""
    registry.register("agent", "few", Patient)
    found = registry.bad_extension("agent", "few", TypeError("takes 1 argument but 2 were given"))
    assert "'few': test_registry.py raises TypeError: takes 1" in str(found)


def test_sessions_tell_objects_of_one_name_from_another() -> None:
    assert registry.session("agent", "again") == ""
    registry.register("agent", "again", Patient)
    first = registry.session("agent", "again")
    registry.register("agent", "again", Patient)
    assert registry.session("agent", "again") == first != ""
    registry.register("agent", "again", Patient(2), replace=True)
    assert registry.session("agent", "again") != first
