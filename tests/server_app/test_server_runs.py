"""Whole runs in one process: the real apps and strategy, without Flower's runtime."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message
from safetensors.numpy import load_file

from core import COST_KEYS, UserError
from core.messages import ARRAYS, METRICS, TRAIN, pack_parameters, unpack_parameters
from tests.conftest import NO_TEACHER, Federate


def test_a_run_writes_everything_it_promises(small_run: Any) -> None:
    ran = small_run
    names = {path.name for path in ran.folder.iterdir()}
    assert names >= {
        "config.json",
        "metrics.jsonl",
        "agent.jsonl",
        "ledger.json",
        "checkpoint",
        "summary.json",
        "model.safetensors",
        "circuit.svg",
    }
    config = json.loads((ran.folder / "config.json").read_text())
    assert config["settings"]["run"]["clients"] == 3
    assert config["seed"] == 0
    assert "torch" in config["versions"]
    prepared = ran.events("prepared")[0]
    assert prepared["synthetic"]
    assert [c["class_rows"] for c in prepared["clients"]] == [[16, 16]] * 3
    assert [e["round"] for e in ran.events("client")] == [1, 1, 1, 2, 2, 2]
    assert [e["round"] for e in ran.events("round")] == [1, 2]
    assert [d["round"] for d in ran.decisions()] == [1, 2]
    summary = json.loads((ran.folder / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["test"]["rows"] == 60
    assert set(summary["baselines"]) == {"majority", "logistic_projected", "logistic_full"}
    assert [t["client"] for t in summary["teachers"]] == [0, 1, 2]
    assert set(summary["ledger"]) == set(COST_KEYS)


def test_ledger_counts_what_the_formulas_say(small_run: Any) -> None:
    ran = small_run
    ledger = json.loads((ran.folder / "ledger.json").read_text())
    angles = ran.events("prepared")[0]["angles"]
    first = [entry for entry in ledger["entries"] if entry["round"] == 1]
    assert [entry["circuits"] for entry in first] == [3 * 32 * (1 + 2 * angles) + 8] * 3
    assert all(entry["bytes_up"] > 4 * angles for entry in first)
    assert min(entry["idle_seconds"] for entry in first) == 0
    assert ledger["totals"]["circuits"] == sum(e["circuits"] for e in ledger["entries"])
    assert ran.summary["simulated_circuits"] == ledger["totals"]["circuits"]


def test_same_seed_same_numbers_other_seed_others(federate: Federate, small_run: Any) -> None:
    two, other = federate(), federate("run.seed=1", *NO_TEACHER)
    assert small_run.summary["test"] == two.summary["test"]
    models = [load_file(run.folder / "model.safetensors") for run in (small_run, two, other)]
    assert all(np.array_equal(models[0][k], models[1][k]) for k in models[0])
    assert not np.array_equal(models[0]["angles"], models[2]["angles"])


def test_the_llm_is_fine_tuned_once_a_run_and_reused_where_allowed(
    federate: Federate, tmp_path: Path
) -> None:
    def tokens(ran: Any) -> list[bool]:
        return [e["llm_tokens"] > 0 for e in ran.events("client") if e["client"] == 0]

    store = f"llm.store={tmp_path / 'fresh'}"
    ran, again, fresh = federate(store), federate(store), federate(store, "llm.reuse=false")
    assert tokens(ran) == tokens(fresh) == [True, False]
    assert all(teacher["reused"] for teacher in again.summary["teachers"])
    assert again.summary["test"] == ran.summary["test"]


def test_federated_evaluation_adds_confusions_up(federate: Federate) -> None:
    ran = federate("evaluation.mode=federated", "data.server_rows=0")
    ledger = json.loads((ran.folder / "ledger.json").read_text())["entries"]
    tested = [entry for entry in ledger if entry["round"] == 3]
    assert [entry["circuits"] for entry in tested] == [20, 20, 20]
    assert all(entry["bytes_down"] > 0 and entry["bytes_up"] > 0 for entry in tested)
    assert ran.summary["test"]["sites"] == 3
    assert ran.summary["ledger"]["circuits"] == sum(entry["circuits"] for entry in ledger)
    assert ran.summary["test"]["rows"] == 60
    assert sum(map(sum, ran.summary["test"]["confusion"])) == 60
    assert ran.summary["baselines"]["majority"]["rows"] == 60
    assert ran.grid.log.count(("evaluate", 0)) == 3  # two rounds and the test


def site_table(folder: Path, rows: dict[str, tuple[int, int]]) -> str:
    """Write DNA rows of two classes: of each site so many of the one and of the other."""
    rng = np.random.default_rng(0)
    lines = ["text,label,site"]
    for site, counts in rows.items():
        for label, (count, letters) in enumerate(zip(counts, ("ACGT", "AACT"), strict=True)):
            texts = ("".join(rng.choice(list(letters), 40)) for _ in range(count))
            lines += [f"{text},{label},{site}" for text in texts]
    path = folder / "sites.csv"
    path.write_text("\n".join(lines))
    return f"data.path={path}"


def test_baselines_of_one_class_sites_know_all_sites(federate: Federate, tmp_path: Path) -> None:
    given = ["evaluation.mode=federated", "data.server_rows=0", "data.source=csv", "data.kind=dna"]
    given += ["data.partition=column", "data.partition_column=site", "run.rounds=1"]
    given += ["data.train_rows=0", "data.test_rows=0", "data.labels=0,1", *NO_TEACHER]
    skewed = site_table(tmp_path, {"a": (60, 0), "b": (0, 40), "c": (60, 40)})
    found = federate(*given, skewed).summary
    confusion = np.array(found["test"]["confusion"])
    # The class with most training rows in all, not each site's own: 120 of 200 rows are class 0.
    assert set(found["baselines"]) == {"majority"}
    majority = np.array(found["baselines"]["majority"]["confusion"])
    assert majority.tolist() == [[confusion[0].sum(), 0], [confusion[1].sum(), 0]]
    assert found["baselines"]["majority"]["accuracy"] == confusion[0].sum() / confusion.sum()
    mixed = site_table(tmp_path, {"a": (60, 20), "b": (20, 60), "c": (60, 40)})
    assert set(federate(*given, mixed).summary["baselines"]) == {
        "majority",
        "local_projected",
        "local_full",
    }
    silent = federate(*given, mixed, "evaluation.baselines=false").summary
    assert silent["baselines"] == {}


# --- spoiled messages ---------------------------------------------------------------------


def of_client(client: int, change: Callable[[Message, Message], Message | None]) -> Any:
    def spoil(order: Message, reply: Message) -> Message | None:
        mine = order.metadata.dst_node_id == 1000 + client
        return change(order, reply) if mine and order.metadata.message_type == TRAIN else reply

    return spoil


def broken_arrays(**arrays: Any) -> Callable[[Message, Message], Message]:
    def change(order: Message, reply: Message) -> Message:
        kept = unpack_parameters(reply.content.array_records[ARRAYS])
        for name, edit in arrays.items():
            kept[name] = edit(kept[name])
        reply.content[ARRAYS] = pack_parameters(kept)
        return reply

    return change


def with_number(name: str, value: Any) -> Callable[[Message, Message], Message]:
    def change(order: Message, reply: Message) -> Message:
        reply.content.metric_records[METRICS][name] = value
        return reply

    return change


def without_numbers(order: Message, reply: Message) -> Message:
    del reply.content.metric_records[METRICS]["loss"]
    return reply


OFFENCES: list[tuple[Any, str]] = [
    (lambda o, r: None, "client 1: no reply in time"),
    (lambda o, r: Message(Error(2, "boom\nat line 3"), reply_to=o), "client 1: boom at line 3"),
    (broken_arrays(angles=lambda a: a[:-1]), r"client 1: update dropped: angles has shape"),
    (broken_arrays(angles=lambda a: a * np.nan), "update dropped: angles is not finite"),
    (broken_arrays(weights=lambda a: a + 1e30), r"update dropped: norm \S+e.30 of the update"),
    (broken_arrays(bias=lambda a: a.astype(int)), "update dropped: bias has dtype int64"),
    (with_number("rows", 10**8), "update dropped: 100000000 rows instead of 32"),
    (with_number("more", 1), "update dropped: more is no field of it"),
    (with_number("round", 99), "client 1: update dropped: it answers round 99"),
    (without_numbers, "client 1: update dropped: loss is missing"),
    (with_number("steps", 2.5), r"client 1: update dropped: steps = 2.5: .* valid integer"),
    (with_number("steps", 10**9), "update dropped: steps 1000000000 instead of at most "),
    (
        with_number("steps", -5),
        "update dropped: steps = -5: .* greater than or equal to 0",
    ),
    (with_number("loss", float("nan")), "update dropped: loss = nan: .* finite number"),
    (with_number("loss", [0.1, 0.2]), r"update dropped: loss = \[0.1, 0.2\]: .* valid number"),
    (with_number("circuits", 2.5), "update dropped: circuits = 2.5: .* valid integer"),
    (with_number("circuits", 10**15), "update dropped: 1000000000000000 circuits of "),
    (with_number("circuits", -(10**6)), "update dropped: circuits = -1000000: .* greater than"),
]


def test_an_offender_is_dropped_with_a_reason(federate: Federate) -> None:
    """One offence a round."""

    def offend(order: Message, reply: Message) -> Message | None:
        change, _ = OFFENCES[int(order.metadata.group_id) - 1]
        return change(order, reply)  # type: ignore[no-any-return]

    ran = federate(
        f"run.rounds={len(OFFENCES)}", "train.steps=1", *NO_TEACHER, spoil=of_client(1, offend)
    )
    rounds = ran.events("round")
    assert len(rounds) == len(OFFENCES)
    for event, (_, message) in zip(rounds, OFFENCES, strict=True):
        assert event["aggregated"] == [0, 2], message
        assert re.search(message, "; ".join(event["failures"])), (message, event["failures"])


def test_too_few_valid_replies_end_the_run(federate: Federate) -> None:
    with pytest.raises(UserError, match=r"round 1 has 2 valid replies of 3 .*no reply in time"):
        federate("run.min_replies=3", spoil=of_client(1, lambda o, r: None))


def test_a_client_cannot_raise_its_own_weight(federate: Federate, small_run: Any) -> None:
    greedy = federate(spoil=of_client(1, with_number("num-examples", 10**9)))
    assert small_run.summary["test"] == greedy.summary["test"]


# --- preparation --------------------------------------------------------------------------


def test_the_wrong_number_of_nodes(federate: Federate) -> None:
    with pytest.raises(UserError, match=r"2 nodes are connected; accepted: run.clients = 3"):
        federate("run.wait_seconds=0.3", nodes=2)
    with pytest.raises(UserError, match=r"4 nodes are connected; accepted: run.clients = 3"):
        federate(nodes=4)


def test_a_clients_mistake_reaches_the_user_as_its_own_sentence(federate: Federate) -> None:
    with pytest.raises(UserError, match=r"1 of 3 clients cannot start: no folder|llm.model"):
        federate(node_configs={2: {"llm.model": "./no/such/model"}})
    with pytest.raises(UserError, match=r"1 of 3 clients cannot start: node config sets run.seed"):
        federate(node_configs={0: {"run.seed": 5}})


def test_two_nodes_of_one_index(federate: Federate) -> None:
    with pytest.raises(UserError, match=r"nodes with partition-id \[0, 0, 2\]"):
        federate(node_configs={1: {"partition-id": 0}})


def test_a_budget_that_pays_for_no_round_is_one_sentence(federate: Federate) -> None:
    with pytest.raises(UserError, match=r"ended before its first round: the 100 circuits left do"):
        federate("stop.circuits=100")


def test_preparation_is_round_zero_of_the_ledger(small_run: Any) -> None:
    ran = small_run
    entries = json.loads((ran.folder / "ledger.json").read_text())["entries"]
    prepared = [entry for entry in entries if entry["round"] == 0]
    assert len(prepared) == 3
    assert all(entry["bytes_up"] > 8 * 136 * 136 for entry in prepared)  # the second moment


def test_the_budget_pays_for_the_final_test_too(federate: Federate) -> None:
    given = ["evaluation.mode=federated", "data.server_rows=0", "run.rounds=9"]
    ran = federate(*given, "stop.circuits=60000")
    assert 40000 < ran.summary["ledger"]["circuits"] <= 60000


def test_a_node_that_lies_about_its_rows_is_not_counted(federate: Federate) -> None:
    def inflate(order: Message, reply: Message) -> Message:
        kind, client = order.metadata.message_type, order.metadata.dst_node_id - 1000
        if kind == "evaluate" and client == 1:
            reply.content.metric_records[METRICS]["rows"] = 10**6
        return reply

    ran = federate("evaluation.mode=federated", "data.server_rows=0", spoil=inflate)
    assert ran.summary["test"]["sites"] == 2
    assert "client 1: evaluation dropped: 1000000 rows instead of 20" in "".join(
        ran.summary["test"]["failures"]
    )


def test_a_site_that_never_evaluates_is_on_record(federate: Federate) -> None:
    def silent(order: Message, reply: Message) -> Message | None:
        mine = order.metadata.dst_node_id == 1002
        return None if mine and order.metadata.message_type == "evaluate" else reply

    ran = federate("evaluation.mode=federated", "data.server_rows=0", spoil=silent)
    assert ran.summary["test"]["sites"] == 2
    assert ran.summary["test"]["failures"] == ["client 2: no evaluation in time"]
    assert ran.events("round")[0]["failures"] == ["client 2: no evaluation in time"]


def test_baselines_can_be_left_out(federate: Federate) -> None:
    for mode in ("evaluation.mode=central", "evaluation.mode=federated"):
        assert (
            federate(mode, "data.server_rows=0", "evaluation.baselines=false").summary["baselines"]
            == {}
        )


def test_a_backend_that_is_not_there_is_told_before_anybody_fine_tunes(federate: Federate) -> None:
    with pytest.raises(UserError, match=r"3 of 3 clients cannot start: .*no.such.device"):
        federate("quantum.backend=pennylane:no.such.device")


def test_a_used_folder_is_refused(tmp_path: Path) -> None:
    from flwr.app import Context, RecordDict

    from server_app.app import RunFailedError, main

    (tmp_path / "metrics.jsonl").write_text("{}\n")
    context = Context(1, 1, {}, RecordDict(), {"run.folder": str(tmp_path)})
    with pytest.raises(RunFailedError, match="holds a run; accepted: a new folder"):
        main(None, context)  # type: ignore[arg-type]


def test_budget_of_circuits_is_kept_to_the_circuit(federate: Federate) -> None:
    ran = federate("stop.circuits=60000", "run.rounds=9")
    assert 0 < ran.summary["ledger"]["circuits"] <= 60000
    assert "circuits" in ran.summary["stop_reason"]


# --- a user's own data --------------------------------------------------------------------


def site_file(path: Path, rows: int, seed: int, label: Callable[[int], str]) -> None:
    rng = np.random.default_rng(seed)
    lines = ["text,label"]
    for row in range(rows):
        weights = (0.4, 0.1, 0.1, 0.4) if row % 2 else (0.1, 0.4, 0.4, 0.1)
        lines.append("".join(rng.choice(list("ACGT"), 60, p=weights)) + "," + label(row % 2))
    path.write_text("\n".join(lines) + "\n")


def test_one_file_a_site(federate: Federate, tmp_path: Path) -> None:
    for client in range(3):
        site_file(tmp_path / f"site-{client}.csv", 60, client, ("gc", "at").__getitem__)
    ran = federate(
        "data.source=csv",
        "data.kind=dna",
        "data.per_site=true",
        f"data.path={tmp_path}/site-{{client}}.csv",
        "data.labels=gc,at",
        "data.train_rows=0",
        "data.test_rows=0",
        "data.server_rows=0",
        "evaluation.mode=federated",
        *NO_TEACHER,
    )
    prepared = ran.events("prepared")[0]
    assert prepared["classes"] == ["gc", "at"]
    assert ran.summary["test"]["rows"] == 3 * 12
    assert ran.summary["test"]["accuracy"] > 0.8


def test_sites_name_their_columns_themselves(federate: Federate, tmp_path: Path) -> None:
    """Two sites, one class name with a comma, and in each file other columns."""
    letters = np.random.default_rng(0).choice(list("ACGT"), (60, 40))
    columns = [("sequence", "diagnosis"), ("text", "label")]
    for client, header in enumerate(columns):
        with (tmp_path / f"site-{client}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(header)
            rows.writerows(
                ("".join(r), ("well", "ill, badly")[k % 2]) for k, r in enumerate(letters)
            )
    ran = federate(
        "run.clients=2",
        "data.source=csv",
        "data.kind=dna",
        "data.per_site=true",
        f"data.path={tmp_path}/site-{{client}}.csv",
        'data.labels=well,"ill, badly"',
        "data.train_rows=0",
        "data.test_rows=0",
        "data.server_rows=0",
        "evaluation.mode=federated",
        *NO_TEACHER,
        node_configs={0: {"data.text_column": "sequence", "data.label_column": "diagnosis"}},
    )
    (prepared,) = ran.events("prepared")
    assert prepared["classes"] == ["well", "ill, badly"]
    assert [client["train_rows"] for client in prepared["clients"]] == [38, 38]
    assert ran.summary["status"] == "completed"
