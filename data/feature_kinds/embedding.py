"""Embeddings: the mean-pooled last hidden state of the frozen base language model."""

from data.feature_kinds._kind import FeatureKind

KIND = FeatureKind(
    rows=("text", "dna"),
    make=lambda rows, settings, embed: embed(rows),
    columns=lambda settings, length: 0,
    embeds=True,
    uses=("features.encoder",),
)
