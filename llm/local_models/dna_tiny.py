"""`dna-tiny`: the DNA language model in the package, what ``auto`` is for DNA."""

from __future__ import annotations

from core import ModelError
from llm.local_models._transformer import Transformer
from llm.protocol import Kind, Progress, silent
from llm.sources import Source


class DnaTiny(Transformer):
    """The embedded DNA language model (`llm.dna_tiny`)."""

    auto_for = "dna"
    uses = tuple(key for key in Transformer.uses if key != "llm.layers")  # it has two

    @classmethod
    def find_source(cls, name: str, kind: Kind, progress: Progress = silent) -> Source:
        """Return its source: it has no folder, its weights are in the package."""
        from llm import dna_tiny

        if kind != "dna":
            raise ModelError(
                "llm.model dna-tiny reads DNA only and the rows are text",
                "minilm, a folder or a hub id",
                "set llm.model to one of them, or data.kind to dna if the rows are sequences",
            )
        return Source(name, None, "", True, "dna-tiny:" + str(dna_tiny.read()["sha256"]))


MODEL = DnaTiny
