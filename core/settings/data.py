"""The settings of a run's rows and features; a part of the tree of `core.settings.schema`."""

from __future__ import annotations

from typing import Literal

from core.settings.declare import Section, setting

TABULAR = ("data.source", ("csv", "jsonl"))
DEMO = ("data.source", ("dna-demo",))


class DataSettings(Section):
    """Where rows come from, and how they are shared out."""

    source: Literal["dna-demo", "tweet-eval", "genomic", "csv", "jsonl"] = setting(
        "dna-demo", "Data set; `dna-demo` is synthetic.", per_node=True
    )
    path: str = setting(
        "",
        "Local folder (tweet-eval, genomic) or file (csv, jsonl); empty: from the hub.",
        used_when=(("data.source", ("tweet-eval", "genomic", "csv", "jsonl")),),
        per_node=True,
    )
    test_path: str = setting(
        "",
        "File of held-out test rows; empty: `data.test_fraction` of the rows are held out.",
        used_when=(TABULAR,),
        per_node=True,
    )
    per_site: bool = setting(
        False,
        "Each node's `data.path` is its own file, nothing is shared out; `{client}` in a path "
        "stands for the node's index.",
        used_when=(TABULAR,),
    )
    task: str = setting(
        "sentiment",
        "TweetEval task; its folder is `<data.path>/<task>` or `data.path` itself.",
        used_when=(("data.source", ("tweet-eval",)),),
    )
    hub_name: str = setting(
        "katarinagresova/Genomic_Benchmarks_demo_human_or_worm",
        "Hub id of the Genomic Benchmarks set.",
        used_when=(("data.source", ("genomic",)), ("data.path", ("",))),
    )
    delimiter: Literal["auto", "comma", "semicolon", "tab", "pipe"] = setting(
        "auto",
        "What separates the fields; `auto` finds it by the names in the header, and says so.",
        used_when=(("data.source", ("csv",)),),
        per_node=True,
    )
    kind: Literal["text", "dna"] = setting(
        "text", "What the text column holds.", used_when=(TABULAR,)
    )
    text_column: str = setting(
        "text", "Column of the text or sequence.", used_when=(TABULAR,), per_node=True
    )
    label_column: str = setting(
        "label", "Column of the label.", used_when=(TABULAR,), per_node=True
    )
    labels: str = setting(
        "",
        "Class names in order, comma-separated; one that holds a comma in double quotes "
        "(`--set 'data.labels=\"yes, often\",no'`), or in a file as an array "
        '(`labels = ["yes, often", "no"]`); empty: the sorted labels of the file. '
        "Required with `data.per_site`.",
        used_when=(TABULAR,),
        listed=True,
    )
    train_rows: int = setting(
        0,
        "Training rows in all, drawn stratified before they are shared out, with "
        "`data.partition=column` within each site; 0: all (dna-demo: 1,200).",
        used_when=(("data.per_site", (False,)),),
        ge=0,
    )
    test_rows: int = setting(0, "Test rows, drawn stratified; 0: all (dna-demo: 1,000).", ge=0)
    test_fraction: float = setting(
        0.2,
        "Share of rows held out for the final test where no test file is given.",
        used_when=(TABULAR, ("data.test_path", ("",))),
        gt=0,
        lt=1,
    )
    val_fraction: float = setting(
        0.2, "Share of a client's rows kept for validation, stratified.", gt=0, lt=1
    )
    server_rows: int = setting(
        0,
        "Rows that the server holds for validation and no client sees; 0: 300, or a fifth of "
        "the rows if that is less; of an official validation split up to 300.",
        used_when=(("evaluation.mode", ("central",)),),
        ge=0,
    )
    partition: Literal["iid", "dirichlet", "quantity", "column"] = setting(
        "iid",
        "How rows are shared out: evenly, by label skew, by quantity skew, by a column.",
        used_when=(("data.per_site", (False,)),),
    )
    alpha: float = setting(
        0.5,
        "Dirichlet concentration of `dirichlet` and `quantity`: smaller is more skewed.",
        used_when=(("data.partition", ("dirichlet", "quantity")),),
        gt=0,
    )
    partition_column: str = setting(
        "",
        "Column whose values name the site (hospital, lab, user).",
        used_when=(("data.partition", ("column",)),),
    )
    label_noise: float = setting(
        0.0,
        "Share of a site's training and validation labels flipped at random, for experiments.",
        used_when=(("data.per_site", (False,)),),
        ge=0,
        lt=1,
    )
    noisy_clients: int = setting(
        0,
        "How many clients, from the first on, have their labels flipped; 0: all.",
        used_when=(("data.label_noise", ">0"),),
        ge=0,
    )
    heterogeneity: float = setting(
        0.0,
        "How far each client's Markov chains are pulled towards uniform letters, 0 to 1: "
        "the client's own pull is drawn from [0, this].",
        used_when=(DEMO,),
        ge=0,
        le=1,
    )


class FeatureSettings(Section):
    """What the quantum model sees of a row."""

    kind: Literal["auto", "embedding", "kmer"] = setting(
        "auto",
        "Raw features: mean-pooled last hidden state of the frozen base LLM, or strand-symmetric "
        "k-mer frequencies; auto: kmer for DNA, embedding for text.",
    )
    encoder: Literal["base", "shared"] = setting(
        "base",
        "The LLM that embeds: the frozen base, or the base with the shared adapter of "
        "`llm.federated`, which makes embeddings the features of DNA too.",
        used_when=(
            ("features.kind", ("auto", "embedding")),
            ("llm.federated", ("ffa", "fedavg")),
        ),
    )
    k: int = setting(
        4,
        "Length of the k-mers.",
        used_when=(("features.kind", ("auto", "kmer")),),
        ge=1,
        le=6,
    )
    projection: Literal["lda", "pca", "random"] = setting(
        "lda",
        "Federated projection to the qubits: regularised LDA directions, then principal "
        "directions of the residual; principal directions; or a random orthonormal map.",
    )
    shrinkage: float = setting(
        0.1,
        "Shrinkage of the within-class covariance towards its mean variance.",
        used_when=(("features.projection", ("lda",)),),
        ge=0,
        le=1,
    )
    clip: float = setting(3.0, "Projected features are clipped at this many sigma.", gt=0)
