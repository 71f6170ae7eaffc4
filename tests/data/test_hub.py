"""Data sets in the hub's layout: a local folder, through the real library, without network."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import DataError, SettingsError, parse_run
from data import ServerData, load_server

# The library leaves files of its cache open.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
FEW = ("data.source=hub", "data.server_rows=4", "run.clients=2")
README = """---
configs:
- config_name: plain
  data_files: [{split: train, path: "plain/*.csv"}, {split: test, path: "plain.csv"}]
  default: true
- config_name: other
  data_files: [{split: fit, path: "other.csv"}, {split: held, path: "other.csv"}]
---
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library copies what it reads into its cache."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def load(path: Path, *given: str) -> ServerData:
    return load_server(parse_run([], [*FEW, f"data.path={path}", *given])[0])


def repository(folder: Path) -> Path:
    """Write a data set of two configurations."""
    place = folder / "reviews"
    (place / "plain").mkdir(parents=True)
    lines = ["review,stars", *(f"row {i},{i % 3}" for i in range(30))]
    (place / "plain" / "part.csv").write_text("\n".join(lines))
    lines = ["review,stars", *(f"new {i},{i % 3}" for i in range(6))]
    (place / "plain.csv").write_text("\n".join(lines))
    (place / "other.csv").write_text(
        "\n".join(["text,label", *(f"row {i},{'ab'[i % 2]}" for i in range(30))])
    )
    (place / "README.md").write_text(README)
    return place


def test_a_local_folder_in_the_hubs_layout(tmp_path: Path) -> None:
    place = repository(tmp_path)
    data = load(place)
    assert data.name == "reviews"
    assert data.classes == ("0", "1", "2")
    assert sorted(data.test.texts) == [f"new {i}" for i in range(6)]
    assert all(data.test.labels == [int(text.split()[1]) % 3 for text in data.test.texts])
    assert f"{place}: read are the splits train, test (data.hub_splits)" in data.info.notes
    assert f"{place} train: the text is the column review (data.text_column)" in data.info.notes


def test_a_configuration_and_splits_by_name(tmp_path: Path) -> None:
    place = repository(tmp_path)
    with pytest.raises(
        DataError, match=r"may be any of the splits fit, held; accepted: one called"
    ):
        load(place, "data.hub_config=other")
    data = load(place, "data.hub_config=other", "data.hub_splits=fit,held")
    assert (len(data.train), len(data.test)) == (20, 30)  # 26 rows less the clients' validation
    held_out = load(place, "data.hub_config=other", "data.hub_splits=fit")
    assert len(held_out.test) == 6
    official = load(place, "data.hub_config=other", "data.hub_splits=fit,,held")
    assert (len(official.train), len(official.validation), len(official.test)) == (20, 4, 6)
    with pytest.raises(DataError, match=r"has no split 'dev'; accepted: splits: fit, held; set"):
        load(place, "data.hub_config=other", "data.hub_splits=fit,dev")
    with pytest.raises(DataError, match=r"data.hub_splits = ', fit'; accepted: the training split"):
        load(place, "data.hub_config=other", "data.hub_splits=,fit")


def test_a_test_fraction_that_official_test_rows_would_ignore(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"data.test_fraction = 0.3 would be ignored because rev"
    ):
        load(repository(tmp_path), "data.test_fraction=0.3")


def test_as_datasets_saves_it(tmp_path: Path) -> None:
    import datasets

    labels = datasets.ClassLabel(names=["low", "high"])
    features = datasets.Features({"text": datasets.Value("string"), "label": labels})
    rows = {"text": [f"row {i}" for i in range(20)], "label": [i % 2 for i in range(20)]}
    split = datasets.Dataset.from_dict(rows, features)
    datasets.DatasetDict(train=split, test=split).save_to_disk(str(tmp_path / "saved"))
    data = load(tmp_path / "saved")
    assert data.classes == ("low", "high")
    assert len(data.test) == 20


def test_what_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DataError, match=r"empty could not be loaded .*; accepted: .*data.path"
    ) as no:
        load(tmp_path / "empty")
    assert "\n" not in str(no.value)
    with pytest.raises(DataError, match=r"data.source = hub without data.hub_name and data.path"):
        load_server(parse_run([], list(FEW))[0])
    monkeypatch.setattr("data.readers.hub.hub_reachable", lambda: False)
    with pytest.raises(DataError, match=r"data set nobody/nothing could not be loaded .* network"):
        load_server(parse_run([], [*FEW, "data.hub_name=nobody/nothing"])[0])
    with pytest.raises(
        SettingsError, match=r"hub_revision = 'v1' would be ignored because data.pa"
    ):
        load(tmp_path / "empty", "data.hub_revision=v1")


def cached(cache: Path) -> None:
    """Write a set into the library's cache, as a download would leave it there."""
    import datasets
    from datasets.arrow_writer import ArrowWriter

    names = datasets.ClassLabel(names=["no", "yes"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names})
    place = cache / "nobody___reviews" / "default" / "0.0.0" / ("a" * 40)
    place.mkdir(parents=True)
    with ArrowWriter(features=features, path=str(place / "reviews-train.arrow")) as writer:
        for i in range(20):
            writer.write({"text": f"row {i}", "label": i % 2})
        rows, size = writer.finalize()
    splits = datasets.SplitDict(dataset_name="reviews")
    splits.add(datasets.SplitInfo("train", num_bytes=size, num_examples=rows))
    about = {"builder_name": "parquet", "dataset_name": "reviews", "config_name": "default"}
    info = datasets.DatasetInfo(features=features, version="0.0.0", splits=splits, **about)
    info.write_to_directory(str(place))


def test_by_its_id_from_the_cache_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.readers.hub.hub_reachable", lambda: False)
    cached(tmp_path / "cache")
    data = load_server(parse_run([], [*FEW, "data.hub_name=nobody/reviews"])[0])
    assert (data.name, data.classes) == ("nobody/reviews", ("no", "yes"))
    assert len(data.test) == 4
