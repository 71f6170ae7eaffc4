"""Extension points: what a run takes by name, and where such a thing comes from.

Five settings name a thing that a user may bring: an ansatz, an agent, a data set, an aggregation
and a local model. A name is one of four:

* one that we ship: a module of the point's folder, ``strong_ansatz.py`` is ``strong-ansatz``;
* one that this process has registered (`register`), for objects made in a notebook;
* one that an installed package declares as an entry point of the group ``llm_qfl.<point>``;
* ``module:attribute`` of a file of the user's own.

A shipped module hands out what a user's file would: there is one protocol for each point. What an
extension can do, and which settings it reads (`uses`), are attributes of its own.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import re
import secrets
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from core.errors import SettingsError, UserError, short_message
from core.own_modules import HOME, PACKAGES, taken_by
from core.own_modules import own_file as own_file
from core.points import POINTS as POINTS
from core.points import Point

OWN_FILE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
"""``module:attribute``."""

_registered: dict[tuple[str, str], Any] = {}
_sessions: dict[tuple[str, str], str] = {}


def register(point: str, name: str, extension: Any = None, *, replace: bool = False) -> Any:
    """Register an extension in this process, under a name that settings can use.

    Parameters
    ----------
    point : {"ansatz", "agent", "dataset", "aggregation", "model"}
        The extension point.
    name : str
        Its name: letters, digits, ``-`` and ``_``.
    extension : Any, optional
        The extension; left out, this is a decorator.
    replace : bool
        Whether it takes the place of what this process has registered under the name.

    Returns
    -------
    Any
        The extension, or the decorator.

    Raises
    ------
    SettingsError
        If there is no such point, the name is not one, or another extension has it.

    Examples
    --------
    >>> @register("agent", "patient")
    ... class Patient: ...
    """
    if extension is None:
        return functools.partial(register, point, name, replace=replace)
    known = _point(point)
    if not re.fullmatch(r"[A-Za-z][\w-]*", name):
        given = f"the name {name!r} for {known.setting}"
        raise SettingsError(given, "letters, digits, - and _, a letter first", "choose another")
    holder = None if replace else registered(point, name)
    if name in shipped(point) or (holder is not None and not _same(holder, extension)):
        taken = "one that ships" if name in shipped(point) else f"{_describe(holder)}"
        given = f"{_describe(extension)} registered as {known.name} {name!r}, which is {taken}"
        raise SettingsError(given, "a name of its own", "choose another name")
    same = _registered.get((point, name)) is extension
    if not same or not (isinstance(extension, type) or inspect.isroutine(extension)):
        _sessions[point, name] = secrets.token_hex(8)  # an object may have changed since
    _registered[point, name] = extension
    return extension


def registered(point: str, name: str) -> Any:
    """Return what this process has registered under a name; None if nothing."""
    return _registered.get((point, name))


def session(point: str, name: str) -> str:
    """Return what tells a registered extension from any other of its name, for keys of caches.

    Its name does not: a notebook's cell defines a class again, an object has arguments of its own.
    Of a name that this process has not registered an empty text.
    """
    return _sessions.get((point, name), "")


def shipped(point: str) -> tuple[str, ...]:
    """Return the names that we ship, sorted; nothing is imported."""
    return modules_of(_point(point).package)


@functools.cache
def modules_of(package: str) -> tuple[str, ...]:
    """Return the names that a package's modules stand for, sorted; nothing is imported."""
    folder = HOME / package.replace(".", "/")
    found = {entry.stem for entry in folder.glob("*.py")}
    found |= {entry.parent.name for entry in folder.glob("*/__init__.py")}
    return tuple(sorted(name.replace("_", "-") for name in found if not name.startswith("_")))


def names(point: str) -> tuple[str, ...]:
    """Return every name that can be used now: shipped, registered, of installed packages."""
    own = [name for kind, name in _registered if kind == point]
    return tuple(dict.fromkeys([*shipped(point), *own, *(e.name for e in _declared(point))]))


def check_name(point: str, name: str) -> None:
    """Refuse a name that nothing has; the extension itself is not imported.

    Raises
    ------
    SettingsError
        With the names that there are.
    """
    known = _point(point)
    if known.open or OWN_FILE.fullmatch(name) or name in shipped(point) or name in names(point):
        return
    near = difflib.get_close_matches(name, names(point), n=1, cutoff=0.5)
    accepted = f"{', '.join(names(point))}, or module:attribute of a file of yours"
    fix = f"did you mean {near[0]!r}?" if near else f"change {known.setting}"
    raise SettingsError(f"{known.setting} = {name!r}", accepted, fix)


def find(point: str, name: str) -> Any:
    """Return the extension that a name means; its module is imported.

    Raises
    ------
    SettingsError
        If nothing or more than one thing has the name, or its module cannot be imported: one line
        that names the file and what is expected of it.
    """
    known = _point(point)
    if (point, name) in _registered:
        return _registered[point, name]
    if name in shipped(point):
        return _from_module(known, name.replace("-", "_"))
    if OWN_FILE.fullmatch(name):
        return _from_file(known, name)
    declared = [entry for entry in _declared(point) if entry.name == name]
    if len({entry.value for entry in declared}) > 1:
        given = f"{known.setting} = {name!r}, which {' and '.join(map(_of_package, declared))} have"
        raise SettingsError(given, "one of that name", "remove one of the packages")
    if not declared:
        check_name(point, name)
        if known.other:
            return _from_module(known, known.other)
        raise SettingsError(f"{known.setting} = {name!r}", known.expected, "check the name")
    with _one_line(known, name, _of_package(declared[0])):
        return declared[0].load()


def is_extension(point: str, name: str) -> bool:
    """Whether a name is an extension's, where the setting takes other texts too."""
    return bool(OWN_FILE.fullmatch(name)) or name in names(point)


def declared(point: str, name: str, trait: str, default: Any = None) -> Any:
    """Return what an extension declares of itself, for instance ``may_stop`` or ``uses``.

    Of another text, where the setting takes such, the default, unless one extension stands for all.
    """
    known = _point(point)
    if known.open and not known.other and not is_extension(point, name):
        return default
    return getattr(find(point, name), trait, default)


def users(point: str, key: str) -> tuple[str, ...]:
    """Return the shipped extensions that read a setting."""
    return tuple(name for name in shipped(point) if key in declared(point, name, "uses", ()))


def build(point: str, name: str, settings: Any, options: dict[str, Any]) -> Any:
    """Build what an extension is for.

    A class or object with ``from_settings`` is given the run's settings; another class, its
    options as keyword arguments; anything else is taken as it is.

    Parameters
    ----------
    point, name : str
        The extension.
    settings : Settings
        The run's settings.
    options : dict
        What the point's ``options`` setting says.

    Raises
    ------
    SettingsError
        If it cannot be built: one line that names the file and what is expected.
    """
    known, extension = _point(point), find(point, name)
    with _one_line(known, name, _describe(extension)):
        if hasattr(extension, "from_settings"):
            return extension.from_settings(settings)
        if isinstance(extension, type):
            return extension(**options)
    if options:
        section = known.setting.partition(".")[0]
        given = f"{section}.options with {known.setting} = {name!r}, {_describe(extension)}"
        raise SettingsError(given, "a class, whose arguments they are", f"remove {section}.options")
    return extension


def source_file(point: str, name: str) -> Path | None:
    """Return the file that an extension is written in; None for one made in a notebook."""
    module = sys.modules.get(getattr(find(point, name), "__module__", "") or "")
    file = getattr(module, "__file__", None)
    return Path(file) if file else None


def _point(name: str) -> Point:
    if name not in POINTS:
        raise SettingsError(f"an extension of {name!r}", ", ".join(POINTS), "name one of them")
    return POINTS[name]


def _from_module(point: Point, module: str) -> Any:
    return getattr(importlib.import_module(f"{point.package}.{module}"), point.attribute)


def _from_file(point: Point, name: str) -> Any:
    """Import ``module:attribute``; the working folder is where a user's files are."""
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last: a folder of the user's must not stand in for ours
    own = own_file(name)
    if own is not None and (other := taken_by(own)):
        given = f"{point.setting} = {name!r}: {own.name} has the name of {other}"
        raise SettingsError(given, "a name that no other module has", "rename it")
    with _one_line(point, name, f"{module_name.replace('.', '/')}.py"):
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name not in (module_name, module_name.partition(".")[0]):
                raise
            given = f"{point.setting} = {name!r}: there is no module {module_name!r}"
            fix = f"put {module_name.replace('.', '/')}.py into this folder, or install its package"
            raise SettingsError(given, "module:attribute of a file of yours", fix) from None
        for part in attribute.split("."):
            if not hasattr(found, part):
                given = f"{point.setting} = {name!r}: {_file_of(module_name)} has no {attribute!r}"
                raise SettingsError(given, point.expected, "check the name behind the colon")
            found = getattr(found, part)
    return found


@contextmanager
def _one_line(point: Point, name: str, where: str) -> Iterator[None]:
    """Turn whatever a user's code raises into one line that names the file; not what ours does."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if name in shipped(point.name):
            raise
        raise bad_extension(point.name, name, error, where) from error


def bad_extension(point: str, name: str, error: Exception, where: str = "") -> SettingsError:
    """Describe in one line an exception that an extension raised.

    Parameters
    ----------
    point, name : str
        The extension.
    error : Exception
        What it raised.
    where : str, optional
        Its file, where the traceback does not show one of the user's.
    """
    home = _home(point, name)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_users(f.filename, home)]
    if frames:
        where = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}"
    elif isinstance(error, SyntaxError) and error.filename:
        where = f"{Path(error.filename).name}, line {error.lineno}"
    where = where or Path(home).name or name  # called with too many arguments, it has no frame
    known = _point(point)
    place = f"{known.setting} = {name!r}: {where} raises {type(error).__name__}"
    return SettingsError(
        f"{place}: {short_message(error)}",
        known.expected,
        "correct the file",
        elsewhere=f"{place}; that machine's log has the rest" if known.sees_rows else "",
    )


def _home(point: str, name: str) -> str:
    """Return the file of an extension's module; empty if none is loaded."""
    modules = [name.partition(":")[0], *(e.module for e in _declared(point) if e.name == name)]
    modules.append(getattr(_registered.get((point, name)), "__module__", None) or "")
    files = (getattr(sys.modules.get(module), "__file__", None) for module in modules)
    return next((file for file in files if file), "")


def _is_users(file: str, home: str) -> bool:
    """Whether a frame is of an extension's own code: its file, or no library's and none of ours."""
    ours = any(Path(file).is_relative_to(HOME / package) for package in PACKAGES)
    library = file.startswith(("<", sysconfig.get_paths()["stdlib"])) or "site-packages" in file
    return file == home or not (ours or library)


def _file_of(module: str) -> str:
    return Path(getattr(sys.modules[module], "__file__", None) or module).name


@functools.cache
def _declared(point: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of installed packages, without what is listed twice."""
    return tuple(dict.fromkeys(entry_points(group=f"llm_qfl.{point}")))


def _of_package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} ({entry.value})" if entry.dist else entry.value


def _same(one: Any, other: Any) -> bool:
    """Whether two objects are the same thing, perhaps defined again in a notebook's cell."""
    return one is other or (hasattr(one, "__qualname__") and _describe(one) == _describe(other))


def _describe(extension: Any) -> str:
    name = getattr(extension, "__qualname__", None) or type(extension).__qualname__
    module = getattr(extension, "__module__", "") or ""
    return f"{module}.{name}" if module else name
