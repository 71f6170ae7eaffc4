"""Which files of the user's own travel with a run, and which are refused: one line each."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from core import Settings, SettingsError, own_code, own_modules, registry
from llm_qfl.cli.children import call_module

Files = Callable[..., dict[str, Path]]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """Write files into the user's folder; return what travels with a run that names some."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def made(*named: str, **texts: str) -> dict[str, Path]:
        for name, text in texts.items():
            path = tmp_path / (name if "." in name else f"{name}.py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        keys = {f"point-{place}": name for place, name in enumerate(named)}
        monkeypatch.setattr(own_code, "own_names", lambda settings: keys)
        return own_code.own_files(Settings())

    return made


def test_a_file_travels_with_what_it_imports_from_its_folder(files: Files, tmp_path: Path) -> None:
    first = "import json, oc_b\ndef late():\n    from oc_c.deep import x\n"
    found = files(
        "oc_a:A", oc_a=first, **{"oc_b": "import oc_a", "oc_c/__init__": "", "oc_c/deep": ""}
    )
    assert list(found) == ["oc_a.py", "oc_b.py", "oc_c/__init__.py", "oc_c/deep.py"]
    assert found["oc_b.py"] == tmp_path / "oc_b.py"


def test_a_package_travels_whole_but_for_tests_and_what_flower_drops(files: Files) -> None:
    texts = {"oc_p/__init__": "", "oc_p/in/deep": "", "oc_p/test_x": "", "oc_p/.hidden.py": ""}
    texts |= {"oc_p/table.json": "{}", "oc_p/rows.csv": "1"}
    found = files("oc_p.in.deep:x", **texts)
    assert list(found) == ["oc_p/__init__.py", "oc_p/in/deep.py", "oc_p/table.json"]


def test_installed_packages_and_our_own_do_not_travel(files: Files) -> None:
    assert files("numpy:array", "core.registry:POINTS", "json:loads") == {}


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("data", "data.py has the name of .*data/__init__.py"),
        ("json", "json.py has the name of .*json/__init__.py"),
        ("sys", "sys.py has the name of Python's own sys"),
        ("numpy", "numpy.py has the name of .*numpy/__init__.py"),
        ("test_mine", "test_mine.py does not travel"),
    ],
)
def test_a_name_that_something_else_has_is_one_line(
    name: str, printed: str, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [place for place in sys.path if place != os.getcwd()])
    with pytest.raises(SettingsError, match=printed) as refused:
        files(f"{name}:X", **{name: ""})
    assert "\n" not in str(refused.value)


def test_links_and_large_files_are_refused(files: Files, tmp_path: Path) -> None:
    (tmp_path / "oc_l.py").symlink_to(tmp_path / "elsewhere.py")
    (tmp_path / "elsewhere.py").write_text("")
    with pytest.raises(SettingsError, match=r"oc_l\.py is a link"):
        files("oc_l:X")
    with pytest.raises(SettingsError, match=r"oc_m\.py has 1,048,577 bytes"):
        files("oc_m:X", oc_m="#" * (2**20 + 1))
    parts = {f"oc_q/part_{k}": "#" * 2**20 for k in range(4)}
    assert len(files("oc_q:X", **{"oc_q/__init__": "", **parts})) == 5
    with pytest.raises(SettingsError, match=r"4,194,305 bytes in all"):
        files("oc_q:X", **{"oc_q/__init__": "#", **parts})


def test_a_named_module_that_another_stands_for_is_refused_when_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numpy.py").write_text("class Mine: ...")
    with pytest.raises(SettingsError, match=re.escape("'numpy:Mine': numpy.py has the name of")):
        registry.find("agent", "numpy:Mine")


def test_our_packages_are_those_that_the_registry_knows() -> None:
    from llm_qfl.cli.shipped import APP

    assert {*APP, "llm_qfl"} == set(own_modules.PACKAGES)


def test_in_an_app_that_flower_has_unpacked_its_file_is_the_user_s(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`flwr run .` starts in the project's folder, and imports from the unpacked app."""
    app = tmp_path / "apps" / "me.mine.0.1.0"
    files("oc_s:X", **{"oc_s": "", "apps/me.mine.0.1.0/oc_s.py": "X = 7"})
    (app / "pyproject.toml").write_text("")
    monkeypatch.setattr(sys, "path", [str(app), *sys.path])
    assert files("oc_s:X") == {"oc_s.py": app / "oc_s.py"}
    assert registry.find("agent", "oc_s:X") == 7
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(app), *sys.path])  # as Ray's workers do
    monkeypatch.delitem(sys.modules, "oc_s")
    (tmp_path / "oc_s.py").write_text("X = 8")
    assert registry.find("agent", "oc_s:X") == 8
    monkeypatch.delitem(sys.modules, "oc_s")


def test_the_record_has_each_file_s_sha256(files: Files, tmp_path: Path) -> None:
    files("oc_r:X", oc_r="")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert own_code.digests(Settings()) == {"oc_r.py": empty}


def test_a_module_that_the_launcher_calls_is_ours_in_any_folder(files: Files) -> None:
    files(core="raise RuntimeError('not ours')", data="raise RuntimeError('not ours')")
    assert call_module("core.settings.reference", ["--check"], failed="it failed") == ""


def test_a_digest_is_of_a_file_and_of_what_it_imports_from_its_folder(files: Files) -> None:
    files("oc_t:X", oc_t="from oc_u import X\n", oc_u="X = 1\n")
    before = own_code.source_digest("agent", "oc_t:X")
    assert own_code.source_digest("agent", "oc_t:X") == before
    files("oc_t:X", oc_u="X = 22\n")
    assert own_code.source_digest("agent", "oc_t:X") != before


def test_edited_files_are_imported_again_by_the_next_run(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.model_validate({"agent": {"kind": "oc_v:X"}})
    files("oc_v:X", oc_v="from oc_w import X\n", oc_w="X = [1]\n")
    own_code.load_extensions(settings)
    first = registry.find("agent", "oc_v:X")
    own_code.load_extensions(settings)
    assert registry.find("agent", "oc_v:X") is first  # nothing was edited
    files("oc_v:X", oc_w="X = [2, 2]\n")
    assert registry.find("agent", "oc_v:X") is first  # a run that goes on has its own still
    own_code.load_extensions(settings)
    assert registry.find("agent", "oc_v:X") == [2, 2]
    for name in ("oc_v", "oc_w"):
        monkeypatch.delitem(sys.modules, name)
