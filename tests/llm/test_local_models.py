"""Local models that are no transformer: what ships, and a user's own, good and bad."""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm
from client_app.app import _error_reply
from core import LlmSettings, SettingsError, UserError, derive_seed, parse_run, registry
from llm.cross_fitting import stratified_folds
from tests.conftest import SMALL, Federate
from tests.llm.conftest import Folders, Reviews, task_of

DNA = ("llm.epochs=3", "agent.kind=all")
"""The embedded demo without the fine-tuning settings that `SMALL` has."""


def teacher_of(
    reviews: Reviews, model: str, options: str = "", store: Path | None = None, **changes: Any
) -> llm.Teacher:
    settings = LlmSettings(model=model, options=options)
    changes = {"calibrate": False, "class_names": ("good", "bad"), **changes}
    return llm.fine_tune(task_of(reviews, settings, **changes), store)


def regression(rows: Sequence[str], labels: np.ndarray, seen: Sequence[str], dna: bool) -> Any:
    """TF-IDF and logistic regression in two steps, without a pipeline or our class."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    how: dict[str, Any] = (
        {"analyzer": "char", "ngram_range": (3, 6)} if dna else {"ngram_range": (1, 2)}
    )
    words = TfidfVectorizer(sublinear_tf=True, **how)
    model = LogisticRegression(max_iter=1000).fit(words.fit_transform(rows), labels)
    return model.predict_proba(words.transform(seen))


@pytest.mark.parametrize("kind", ["text", "dna"])
def test_tfidf_is_scikit_learns(kind: str, reviews: Reviews) -> None:
    texts, labels = reviews
    if kind == "dna":
        rng = np.random.default_rng(0)
        shares = [[0.2, 0.3, 0.5], [0.3, 0.2, 0.5]]
        texts = ["".join(rng.choice(list("ACG"), 40, p=shares[label])) for label in labels]
    teacher = teacher_of((texts, labels), "tfidf", kind=kind)
    expected = regression(texts[:32], labels[:32], texts, kind == "dna")
    np.testing.assert_allclose(teacher.soft_labels, expected[:32], atol=1e-6)
    np.testing.assert_allclose(teacher.val_probabilities, expected[32:], atol=1e-6)
    metrics = teacher.metrics
    assert (metrics["tokens"], metrics["trainable"], metrics["peft"]) == (0, 0, "none")
    assert metrics["accuracy"] == (expected[32:].argmax(axis=1) == labels[32:]).mean()


def test_tfidf_of_a_site_without_some_classes(reviews: Reviews) -> None:
    two = teacher_of(reviews, "tfidf", classes=4).soft_labels
    np.testing.assert_allclose(two.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(two[:, 2:], 1e-6, atol=1e-8)
    one = teacher_of((reviews[0], np.zeros(48, int)), "tfidf").soft_labels
    np.testing.assert_allclose(one, [[1 - 1e-6, 1e-6]] * 32, atol=1e-7)


def test_tfidf_options(reviews: Reviews) -> None:
    usual = teacher_of(reviews, "tfidf").soft_labels
    firm = teacher_of(reviews, "tfidf", "c=100,longest=1").soft_labels
    assert firm.max() > usual.max()
    for options in ("c=0", "shortest=3,longest=2", "rarest=0", "c=much", "shortest=x"):
        with pytest.raises(SettingsError, match="shortest <= longest, c above 0"):
            teacher_of(reviews, "tfidf", options)
    with pytest.raises(
        SettingsError, match=r"'width' for llm\.model = 'tfidf'; accepted: shortest, "
    ):
        teacher_of(reviews, "tfidf", "width=3")


def test_cross_fitted_tfidf_has_not_seen_the_rows_that_it_labels(reviews: Reviews) -> None:
    texts, labels = reviews[0][:32], reviews[1][:32]
    task = task_of(reviews, LlmSettings(model="tfidf"), calibrate=False)
    found = llm.cross_fit(task, 4).soft_labels
    rng = np.random.default_rng(derive_seed(task.seed, "folds"))
    for part in stratified_folds(labels, 4, rng):
        others = np.setdiff1d(np.arange(32), part)
        rows, seen = ([texts[row] for row in which] for which in (others, part))
        expected = regression(rows, labels[others], seen, dna=False)
        np.testing.assert_allclose(found[part], expected, atol=1e-6)


class Memory:
    """Is certain of the rows that it was fitted to, and knows nothing of others."""

    fits = 0

    def fit(self, rows: list[str], labels: np.ndarray, *rest: Any) -> None:
        Memory.fits += 1
        self.known = dict(zip(rows, labels, strict=True))
        self.classes = rest[2]

    def soft_labels(self, rows: list[str]) -> np.ndarray:
        eye, flat = np.eye(self.classes), np.full(self.classes, 1 / self.classes)
        return np.array([eye[self.known[row]] if row in self.known else flat for row in rows])


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> type[Memory]:
    monkeypatch.setitem(registry._registered, ("model", "memory"), Memory)
    monkeypatch.setattr(Memory, "fits", 0)
    return Memory


@pytest.mark.usefixtures("memory")
def test_a_fold_knows_none_of_its_own_rows() -> None:
    rows = [f"row {number}" for number in range(48)], np.arange(48) % 2
    task = task_of(rows, LlmSettings(model="memory"), calibrate=False)
    np.testing.assert_allclose(llm.cross_fit(task, 4).soft_labels, 0.5)
    assert llm.fine_tune(task).soft_labels.max(axis=1).min() > 0.999
    few = task_of(rows, LlmSettings(model="memory", rows=8), calibrate=False)
    assert (llm.fine_tune(few).soft_labels.max(axis=1) > 0.999).sum() == 8


def test_the_store_follows_rows_options_and_seed(
    memory: type[Memory], reviews: Reviews, tmp_path: Path
) -> None:
    first = teacher_of(reviews, "memory", store=tmp_path)
    again = teacher_of(reviews, "memory", store=tmp_path)
    assert (first.metrics["reused"], again.metrics["reused"], memory.fits) == (False, True, 1)
    np.testing.assert_array_equal(again.soft_labels, first.soft_labels)
    teacher_of(reviews, "memory", store=tmp_path, seed=5)
    assert memory.fits == 2
    for options, reused in (("c=2", False), ("c=3", False), ("c=2", True)):
        assert teacher_of(reviews, "tfidf", options, tmp_path).metrics["reused"] is reused


# Precomputed soft labels


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def table(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the different texts and their probabilities of good and bad."""
    different = sorted(set(texts))
    bad = np.linspace(0, 1, len(different))
    return different, np.stack([1 - bad, bad], axis=1)


def write(file: Path, key: str, texts: Sequence[str], columns: dict[str, Any]) -> None:
    import pandas as pd

    names = [sha256(text) if key == "sha256" else text for text in texts]
    data = pd.DataFrame({key: names, **columns})
    if file.suffix == ".parquet":
        data.to_parquet(file)
    elif file.suffix == ".npz":
        classes = np.array(list(columns))
        values = np.stack(list(columns.values()), axis=1)
        arrays: dict[str, Any] = {key: np.array(names), "classes": classes}
        np.savez(file, **arrays, probabilities=values)
    else:
        data.to_csv(file, index=False, sep="\t" if file.suffix == ".tsv" else ",")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".npz"])
@pytest.mark.parametrize("key", ["text", "sha256"])
def test_soft_labels_are_those_of_the_file(
    suffix: str, key: str, reviews: Reviews, tmp_path: Path
) -> None:
    texts, values = table(reviews[0])
    half = len(texts) // 2
    for name, part in (("a", slice(None, half)), ("b", slice(half, None))):
        columns = {"bad": values[part, 1], "good": values[part, 0]}  # not in the classes' order
        write(tmp_path / f"{name}{suffix}", key, texts[part], columns)
    expected = [values[texts.index(text)] for text in reviews[0]]
    teacher = teacher_of(reviews, "soft-labels", f"path={tmp_path}")
    np.testing.assert_allclose(teacher.soft_labels, expected[:32], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(teacher.val_probabilities, expected[32:], rtol=1e-6, atol=1e-12)
    from llm.local_models.soft_labels import SoftLabels

    model = SoftLabels(str(tmp_path), llm.ModelContext(class_names=("good", "bad")))
    model.fit([], np.zeros(0), [], np.zeros(0), 2, 0)
    np.testing.assert_array_equal(model.soft_labels(reviews[0]), expected)


def good(texts: Sequence[str], values: np.ndarray) -> dict[str, Any]:
    return {"good": values[:, 0], "bad": values[:, 1]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t, v: (t[1:], good(t, v[1:])),
            r"no soft label of \d+ of 32 rows, the first begins",
        ),
        (lambda t, v: ([*t, t[0]], good(t, np.vstack([v, [0.5, 0.5]]))), "two soft labels of one"),
        (lambda t, v: (t, {"good": v[:, 0]}), "columns text, good; accepted: .*: good, bad"),
        (lambda t, v: (t, {**good(t, v), "sure": v[:, 0]}), "columns text, good, bad, sure;"),
        (lambda t, v: (t, {"good": ["high"] * len(t), "bad": v[:, 1]}), "could not convert"),
        (lambda t, v: (t, good(t, 2 * v)), "row 0 as .*; accepted: probabilities of at least 0"),
    ],
)
def test_bad_tables_are_one_line(
    change: Callable[..., Any], message: str, reviews: Reviews, tmp_path: Path
) -> None:
    texts, columns = change(*table(reviews[0]))
    write(tmp_path / "labels.csv", "text", texts, columns)
    with pytest.raises(UserError, match=message) as raised:
        teacher_of(reviews, "soft-labels", f"path={tmp_path}")
    assert "\n" not in str(raised.value)


def test_a_table_that_is_not_there(reviews: Reviews, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.npz").write_text("no archive")
    for options, message in (
        ("", "without llm.options; accepted: a file"),
        ("path=nowhere", "'path=nowhere': there is no such file or folder"),
        (f"path={tmp_path / 'empty'}", "a folder without .csv"),
        (f"path={tmp_path / 'broken.npz'}", "cannot be read"),
    ):
        with pytest.raises(UserError, match=message):
            teacher_of(reviews, "soft-labels", options)


# Whole runs


def test_a_run_with_tfidf(federate: Federate) -> None:
    ran = federate(*DNA, "llm.model=tfidf", "distill.folds=3")
    assert ran.summary["status"] == "completed"
    assert {teacher["epochs"] for teacher in ran.summary["teachers"]} == {0}
    assert all(teacher["accuracy"] > 0.7 for teacher in ran.summary["teachers"])
    assert ran.summary["ledger"]["llm_tokens"] == 0


def test_a_run_with_the_files_of_another_model(federate: Federate, tmp_path: Path) -> None:
    """Files that say what is true make perfect teachers, at any site and in any split."""
    from data import load_federation

    settings, _ = parse_run([], [*SMALL, *DNA])
    server, sites = load_federation(settings)
    folder = tmp_path / "labels"
    folder.mkdir()
    for number, site in enumerate(sites):
        with (folder / f"{number}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["sha256", *server.classes])
            for part in (site.train, site.validation):
                for text, label in zip(part.texts, part.labels, strict=True):
                    rows.writerow([sha256(text), *np.eye(len(server.classes))[label]])
    options = (f"llm.options=path={folder}", "distill.calibrate=false")
    ran = federate(*DNA, "llm.model=soft-labels", *options)
    assert [teacher["accuracy"] for teacher in ran.summary["teachers"]] == [1, 1, 1]


@pytest.mark.usefixtures("own_folder")
def test_texts_need_an_encoder_beside_a_teacher_that_embeds_nothing(
    federate: Federate, reviews: Reviews, model_folder: Folders, tmp_path: Path
) -> None:
    with (tmp_path / "reviews.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        rows.writerows(zip(reviews[0], map(["good", "bad"].__getitem__, reviews[1]), strict=True))
    text = ("data.source=csv", f"data.path={tmp_path / 'reviews.csv'}", "data.train_rows=0")
    given = (*DNA, *text, "data.test_rows=0", "data.server_rows=0", "llm.model=tfidf")
    ran = federate(*given, f"llm.encoder={model_folder('bert')}", "run.clients=2")
    assert ran.summary["status"] == "completed"
    assert {one["llm"] for one in ran.events("prepared")[0]["clients"]} == {
        f"tfidf, embeddings by {model_folder('bert')}"
    }
    with pytest.raises(UserError, match=r"llm\.encoder or|change .*llm\.encoder"):
        federate(*given)


# A user's own


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder of the user's own; what was imported from it is forgotten."""
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


OWN = '''
import numpy as np

class Own:
    """Counts a letter."""

    def __init__(self, letter="A"):
        self.letter = letter

    def fit(self, rows, labels, validation_rows, validation_labels, classes, seed):
        assert isinstance(rows, list) and isinstance(labels, np.ndarray)
        self.share = self.embed(rows)[:, 0]
        self.middle = [self.share[labels == label].mean() for label in range(classes)]

    def soft_labels(self, rows):
        far = np.abs(self.embed(rows)[:, :1] - self.middle)
        near = np.exp(-20 * far)
        return near / near.sum(axis=1, keepdims=True)

    def embed(self, rows):
        words = (self.letter, "C", "G", "AC", "GT")
        return np.array([[row.count(word) / len(row) for word in words] for row in rows])
'''


def test_an_own_model_teaches_and_makes_the_features(own_folder: Path, federate: Federate) -> None:
    (own_folder / "mine_model.py").write_text(OWN)
    given = (*DNA, "llm.model=mine_model:Own", "features.kind=embedding", "llm.options=letter=T")
    ran = federate(*given, "distill.features=50")
    assert ran.summary["status"] == "completed"
    (prepared,) = ran.events("prepared")
    assert prepared["features"] == "embedding, 5 -> 4 (lda)"
    assert {one["llm"] for one in prepared["clients"]} == {"mine_model:Own"}
    # Another option, another model: its features are not the others'.
    with pytest.raises(UserError, match="clients disagree on encoder"):
        federate(*given, node_configs={1: {"llm.options": "letter=A"}})


def test_a_trained_model_needs_the_file_of_its_features_only(
    own_folder: Path, federate: Federate
) -> None:
    import llm_qfl

    file = own_folder / "mine_gone.py"
    rows = ["ACGT" * 20, "AAGT" * 20]
    for given, needed in ((), False), (("features.kind=embedding",), True):
        file.write_text(OWN)
        importlib_invalidate()
        folder = federate(*DNA, "llm.model=mine_gone:Own", *given).folder
        assert len(llm_qfl.load(folder).predict(rows)) == 2
        file.unlink()
        sys.modules.pop("mine_gone", None)
        importlib_invalidate()
        if not needed:
            assert len(llm_qfl.load(folder).predict(rows)) == 2
            continue
        with pytest.raises(UserError, match="mine_gone"):
            llm_qfl.load(folder).predict(rows)


def test_another_source_is_another_model(own_folder: Path) -> None:
    found = []
    for text in (OWN, OWN.replace("20", "30")):
        (own_folder / "mine_other.py").write_text(text)
        sys.modules.pop("mine_other", None)
        importlib_invalidate()
        settings = parse_run([], ["llm.model=mine_other:Own"])[0]
        found.append(llm.common_identity(settings, "dna", embeds=True))
    assert found[0] != found[1]


def importlib_invalidate() -> None:
    import importlib
    import shutil

    importlib.invalidate_caches()
    shutil.rmtree("__pycache__", ignore_errors=True)


TEMPLATE = """
import numpy as np

class Bad:
    def fit(self, rows, labels, validation_rows, validation_labels, classes, seed):
        {fit}

    def soft_labels(self, rows):
        p = np.full((len(rows), 2), 0.5)
        {soft}
"""


@pytest.mark.parametrize(
    ("fit", "soft", "message"),
    [
        ("pass", "return p[1:]", r"soft_labels returns an array of shape \(31, 2\)"),
        ("pass", "return p[:, :1]", r"of shape \(32, 1\); accepted: \(32, 2\) probabilities"),
        ("pass", "return p[:, 0]", r"of shape \(32,\)"),
        ("pass", "p[3] = -1, 2; return p", "row 3 as -1, 2; accepted: probabilities of at least 0"),
        ("pass", "p[4] = .5, .6; return p", "row 4 as 0.5, 0.6; .* that add up to 1"),
        ("pass", "p[5] = np.nan; return p", "row 5 with a number that is not finite"),
        ("pass", "return 'many'", "returns a str; accepted"),
        ("pass", "return None", "soft_labels"),
        ("pass", "return 1 / 0", "mine_bad.py, line 10 raises ZeroDivisionError"),
        ("raise KeyError('x')", "return p", "mine_bad.py, line 6 raises KeyError"),
        ("return {'tokens': 'many'}", "return p", "fit returns tokens = 'many'"),
        ("return", "return self.nothing", "mine_bad.py, line 10 raises AttributeError"),
    ],
)
def test_a_bad_model_is_one_line_that_names_its_file(
    own_folder: Path, reviews: Reviews, fit: str, soft: str, message: str
) -> None:
    (own_folder / "mine_bad.py").write_text(TEMPLATE.format(fit=fit, soft=soft))
    with pytest.raises(UserError, match=message) as raised:
        teacher_of(reviews, "mine_bad:Bad")
    line = str(raised.value)
    assert "\n" not in line
    assert line.startswith("llm.model = 'mine_bad:Bad': mine_bad.py")


def test_what_may_quote_a_row_stays_on_the_machine(
    own_folder: Path, reviews: Reviews, tmp_path: Path
) -> None:
    (own_folder / "mine_bad.py").write_text(
        TEMPLATE.format(fit="raise KeyError(rows[0])", soft="return p")
    )
    texts, columns = table(reviews[0])
    write(tmp_path / "labels.csv", "text", texts[1:], good(texts[1:], columns[1:]))
    tried = {reviews[0][0]: ("mine_bad:Bad", ""), texts[0]: ("soft-labels", f"path={tmp_path}")}
    for row, (model, options) in tried.items():
        with pytest.raises(UserError) as raised:
            teacher_of(reviews, model, options)
        error = raised.value
        assert row in str(error)
        assert "; accepted: " in error.elsewhere
        reason = _error_reply(error).reason
        assert reason == error.elsewhere
        assert row not in reason


def test_a_model_without_its_methods(own_folder: Path, federate: Federate) -> None:
    (own_folder / "mine_half.py").write_text("class Half:\n    def fit(self, *rest): pass\n")
    message = r"mine_half\.py: there is no soft_labels; accepted: .*fit\(rows, labels"
    with pytest.raises(UserError, match=message):
        federate(*DNA, "llm.model=mine_half:Half")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("llm.model=tfidf", "llm.rank=4"), "llm.rank = 4 would be ignored because llm.model ="),
        (
            ("llm.model=tfidf", "llm.peft=lora"),
            '"dna-tiny" or "minilm" or "smollm2" or a hub id or folder',
        ),
        (("llm.model=tfidf", "llm.federated=ffa"), "llm.federated = 'ffa' would be ignored"),
        (("llm.model=tfidf", "llm.max_tokens=9"), "or llm.encoder is a model's name"),
        (("llm.model=tfidf", "distill.features=5"), "a model that embeds"),
        (("llm.model=tfidf", "features.kind=embedding"), "change features.kind or llm.encoder"),
        (("llm.model=tfidf", "data.source=tweet-eval"), "change data.source or llm.encoder"),
        (("llm.model=soft-labels", "distill.folds=3"), "a model that is fitted"),
        (("llm.model=soft-labels", "llm.rows=30"), "a model that is fitted"),
        (("llm.model=gpt2", "llm.options=c=1"), "soft-labels, tfidf or your own"),
        (("llm.encoder=mine:Own",), "an own file is named by llm.model"),
    ],
)
def test_settings_that_such_a_model_does_not_read_are_refused(
    given: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_run([], given)
