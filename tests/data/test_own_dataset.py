"""A data set of the user's own: its function, what it returns, and every mistake in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import DataError, SettingsError, UserError, parse_run
from data import Dataset, ServerData, Site, load_federation, load_site

WORDS = tuple(f"row {i}" for i in range(40))
HALF = [i % 2 for i in range(40)]
FEW = ("data.server_rows=4", "run.clients=2")

FILE = """
from llm_qfl import Dataset

WORDS = [f"row {i}" for i in range(40)]
HALF = [i % 2 for i in range(40)]


def make(rows=40, test=0, seed=0, where="row"):
    more = ([f"new {i}" for i in range(test)], HALF[:test]) if test else None
    return Dataset((WORDS[:rows], HALF[:rows]), more, classes=["no", "yes"], name=f"seed {seed}")


def of_settings(settings):
    return Dataset(([f"{settings.path} {i}" for i in range(40)], HALF), classes=["no", "yes"])


of_settings.uses = ("data.path", "data.per_site", "data.labels")
of_settings.kind = "text"


def by_site():
    return Dataset((WORDS, HALF), sites=[f"s{i % 3}" for i in range(40)])


def raises():
    return [][1]


def lengths():
    return Dataset((WORDS, HALF[:3]))


def wrong():
    return WORDS, HALF


def by_chance():
    import numpy as np

    order = np.random.default_rng().permutation(40)
    return Dataset(([WORDS[i] for i in order], [str(HALF[i]) for i in order]))


NOTHING = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with a file of one's own; each test has a module of its own name."""
    (tmp_path / f"{tmp_path.name}.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def load(folder: Path, attribute: str, *given: str) -> tuple[ServerData, tuple[Site, ...]]:
    chosen = [f"data.source={folder.name}:{attribute}", *FEW, *given]
    return load_federation(parse_run([], chosen)[0])


def test_rows_labels_and_splits(folder: Path) -> None:
    server, sites = load(folder, "make", "run.seed=7")
    assert (server.name, server.kind, server.classes) == ("seed 7", "text", ("no", "yes"))
    assert len(server.test) == 8
    parts = [part for site in sites for part in (site.train, site.validation)]
    held = [*parts, server.validation, server.test]
    assert sorted(text for part in held for text in part.texts) == sorted(WORDS)
    for part in held:
        assert part.labels.tolist() == [int(text.split()[1]) % 2 for text in part.texts]


def test_every_site_calls_it_and_finds_its_own_share(folder: Path) -> None:
    chosen = [f"data.source={folder.name}:make", *FEW, "data.options=rows=20,test=6"]
    settings = parse_run([], chosen)[0]
    server, sites = load_federation(settings)
    assert sorted(server.test.texts) == sorted(f"new {i}" for i in range(6))
    for client in range(2):
        assert load_site(settings, client, 2)[1].train.texts == sites[client].train.texts


def test_it_may_read_settings_that_it_declares(folder: Path) -> None:
    server, _ = load(folder, "of_settings", "data.path=here")
    assert all(text.startswith("here ") for text in server.test.texts)
    own = ["data.per_site=true", "data.labels=no,yes", "evaluation.mode=federated"]
    chosen = [f"data.source={folder.name}:of_settings", "data.path=ward-{client}", *own]
    settings = parse_run([], [*chosen, "run.clients=2"])[0]
    for client in range(2):
        texts = load_site(settings, client, 2)[1].train.texts
        assert all(text.startswith(f"ward-{client} ") for text in texts)


def test_sites_of_its_own(folder: Path) -> None:
    _, sites = load(folder, "by_site", "data.partition=column", "run.clients=3")
    for number, site in enumerate(sites):
        assert {int(text.split()[1]) % 3 for text in site.train.texts} == {number}
    with pytest.raises(DataError, match=r"3 different values in the partition column for 2 client"):
        load(folder, "by_site", "data.partition=column")
    with pytest.raises(
        DataError, match=r"data.partition = column .*; accepted: .* names its sites"
    ):
        load(folder, "make", "data.partition=column")


@pytest.mark.parametrize(
    ("attribute", "given", "line"),
    [
        (
            "raises",
            "",
            r"{name}.py, line \d+ raises IndexError: list index out of range; accepted: ",
        ),
        (
            "lengths",
            "",
            r"train of a Dataset has 40 rows and 3 labels; accepted: as many labels as",
        ),
        (
            "by_chance",
            "",
            r"returns other rows, or another order, at each call; accepted: the same",
        ),
        ("wrong", "", r"returns of the type tuple; accepted: a function that returns a llm_qfl.Da"),
        ("NOTHING", "", r"is a number; accepted: a function that returns a Dataset"),
        ("absent", "", r"{name}.py has no 'absent'; accepted: a function"),
        (
            "make",
            "data.options=colour=red",
            r"unexpected .*'colour'.*; accepted: rows, test, where",
        ),
        ("make", "data.options=rows", r"data.options = 'rows' with the part 'rows'; accepted: key"),
        ("make", "data.options=rows=many", r"{name}.py, line \d+ raises TypeError"),
        ("make", "data.options=rows=1", r"1 training rows for 2 classes"),
        (
            "make",
            "data.path=x",
            r"data.path = 'x' would be ignored because data.source = '{name}:mak",
        ),
        (
            "make",
            "data.options=test=4 data.test_fraction=0.4",
            r"ignored because seed 0 has test ro",
        ),
        (
            "of_settings",
            "features.kind=kmer",
            r"'kmer' with data.source = .*not a set of texts \(k-mers",
        ),
    ],
)
def test_a_mistake_is_one_line(folder: Path, attribute: str, given: str, line: str) -> None:
    with pytest.raises(UserError, match=line.replace("{name}", folder.name)) as caught:
        load(folder, attribute, *given.split())
    assert "\n" not in str(caught.value)
    assert "; accepted: " in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"train": [WORDS]}, "train of a Dataset is a list; accepted: a pair"),
        ({"train": None}, "train of a Dataset is null; accepted: a pair"),
        ({"train": ([], [])}, "train of a Dataset has 0 rows and 0 labels"),
        ({"train": ("text", "ab")}, "train of a Dataset has 0 rows and 0 labels"),
        ({"test": (["a"], [])}, "test of a Dataset has 1 rows and 0 labels"),
        (
            {"train": (["a", 3], [0, 1])},
            "row 2 of train of a Dataset is a number; accepted: a text",
        ),
        (
            {"train": (["a", "b"], [0, 1.5])},
            "train, row 2: 'label' is a number; accepted: a string",
        ),
        ({"validation": (["a"], [None])}, "validation, row 1: 'label' is null"),
        ({"sites": ["east"]}, "train of a Dataset has 40 rows and 1 sites"),
        ({"kind": "image"}, "kind of a Dataset .*; accepted: 'text' or 'dna'"),
        ({"classes": ["one"]}, "classes of a Dataset are fewer than two names"),
        ({"classes": "no"}, "classes of a Dataset are fewer than two names"),
        ({"classes": ["no", "no"]}, "classes of a Dataset have 'no' twice; accepted: a name once"),
        ({"classes": {0: "no", 1: "no"}}, "classes of a Dataset have 'no' twice"),
    ],
)
def test_a_data_set_is_checked_where_it_is_made(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(DataError, match=line):
        Dataset(**({"train": (WORDS, HALF)} | fields))


@pytest.mark.parametrize(
    ("labels", "classes", "names"),
    [
        (HALF, None, None),
        (np.array(HALF), ["no", "yes"], {"0": "no", "1": "yes"}),
        ([bool(label) for label in HALF], None, None),
        (["no", "yes"] * 20, ["no", "yes"], {"no": "no", "yes": "yes"}),
        (["0", "1"] * 20, {0: "no", "1": "yes"}, {"0": "no", "1": "yes"}),
    ],
)
def test_labels_and_names_of_classes(labels: Any, classes: Any, names: Any) -> None:
    made = Dataset((np.array(WORDS), labels), classes=classes)
    assert made.names == names
    assert len(set(made.parts["train"].labels)) == 2


def test_a_label_that_no_class_has(folder: Path) -> None:
    (folder / f"{folder.name}_b.py").write_text(
        "from llm_qfl import Dataset\n\n\ndef make():\n"
        "    return Dataset((['a', 'b', 'c'], [0, 1, 2]), classes=['no', 'yes'])\n"
    )
    with pytest.raises(DataError, match=r"train, row 3: a label that is not among the 2 classes"):
        load_federation(parse_run([], [f"data.source={folder.name}_b:make"])[0])
    with pytest.raises(
        SettingsError, match=r"data.options = 'a=1' would be ignored because data.s"
    ):
        parse_run([], ["data.options=a=1"])
