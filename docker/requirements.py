"""Print what pip is to install for the image: the build backend, the dependencies, some extras.

``python requirements.py pyproject.toml embedded,dev``; only pyproject.toml decides, so the
image's layer of packages is built again when that file changes and at no other time.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def requirements(pyproject: str, extras: str) -> list[str]:
    """Return the requirements that a pyproject.toml names.

    Parameters
    ----------
    pyproject : str
        The file's text.
    extras : str
        Names of optional dependencies, comma-separated.
    """
    tree = tomllib.loads(pyproject)
    project = tree["project"]
    more = [name.strip() for name in extras.split(",") if name.strip()]
    chosen = [line for name in more for line in project["optional-dependencies"][name]]
    return [*tree["build-system"]["requires"], *project["dependencies"], *chosen]


if __name__ == "__main__":
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    print("\n".join(requirements(text, sys.argv[2])))
