"""What clients and server hold: who shares which rows, and that both sides agree."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core import DataError, Settings, SettingsError
from data import (
    ServerData,
    Split,
    class_rows,
    fit_projection,
    kmer_frequencies,
    load_corpus,
    load_server,
    load_site,
    merge_moments,
    moments_of,
)
from tests.data.few_rows import own, per_site, run_settings, sites, table, texts

REAL = Path(__file__).parents[3] / "shared" / "data"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real data is not here")


@hypothesis_settings(deadline=None, max_examples=40)
@given(
    st.integers(40, 120),
    st.integers(2, 4),
    st.integers(1, 5),
    st.sampled_from(["iid", "dirichlet", "quantity"]),
    st.sampled_from(["central", "federated"]),
    st.integers(0, 100),
)
def test_every_row_is_held_exactly_once(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    classes: int,
    clients: int,
    partition: str,
    mode: str,
    seed: int,
) -> None:
    path = table(tmp_path_factory.mktemp("rows"), rows, classes=classes)
    settings = own(path, mode=mode, clients=clients, partition=partition, alpha=1.0, seed=seed)
    try:
        held, server = sites(settings), load_server(settings)
    except DataError as error:
        if "fewer than 2 rows" not in str(error):
            raise
        return
    everywhere = [part for site in held for part in (site.train, site.validation, site.test)]
    assert sorted(texts([*everywhere, server.validation, server.test])) == sorted(
        f"row {i}" for i in range(rows)
    )
    assert sorted(server.train.texts) == sorted(texts([site.train for site in held]))
    for site in held:
        assert min(len(site.train), len(site.validation)) > 0
        both = np.r_[site.train.labels, site.validation.labels]
        for label in range(classes):
            if (both == label).sum() > 1:
                assert label in site.train.labels
                assert label in site.validation.labels


def test_texts_keep_their_labels(tmp_path: Path) -> None:
    for site in sites(own(table(tmp_path, 60))):
        for part in (site.train, site.validation):
            expected = [int(text.split()[1]) // 30 for text in part.texts]
            assert part.labels.tolist() == expected


def test_dna_demo_by_default() -> None:
    settings = run_settings()
    info, site = load_site(settings, 0, 4)
    server = load_server(settings)
    assert info == server.info
    assert info.name == "dna-demo (synthetic)"
    assert info.synthetic
    assert (len(site.train), len(site.validation), len(site.test)) == (240, 60, 0)
    assert (len(server.train), len(server.validation), len(server.test)) == (960, 300, 1000)
    assert class_rows(site.train.labels, 2) == [120, 120]
    assert (server.name, server.kind, server.classes) == (info.name, "dna", ("human", "worm"))


def test_same_numbers_on_every_call_and_others_with_another_seed() -> None:
    settings = run_settings(heterogeneity=0.5, label_noise=0.2, train_rows=200)
    first, again = load_site(settings, 1, 4)[1], load_site(settings, 1, 4)[1]
    assert first.train.texts == again.train.texts
    assert first.train.labels.tolist() == again.train.labels.tolist()
    other = load_site(run_settings(seed=1, train_rows=200), 1, 4)[1]
    assert other.train.texts != first.train.texts


def test_labels_are_shuffled_in_every_part(tmp_path: Path) -> None:
    """Published defect 7: the file is sorted by class, no part of it may stay so."""
    settings = own(table(tmp_path, 600), server_rows=60, train_rows=300)
    server = load_server(settings)
    for part in (sites(settings)[0].train, server.validation, server.test, server.train):
        head = part.labels[: len(part) // 2]
        assert 0.2 < head.mean() < 0.8


def test_train_rows_are_drawn_stratified(tmp_path: Path) -> None:
    settings = own(table(tmp_path, 400), train_rows=100, clients=2)
    held = sites(settings)
    assert sum(len(s.train) + len(s.validation) for s in held) == 100
    for site in held:
        assert class_rows(site.train.labels, 2) == [20, 20]


def test_test_rows_are_drawn_stratified(tmp_path: Path) -> None:
    server = load_server(own(table(tmp_path, 400), test_rows=30))
    assert class_rows(server.test.labels, 2) == [15, 15]


def test_more_test_rows_change_no_training_row(tmp_path: Path) -> None:
    """Published defect 6: nothing may be fitted on test rows."""
    test = table(tmp_path, 50, "test.csv")
    settings = own(table(tmp_path, 200), test_path=str(test))
    before = sites(settings)
    (tmp_path / "test.csv").write_text("text,label,site\nother,1,s0\nelse,0,s0\n")
    after = sites(settings)
    assert [s.train.texts for s in before] == [s.train.texts for s in after]


def test_projection_does_not_change_with_the_test_rows() -> None:
    def fitted(test_rows: int) -> bytes:
        settings = run_settings(train_rows=120, test_rows=test_rows)
        moments = [
            moments_of(kmer_frequencies(site.train.texts, 3), site.train.labels, 2)
            for site in sites(settings)
        ]
        return fit_projection(merge_moments(moments), 4, "lda", 0.1, 3.0, 0).to_bytes()

    assert fitted(20) == fitted(300)


def test_federated_evaluation_shares_the_test_rows(tmp_path: Path) -> None:
    settings = own(table(tmp_path, 100), mode="federated")
    held, server = sites(settings), load_server(settings)
    assert [len(site.test) for site in held] == [5, 5, 5, 5]
    assert (len(server.validation), len(server.test)) == (0, 0)
    corpus = load_corpus(settings.data, 0)
    assert sorted(texts([site.test for site in held])) == sorted(corpus.test.texts)


def test_partition_by_column(tmp_path: Path) -> None:
    path = table(tmp_path, 90)
    settings = own(path, partition="column", partition_column="site", clients=3)
    for number, site in enumerate(sites(settings)):
        assert set(site.train.groups) | set(site.validation.groups) == {f"s{number}"}
    with pytest.raises(
        DataError, match=r"3 different values in the partition column for 4 clients"
    ):
        load_site(settings, 0, 4)


def test_dna_demo_has_no_column() -> None:
    with pytest.raises(DataError, match=r"data.partition = column with data.source = dna-demo"):
        load_site(run_settings(partition="column", partition_column="site"), 0, 4)


def test_noise_flips_labels_of_the_named_sites_and_no_test_label() -> None:
    clean, noisy = (
        run_settings(train_rows=200, label_noise=noise, mode="federated", **which)
        for noise, which in ((0.0, {}), (0.25, {"noisy_clients": 2}))
    )
    for client, (before, after) in enumerate(zip(sites(clean), sites(noisy), strict=True)):
        for part, share in (("train", 0.25), ("validation", 0.25), ("test", 0.0)):
            was, now = getattr(before, part), getattr(after, part)
            assert was.texts == now.texts
            flipped = round(share * len(was)) if client < 2 else 0
            assert (was.labels != now.labels).sum() == flipped
    pooled = load_server(noisy).train.labels
    assert (pooled == np.concatenate([s.train.labels for s in sites(noisy)])).all()


def test_heterogeneity_is_the_clients_own_and_spares_the_server() -> None:
    plain, pulled = (run_settings(train_rows=400, heterogeneity=h) for h in (0.0, 1.0))
    server, after = load_server(plain), load_server(pulled)
    assert server.validation.texts == after.validation.texts
    assert server.test.texts == after.test.texts
    frequencies = [kmer_frequencies(site.train.texts, 2).mean(axis=0) for site in sites(pulled)]
    spread = np.std([row.max() for row in frequencies])
    level = np.std([kmer_frequencies(s.train.texts, 2).mean(axis=0).max() for s in sites(plain)])
    assert spread > 3 * level
    for before, site in zip(sites(plain), sites(pulled), strict=True):
        assert before.train.labels.tolist() == site.train.labels.tolist()
        assert before.train.texts != site.train.texts


def test_heterogeneity_reaches_the_clients_test_rows() -> None:
    plain, pulled = (
        run_settings(train_rows=100, test_rows=40, heterogeneity=h, mode="federated")
        for h in (0.0, 1.0)
    )
    assert sites(plain)[0].test.texts != sites(pulled)[0].test.texts
    assert sites(plain)[0].test.labels.tolist() == sites(pulled)[0].test.labels.tolist()


def test_a_file_per_site(tmp_path: Path) -> None:
    settings = per_site(str(table(tmp_path, 50)))
    info, site = load_site(settings, 2, 4)
    assert info.name == "rows.csv"
    assert info.classes == ("0", "1")
    assert (len(site.train), len(site.validation), len(site.test)) == (32, 8, 10)
    server = load_server(settings)
    assert (len(server.train), len(server.validation), len(server.test)) == (0, 0, 0)
    assert server.info.name == "a csv file per site"


def test_a_file_per_site_with_its_own_test_file(tmp_path: Path) -> None:
    test = table(tmp_path, 12, "test.csv")
    _, site = load_site(per_site(str(table(tmp_path, 50)), test_path=str(test)), 0, 4)
    assert (len(site.train), len(site.validation), len(site.test)) == (40, 10, 12)


def test_a_site_may_lack_a_class(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "one,1\n" * 10)
    _, site = load_site(per_site(str(path)), 0, 1)
    assert set(site.train.labels) == {1}


def test_a_file_per_site_and_test_rows_at_the_server(tmp_path: Path) -> None:
    test = table(tmp_path, 40, "test.csv")
    settings = per_site(str(table(tmp_path, 50)), "central", test_path=str(test), server_rows=10)
    server = load_server(settings)
    assert (len(server.train), len(server.validation), len(server.test)) == (0, 10, 30)
    assert not set(server.validation.texts) & set(server.test.texts)
    _, site = load_site(settings, 0, 4)
    assert (len(site.train), len(site.validation), len(site.test)) == (40, 10, 0)


def test_the_server_needs_no_file_of_the_sites() -> None:
    assert load_server(per_site("/nowhere/rows.csv")).classes == ("0", "1")


def test_a_file_per_site_needs_federated_evaluation(tmp_path: Path) -> None:
    settings = per_site(str(table(tmp_path, 50)), "central")
    with pytest.raises(DataError, match=r"server has no rows; .* set evaluation.mode = federated"):
        load_server(settings)


def test_a_file_per_site_needs_the_class_names(tmp_path: Path) -> None:
    settings = per_site(str(table(tmp_path, 50)), labels="")
    with pytest.raises(SettingsError, match=r"data.per_site without data.labels; .* set data.lab"):
        load_site(settings, 0, 4)
    with pytest.raises(SettingsError, match=r"data.per_site without data.labels"):
        load_server(settings)


def test_a_file_per_site_is_used_whole(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"data.train_rows = 20 with data.per_site"):
        load_site(per_site(str(table(tmp_path, 50)), train_rows=20), 0, 4)


def test_a_site_with_too_few_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\na,1\n")
    with pytest.raises(DataError, match=r"rows.csv has 1 rows; accepted: 4 rows or more"):
        load_site(per_site(str(path)), 0, 4)


def test_too_few_test_rows_at_the_server(tmp_path: Path) -> None:
    test = table(tmp_path, 12, "test.csv")
    settings = per_site(str(table(tmp_path, 50)), "central", test_path=str(test), server_rows=12)
    with pytest.raises(DataError, match=r"test.csv has 12 rows; accepted: 13 or more"):
        load_server(settings)


@pytest.mark.parametrize(
    ("rows", "given_keys", "message"),
    [
        (50, {"server_rows": 40}, "data.server_rows = 40 of 40 training rows; .* at most 32"),
        (50, {"train_rows": 31}, "data.train_rows = 31; accepted: at most the 30 training"),
        (50, {"test_rows": 11}, "data.test_rows = 11; accepted: at most the 10 test"),
        (50, {"train_rows": 7}, "7 training rows for 4 clients leave one of them empty"),
        (100, {"train_rows": 4, "clients": 1, "labels": "0,1,2,3,4"}, "4 training rows for 5 cl"),
    ],
)
def test_too_few_rows(tmp_path: Path, rows: int, given_keys: dict[str, Any], message: str) -> None:
    settings = own(table(tmp_path, rows), **given_keys)
    for load in (load_server, lambda settings: load_site(settings, 0, settings.run.clients)):
        with pytest.raises(DataError, match=message):
            load(settings)


@pytest.mark.parametrize("client", [-1, 4])
def test_a_client_too_many(client: int) -> None:
    with pytest.raises(DataError, match=rf"client {client} of 4; accepted: 0 to 3"):
        load_site(run_settings(), client, 4)


def test_a_split_must_fit_together() -> None:
    with pytest.raises(ValueError, match="2 texts, labels of shape"):
        Split(("a", "b"), np.zeros(3, dtype=np.int64))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Split((), np.zeros(0, dtype=np.int64)).texts = ("a",)  # type: ignore[misc]


def real(source: str, folder: str, clients: int, **data: Any) -> Settings:
    return run_settings(clients=clients, source=source, path=str(REAL / folder), **data)


@needs_real
def test_real_tweets_of_the_published_run() -> None:
    settings = real("tweet-eval", "tweet_eval", 3, train_rows=1000)
    started = time.perf_counter()
    _, site = load_site(settings, 0, 3)
    seconds = time.perf_counter() - started
    server: ServerData = load_server(settings)
    assert (len(server.validation), len(server.test)) == (300, 12284)
    assert sum(len(s.train) + len(s.validation) for s in sites(settings)) == 1000
    official = load_corpus(settings.data, 0)
    assert official.validation is not None
    assert set(server.validation.texts) <= set(official.validation.texts)
    shares = np.array(class_rows(site.train.labels, 3)) / len(site.train)
    np.testing.assert_allclose(shares, [0.155, 0.453, 0.391], atol=0.01)
    # 0.04 to 0.1 s here; far above that it would be felt in every message.
    assert seconds < 2


@needs_real
def test_real_dna_for_ten_clients() -> None:
    settings = real("genomic", "human_vs_worm", 10)
    server = load_server(settings)
    assert (len(server.validation), len(server.test)) == (300, 3403)
    assert sum(len(s.train) + len(s.validation) for s in sites(settings)) == 10193


def uneven(folder: Path, sizes: tuple[int, ...]) -> Path:
    """Write sites of very different size, two classes in each."""
    rows = [
        f"site {site} row {i},{i % 2},s{site}"
        for site, size in enumerate(sizes)
        for i in range(size)
    ]
    (folder / "rows.csv").write_text("text,label,site\n" + "\n".join(rows) + "\n")
    return folder / "rows.csv"


@pytest.mark.parametrize("mode", ["central", "federated"])
@pytest.mark.parametrize("train_rows", [0, 12, 40])
def test_a_small_site_stays_whatever_is_drawn(tmp_path: Path, mode: str, train_rows: int) -> None:
    path = uneven(tmp_path, (600, 80, 5, 4))
    settings = own(
        path,
        mode=mode,
        server_rows=0,
        partition="column",
        partition_column="site",
        train_rows=train_rows,
    )
    held = sites(settings)
    for number, site in enumerate(held):
        assert set(site.train.groups) | set(site.validation.groups) == {f"s{number}"}
    sizes = [len(site.train) + len(site.validation) for site in held]
    assert min(sizes) >= 2
    assert not train_rows or sum(sizes) == train_rows
    # In proportion to the rows that the sites have, once each has its two.
    assert sizes == sorted(sizes, reverse=True)
    assert train_rows == 12 or sizes[0] > 4 * sizes[1]
    first = class_rows(held[0].train.labels, 2)
    assert abs(first[0] - first[1]) <= 1


def test_too_few_training_rows_for_the_sites_of_a_column(tmp_path: Path) -> None:
    path = uneven(tmp_path, (60, 20, 5, 4))
    settings = own(path, partition="column", partition_column="site", train_rows=7)
    with pytest.raises(
        DataError, match=r"train_rows = 7 for 4 values .*; accepted: 8 or more: 2 for each"
    ):
        load_site(settings, 0, 4)


def test_a_test_file_needs_no_column_of_sites(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("text,label\nnew,0\nother,1\n")
    settings = own(
        uneven(tmp_path, (60, 20, 5, 4)),
        test_path=str(tmp_path / "test.csv"),
        partition="column",
        partition_column="site",
    )
    assert len(load_server(settings).test) == 2
