"""Settings of rows and features."""

from __future__ import annotations

from typing import Literal

from core.settings.declare import Section, above, setting, when

TABLES = ("csv", "jsonl")
"""Sources that are a user's own files."""

TABULAR = when("data.source", *TABLES)
SHARED_OUT = when("data.per_site", False)


class DataSettings(Section):
    """Where rows come from, and how they are shared out."""

    source: Literal["dna-demo", "tweet-eval", "genomic", "csv", "jsonl"] = setting(
        "dna-demo", per_node=True
    )
    """Data set; `dna-demo` is synthetic."""
    path: str = setting(
        "", applies_when=when("data.source", "tweet-eval", "genomic", "csv", "jsonl"), per_node=True
    )
    """Local folder (tweet-eval, genomic) or file (csv, jsonl); empty: from the hub."""
    test_path: str = setting("", applies_when=TABULAR, per_node=True)
    """File of held-out test rows; empty: `data.test_fraction` of the rows are held out."""
    per_site: bool = setting(False, applies_when=TABULAR)
    """Each node's `data.path` is its own file, nothing is shared out; `{client}` in a path stands
    for the node's index."""
    task: str = setting("sentiment", applies_when=when("data.source", "tweet-eval"))
    """TweetEval task; its folder is `<data.path>/<task>` or `data.path` itself."""
    hub_name: str = setting(
        "katarinagresova/Genomic_Benchmarks_demo_human_or_worm",
        applies_when=when("data.source", "genomic") + when("data.path", ""),
    )
    """Hub id of the Genomic Benchmarks set."""
    delimiter: Literal["auto", "comma", "semicolon", "tab", "pipe"] = setting(
        "auto", applies_when=when("data.source", "csv"), per_node=True
    )
    """What separates the fields; `auto` finds it by the names in the header, and reports it."""
    kind: Literal["text", "dna"] = setting("text", applies_when=TABULAR)
    """What the text column holds."""
    text_column: str = setting("text", applies_when=TABULAR, per_node=True)
    """Column of the text or sequence."""
    label_column: str = setting("label", applies_when=TABULAR, per_node=True)
    """Column of the label."""
    labels: str = setting("", applies_when=TABULAR, listed=True)
    """Class names in order, comma-separated; one that holds a comma in double quotes (`--set
    'data.labels="yes, often",no'`), or in a file as an array (`labels = ["yes, often", "no"]`);
    empty: the sorted labels of the file. Required with `data.per_site`."""
    train_rows: int = setting(0, applies_when=SHARED_OUT, ge=0)
    """Training rows in all, drawn stratified before they are shared out, with
    `data.partition=column` within each site; 0: all (dna-demo: 1,200)."""
    test_rows: int = setting(0, ge=0)
    """Test rows, drawn stratified; 0: all (dna-demo: 1,000)."""
    test_fraction: float = setting(
        0.2, applies_when=TABULAR + when("data.test_path", ""), gt=0, lt=1
    )
    """Share of rows held out for the final test where no test file is given."""
    val_fraction: float = setting(0.2, gt=0, lt=1)
    """Share of a client's rows held out for validation, stratified."""
    server_rows: int = setting(0, applies_when=when("evaluation.mode", "central"), ge=0)
    """Rows that the server holds for validation and no client sees; 0: 300, or a fifth of the rows
    if that is less; of an official validation split up to 300."""
    partition: Literal["iid", "dirichlet", "quantity", "column"] = setting(
        "iid", applies_when=SHARED_OUT
    )
    """How rows are shared out: evenly, by label skew, by quantity skew, by a column."""
    alpha: float = setting(0.5, applies_when=when("data.partition", "dirichlet", "quantity"), gt=0)
    """Dirichlet concentration of `dirichlet` and `quantity`: smaller is more skewed."""
    partition_column: str = setting("", applies_when=when("data.partition", "column"))
    """Column whose values name the site (hospital, lab, user)."""
    label_noise: float = setting(0.0, applies_when=SHARED_OUT, ge=0, lt=1)
    """Share of a site's training and validation labels flipped at random, for experiments."""
    noisy_clients: int = setting(0, applies_when=above("data.label_noise", 0), ge=0)
    """How many clients, from the first on, have their labels flipped; 0: all."""
    heterogeneity: float = setting(0.0, applies_when=when("data.source", "dna-demo"), ge=0, le=1)
    """How far each client's Markov chains are pulled towards uniform letters, 0 to 1: the client's
    own pull is drawn from [0, this]."""


class FeatureSettings(Section):
    """What the quantum model sees of a row."""

    kind: Literal["auto", "embedding", "kmer"] = setting("auto")
    """Raw features: mean-pooled last hidden state of the frozen base LLM, or strand-symmetric k-mer
    frequencies; auto: kmer for DNA, embedding for text."""
    encoder: Literal["base", "shared"] = setting(
        "base",
        applies_when=when("features.kind", "auto", "embedding")
        + when("llm.federated", "ffa", "fedavg"),
    )
    """The LLM that embeds: the frozen base, or the base with the shared adapter of `llm.federated`,
    which makes embeddings the features of DNA too."""
    k: int = setting(4, applies_when=when("features.kind", "auto", "kmer"), ge=1, le=6)
    """Length of the k-mers."""
    projection: Literal["lda", "pca", "random"] = setting("lda")
    """Federated projection to the qubits: regularised LDA directions, then principal directions of
    the residual; principal directions; or a random orthonormal map."""
    shrinkage: float = setting(0.1, applies_when=when("features.projection", "lda"), ge=0, le=1)
    """Shrinkage of the within-class covariance towards its mean variance."""
    clip: float = setting(3.0, gt=0)
    """Projected features are clipped at this many sigma."""
