# examples/quickstart.py
"""Train on synthetic DNA, look at the tables, and compare two agents over seeds."""

import llm_qfl

small = {
    "clients": 2,
    "rounds": 3,
    "data": {"train_rows": 80, "test_rows": 60, "server_rows": 40},
    "distill": {"weight": 0.0},  # no local language model: quick
}


def good_enough(figures):
    """End the run once the validation accuracy is there."""
    return "good enough" if figures["accuracy"] >= 0.95 else None


result = llm_qfl.run(small, agent="all", train={"steps": 20}, seed=1, callbacks=good_enough)
print(result)
print(result.rounds[["round", "loss", "accuracy", "circuits_total"]])
print(result.ledger.groupby("client")[["circuits", "train_seconds"]].sum())
print(result.confusion)
print("report:", result.report())

again = llm_qfl.read("runs/latest")  # the same, from its folder
assert again.summary == result.summary

study = llm_qfl.study(small, grid={"agent": ["all", "random"]}, seeds=[1, 2], train={"steps": 5})
print(study.summary[["agent", "accuracy", "accuracy_gain", "accuracy_p"]])
