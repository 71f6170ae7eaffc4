"""Settings of rows and features."""

from __future__ import annotations

from typing import Literal

from core.settings.declare import Conditions, Section, above, setting, unless, used_by, when

SHARED_OUT = when("data.per_site", False)
TRANSFERS = when("distill.kind", "kl", "permuted") + unless("distill.weight", 0.0)
"""Only a local model has something to say of rows without labels."""


def _read(leaf: str, own: bool = False) -> Conditions:
    """Require a data set that reads ``data.<leaf>``."""
    return used_by("dataset", f"data.{leaf}", own)


class DataSettings(Section):
    """Where rows come from, and how they are shared out."""

    source: str = setting("dna-demo", point="dataset", per_node=True)
    """Data set, or the format of files of your own (docs/data.md); `dna-demo` is synthetic."""
    options: str = setting("", applies_when=_read("options", own=True), per_node=True)
    """Arguments of a data set of your own: `key=value,key=value`."""
    path: str = setting("", applies_when=_read("path"), per_node=True)
    """Local file or folder; empty, for sets of the hub: from there."""
    test_path: str = setting("", applies_when=_read("test_path"), per_node=True)
    """File of held-out test rows; empty: `data.test_fraction` of the rows are held out."""
    per_site: bool = setting(False, applies_when=_read("per_site"))
    """Each node's `data.path` is its own file, nothing is shared out; `{client}` in a path stands
    for the node's index."""
    task: str = setting("sentiment", applies_when=_read("task"))
    """TweetEval task; its folder is `<data.path>/<task>` or `data.path` itself."""
    hub_name: str = setting(
        "katarinagresova/Genomic_Benchmarks_demo_human_or_worm",
        applies_when=_read("hub_name") + when("data.path", ""),
    )
    """Id of a data set on the Hugging Face hub; the default is that of `genomic`."""
    hub_config: str = setting("", applies_when=_read("hub_config"))
    """Configuration (subset) of the hub's data set; empty: its only one, or its default."""
    hub_revision: str = setting("", applies_when=_read("hub_revision") + when("data.path", ""))
    """Branch, tag or commit of the hub's data set; empty: the newest."""
    hub_splits: str = setting("", applies_when=_read("hub_splits"), listed=True)
    """The training split, and behind commas those of the test and of the server's validation;
    empty: `train`, `test` and `validation` where they are, and a line says which."""
    delimiter: Literal["auto", "comma", "semicolon", "tab", "pipe"] = setting(
        "auto", applies_when=_read("delimiter"), per_node=True
    )
    """What separates the fields; `auto` finds it by the names in the header, and reports it."""
    encoding: str = setting("auto", applies_when=_read("encoding"), per_node=True)
    """How a file's text is encoded: Python's name of a codec; `auto`: UTF-8, UTF-16 by its mark, or
    cp1252 where it must be, which is reported; else refused with what it may be."""
    label_pattern: str = setting("", applies_when=_read("label_pattern"), per_node=True)
    """Regular expression with one group, which is the label in a sequence's header, for instance
    `class=(\\w+)`; empty: `data.path` is a folder with a file a class."""
    kind: Literal["text", "dna"] = setting("text", applies_when=_read("kind"))
    """What the text column holds."""
    text_column: str = setting("text", applies_when=_read("text_column"), per_node=True)
    """Column of the text or sequence; where there is no `text`, the default, the one with another
    usual name, which is reported."""
    label_column: str = setting("label", applies_when=_read("label_column"), per_node=True)
    """Column of the label; where there is no `label`, the default, the one with another usual name,
    which is reported."""
    labels: str = setting("", applies_when=_read("labels"), listed=True)
    """Class names in order, comma-separated; one that holds a comma in double quotes (`--set
    'data.labels="yes, often",no'`), or in a file as an array (`labels = ["yes, often", "no"]`);
    empty: the sorted labels of the file. Required with `data.per_site`."""
    train_rows: int = setting(0, applies_when=SHARED_OUT, ge=0)
    """Training rows in all, drawn stratified before they are shared out, with
    `data.partition=column` within each site; 0: all (dna-demo: 1,200)."""
    unlabelled_rows: int = setting(
        0, applies_when=SHARED_OUT + above("data.train_rows", 0) + TRANSFERS, ge=0
    )
    """Further training rows in all whose labels nobody sees, drawn and shared out like
    `data.train_rows`: the sites train on their local model's soft labels of them."""
    unlabelled: str = setting("", applies_when=TRANSFERS, per_node=True)
    """Text file in UTF-8, a row a line, of rows without labels that a site adds to its training
    likewise; `{client}` stands for the node's index. No path: none."""
    test_rows: int = setting(0, ge=0)
    """Test rows, drawn stratified; 0: all (dna-demo: 1,000)."""
    test_fraction: float = setting(
        0.2, applies_when=_read("test_fraction", own=True) + when("data.test_path", ""), gt=0, lt=1
    )
    """Share of rows held out for the final test where the data set has no test rows."""
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
    partition_column: str = setting(
        "", applies_when=_read("partition_column") + when("data.partition", "column")
    )
    """Column whose values name the site (hospital, lab, user); a data set of your own names the
    sites itself."""
    label_noise: float = setting(0.0, applies_when=SHARED_OUT, ge=0, lt=1)
    """Share of a site's training and validation labels flipped at random, for experiments."""
    noisy_clients: int = setting(0, applies_when=above("data.label_noise", 0), ge=0)
    """How many clients, from the first on, have their labels flipped; 0: all."""
    heterogeneity: float = setting(0.0, applies_when=_read("heterogeneity"), ge=0, le=1)
    """How far each client's Markov chains are pulled towards uniform letters, 0 to 1: the client's
    own pull is drawn from [0, this]."""
