"""TweetEval and Genomic Benchmarks: folders in their layout, and the hub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import data.readers.hub
from core import DataError, DataSettings
from data import load_corpus

REAL = Path(__file__).parents[3] / "shared" / "data"


def tweets(folder: Path) -> Path:
    """Write a small task in upstream's layout; one tweet holds other line separators."""
    task = folder / "sentiment"
    task.mkdir()
    (task / "mapping.txt").write_text("0\tnegative\n1\tneutral\n2\tpositive\n")
    for split in ("train", "val", "test"):
        texts = ["so bad", "a\u2028b \x85 c", "it is Tuesday", "great é"]
        (task / f"{split}_text.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
        (task / f"{split}_labels.txt").write_text("0\n1\n1\n2\n")
    return task


def genome(folder: Path, name: str = "demo_human_or_worm") -> Path:
    """Write a small set in the layout of Genomic Benchmarks."""
    place = folder / name
    place.mkdir()
    for split in ("train", "test"):
        (place / f"{split}.csv").write_text("seq,label\nACGTN,0\nacgt,1\nTTTT,0\n")
    return place


def load(source: str, path: Path, **others: Any) -> Any:
    return load_corpus(DataSettings(source=source, path=str(path), **others), 0)


def test_tweet_eval_from_the_task_folder_or_above(tmp_path: Path) -> None:
    task = tweets(tmp_path)
    for path in (task, tmp_path):
        corpus = load("tweet-eval", path)
        assert corpus.name == "TweetEval sentiment"
        assert corpus.kind == "text"
        assert corpus.classes == ("negative", "neutral", "positive")
        assert corpus.train.texts[1] == "a\u2028b \x85 c"
        assert corpus.train.labels.tolist() == [0, 1, 1, 2]
        assert corpus.validation is not None


def test_tweet_eval_other_task(tmp_path: Path) -> None:
    tweets(tmp_path).rename(tmp_path / "emotion")
    assert load("tweet-eval", tmp_path, task="emotion").name == "TweetEval emotion"
    (tmp_path / "stance").mkdir()
    (tmp_path / "emotion").rename(tmp_path / "stance" / "climate")
    assert len(load("tweet-eval", tmp_path, task="stance_climate").train) == 4


def test_tweet_eval_missing_folder_and_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist; accepted: a folder"):
        load("tweet-eval", tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no train_text.txt in .*; accepted: .* mapping.txt"):
        load("tweet-eval", tmp_path)
    (tweets(tmp_path) / "val_labels.txt").unlink()
    with pytest.raises(DataError, match=r"val_labels.txt does not exist"):
        load("tweet-eval", tmp_path)


def test_tweet_eval_count_mismatch(tmp_path: Path) -> None:
    (tweets(tmp_path) / "test_labels.txt").write_text("0\n1\n")
    with pytest.raises(
        DataError, match=r"4 lines in test_text.txt, 2 in test_labels.txt; accepted: as many"
    ):
        load("tweet-eval", tmp_path)


@pytest.mark.parametrize("value", ["3", "-1", "good"])
def test_tweet_eval_unknown_label(tmp_path: Path, value: str) -> None:
    (tweets(tmp_path) / "train_labels.txt").write_text(f"0\n1\n{value}\n2\n")
    with pytest.raises(
        DataError,
        match=r"train_labels.txt, line 3: a label that is not among the 3 .*; accepted: 0, 1, 2",
    ):
        load("tweet-eval", tmp_path)


def test_tweet_eval_undecodable_text(tmp_path: Path) -> None:
    (tweets(tmp_path) / "train_text.txt").write_bytes(b"one\ntwo\nthr\xe9e\nfour\n")
    with pytest.raises(
        DataError, match=r"train_text.txt, line 3: byte 0xe9 at position 11 is not UTF-8"
    ):
        load("tweet-eval", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "0 negative\n2 positive\n",
            r"mapping.txt numbers or names its 2 labels otherwise; accepted: 0, 1, 2",
        ),
        ("negative 0\n", r"mapping.txt, line 1: not a label and a name; accepted: label, tab"),
        ("", r"mapping.txt is empty"),
    ],
)
def test_tweet_eval_bad_mapping(tmp_path: Path, text: str, message: str) -> None:
    (tweets(tmp_path) / "mapping.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        load("tweet-eval", tmp_path)


def test_genomic_folder(tmp_path: Path) -> None:
    corpus = load("genomic", genome(tmp_path))
    assert corpus.name == "demo_human_or_worm"
    assert corpus.kind == "dna"
    assert corpus.classes == ("human", "worm")
    assert corpus.train.texts == ("ACGTN", "ACGT", "TTTT")
    assert corpus.validation is None


def test_genomic_labels_of_another_set(tmp_path: Path) -> None:
    assert load("genomic", genome(tmp_path, "promoters")).classes == ("0", "1")


def test_genomic_missing_folder_file_and_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is not a folder; accepted: .* train.csv"):
        load("genomic", tmp_path / "nowhere")
    place = genome(tmp_path)
    (place / "train.csv").write_text("sequence,label\nACGT,0\n")
    with pytest.raises(DataError, match=r"no column 'seq'; accepted: .*: sequence, label"):
        load("genomic", place)
    (place / "test.csv").unlink()
    (place / "train.csv").write_text("seq,label\nACGT,0\nACGT,1\n")
    with pytest.raises(DataError, match=r"test.csv does not exist; accepted: a folder with t"):
        load("genomic", place)


def test_genomic_other_letters(tmp_path: Path) -> None:
    place = genome(tmp_path)
    (place / "test.csv").write_text("seq,label\nACGT,0\nACRT,1\n")
    with pytest.raises(DataError, match=r"test.csv, line 3: letter 'R' in a DNA sequence"):
        load("genomic", place)


def test_genomic_test_label_that_training_rows_lack(tmp_path: Path) -> None:
    place = genome(tmp_path)
    (place / "test.csv").write_text("seq,label\nACGT,0\nACGT,2\n")
    with pytest.raises(
        DataError, match=r"test.csv, line 3: a label that is not among the 2 classes"
    ):
        load("genomic", place)


class Table(dict[str, list[Any]]):
    """Looks like a split of `datasets`."""

    def __init__(self, names: list[str] | None = None, **columns: list[Any]) -> None:
        super().__init__(columns)
        self.column_names = list(columns)
        self.features = {"label": SimpleNamespace(names=names) if names else object()}


def fake_hub(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[tuple[Any, ...]]:
    """Put a stand-in in the place of `datasets`; returns what it is asked for."""
    asked: list[tuple[Any, ...]] = []

    def load_dataset(*given: Any) -> Any:
        asked.append(given)
        if isinstance(answer, Exception):
            raise answer
        return answer

    module: Any = ModuleType("datasets")
    module.load_dataset, module.config = load_dataset, ModuleType("datasets.config")
    module.config.HF_HUB_OFFLINE = False
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


def test_tweet_eval_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(["no", "yes"], text=["a", "b", "c"], label=[0, 1, 1])
    asked = fake_hub(monkeypatch, {"test": table, "train": table, "validation": table})
    corpus = load_corpus(DataSettings(source="tweet-eval", task="irony"), 0)
    assert asked == [("cardiffnlp/tweet_eval", "irony")]
    assert corpus.name == "TweetEval irony"
    assert corpus.classes == ("no", "yes")
    assert corpus.train.labels.tolist() == [0, 1, 1]
    assert corpus.validation is not None


def test_genomic_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(seq=["ACGT", "acgn"], label=[0, 1])
    asked = fake_hub(monkeypatch, {"train": table, "test": table})
    corpus = load_corpus(DataSettings(source="genomic"), 0)
    assert asked == [("katarinagresova/Genomic_Benchmarks_demo_human_or_worm", None)]
    assert corpus.classes == ("human", "worm")
    assert corpus.test.texts == ("ACGT", "ACGN")


def test_hub_set_without_the_split_or_column(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, {"train": Table(seq=["A"], label=[0])})
    with pytest.raises(DataError, match=r"no split 'test'; accepted: splits: train"):
        load_corpus(DataSettings(source="genomic"), 0)
    fake_hub(monkeypatch, {"train": Table(dna=["A"], label=[0])})
    with pytest.raises(DataError, match=r"no column 'seq'; accepted: .* columns: dna, label"):
        load_corpus(DataSettings(source="genomic"), 0)


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, ConnectionError("no\nroute"))
    with pytest.raises(
        DataError,
        match=r"hub data set cardiffnlp/tweet_eval \(hate\) could not be loaded \(no route\); "
        r".* or local files; check the network and the name, or set data.path to a local copy",
    ):
        load_corpus(DataSettings(source="tweet-eval", task="hate"), 0)


@pytest.mark.parametrize("there", [True, False])
def test_only_the_cache_is_asked_where_the_hub_is_out_of_reach(
    there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client of `datasets` tries for 25 s otherwise, before it looks into its cache."""
    fake_hub(monkeypatch, ConnectionError("no route"))
    library: Any = sys.modules["datasets"]
    load, seen = library.load_dataset, list[object]()
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", "as it was")

    def watched(*given: Any) -> Any:
        seen.append(library.config.HF_HUB_OFFLINE)
        return load(*given)

    monkeypatch.setattr(library, "load_dataset", watched)
    monkeypatch.setattr(data.readers.hub, "hub_reachable", lambda: there)
    with pytest.raises(DataError, match="no route"):
        load_corpus(DataSettings(source="genomic"), 0)
    assert seen == [not there]
    assert library.config.HF_HUB_OFFLINE == "as it was"  # what a notebook loads itself is its own


def test_datasets_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"needs the package datasets, .* pip install datasets"):
        load_corpus(DataSettings(source="genomic"), 0)


@pytest.mark.slow
def test_real_datasets_package_without_network(tmp_path: Path) -> None:
    """Its own offline switch, its own errors, our message."""
    pytest.importorskip("datasets")
    code = (
        "from data import load_corpus; from core import DataError, DataSettings\n"
        "try: load_corpus(DataSettings(source='genomic'), 0)\n"
        "except DataError as error: print(error)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert "Genomic_Benchmarks_demo_human_or_worm could not be loaded" in done.stdout


@pytest.mark.skipif(not REAL.is_dir(), reason="the real data is not here")
def test_real_tweets() -> None:
    corpus = load("tweet-eval", REAL / "tweet_eval")
    assert corpus.validation is not None
    assert [len(s) for s in (corpus.train, corpus.validation, corpus.test)] == [45615, 2000, 12284]
    assert corpus.classes == ("negative", "neutral", "positive")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real data is not here")
def test_real_dna() -> None:
    corpus = load("genomic", REAL / "human_vs_worm")
    assert [len(corpus.train), len(corpus.test)] == [10493, 3403]
    assert corpus.classes == ("human", "worm")
    assert {len(text) for text in corpus.test.texts} == {200}


def stance(folder: Path) -> Path:
    """Write upstream's checkout as far as the stance tasks go: their mapping lies above them."""
    above = folder / "tweeteval" / "datasets" / "stance"
    for topic in ("abortion", "climate"):
        task = above / topic
        task.mkdir(parents=True)
        for split in ("train", "val", "test"):
            (task / f"{split}_text.txt").write_text("no view\nnever\nyes please\n")
            (task / f"{split}_labels.txt").write_text("0\n1\n2\n")
    (above / "mapping.txt").write_text("0\tnone\n1\tagainst\n2\tfavor")
    return folder / "tweeteval"


@pytest.mark.parametrize("below", ["", "datasets", "datasets/stance/climate"])
def test_stance_as_upstream_publishes_it(tmp_path: Path, below: str) -> None:
    corpus = load("tweet-eval", stance(tmp_path) / below, task="stance_climate")
    assert corpus.name == "TweetEval climate"
    assert corpus.classes == ("none", "against", "favor")
    assert corpus.train.labels.tolist() == [0, 1, 2]


def downloaded(folder: Path, classes: tuple[str, str] = ("positive", "negative")) -> Path:
    """Write a set as the genomic_benchmarks package downloads it: a file a sequence."""
    place = folder / "human_nontata_promoters"
    for split, rows in (("train", 12), ("test", 3)):
        for name in classes:
            (place / split / name).mkdir(parents=True)
            for i in range(rows):
                letter = "ACGT"[i % 4]
                (place / split / name / f"{i}.txt").write_text(letter * (i + 1))
    return place


def test_genomic_as_its_package_downloads_it(tmp_path: Path) -> None:
    corpus = load("genomic", downloaded(tmp_path))
    assert corpus.name == "human_nontata_promoters"
    assert corpus.classes == ("negative", "positive")
    assert corpus.train.labels.tolist() == [0] * 12 + [1] * 12
    assert [len(text) for text in corpus.train.texts[:12]] == list(range(1, 13))
    assert len(corpus.test) == 6


def test_genomic_download_that_is_damaged(tmp_path: Path) -> None:
    place = downloaded(tmp_path)
    (place / "test" / "positive" / "2.txt").write_text("AC-GT")
    with pytest.raises(DataError, match=r"test/positive/2.txt: letter '-' in a DNA sequence"):
        load("genomic", place)
    for file in (place / "test").glob("*/*.txt"):
        file.unlink()
    with pytest.raises(DataError, match=r"test has no files .*; accepted: .* train.csv .*; downl"):
        load("genomic", place)
