"""`llm-qfl new`: a small Flower app of the user's own, with a circuit and an agent to change."""

from __future__ import annotations

import getpass
import re
from pathlib import Path

from core import FIELDS, SettingsError, UserError, write_text
from core.formatting import toml_value
from core.settings.reference import config_tables
from llm_qfl.cli.app import version

TEMPLATE = Path(__file__).with_name("template")

OWN = {
    "run.clients": 2,
    "run.rounds": 3,
    "data.train_rows": 200,
    "data.test_rows": 100,
    "data.server_rows": 100,
    "quantum.model": "my_ansatz:MyAnsatz",
    "llm.epochs": 1,
    "agent.kind": "my_agent:MyAgent",
}
"""What a new project sets: a run of a minute, on synthetic DNA."""


def new(name: str) -> int:
    """Make a project in a new folder of this one, and say how to run it.

    Raises
    ------
    UserError
        If the name is none for a Flower app, or something of that name is there.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,31}", name):
        accepted = "a letter, then letters, digits and hyphens, at most 32 in all"
        raise SettingsError(f"the name {name!r}", accepted, "choose another")
    folder = Path.cwd() / name
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{name!r} is there already", "a new folder", "choose another name")
    facts = {"name": name, "version": version(), "publisher": _publisher()}
    values = {"run.name": name, **OWN}
    own: dict[str, dict[str, str]] = {}
    for key, value in values.items():
        section, _, leaf = key.partition(".")
        own.setdefault(section, {})[leaf] = toml_value(value)
    tables = config_tables({key: values.get(key, field.default) for key, field in FIELDS.items()})
    for source in sorted(TEMPLATE.rglob("*.jinja")):
        place = folder / source.relative_to(TEMPLATE).with_suffix("")
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, _rendered(source, **facts, own=own, tables=tables))
        print(place.relative_to(Path.cwd()))
    print(f"next: cd {name}; llm-qfl run --config config.toml")
    return 0


def _rendered(source: Path, **facts: object) -> str:
    from jinja2 import Template

    text = source.read_text(encoding="utf-8")
    return str(Template(text, keep_trailing_newline=True).render(**facts))


def _publisher() -> str:
    """Return the user's name, as far as Flower takes it."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        name = ""
    return re.sub(r"[^A-Za-z0-9-]", "-", name) or "me"
