"""What a study is to run: axes, cells with their settings, seeds, and the reference."""

from __future__ import annotations

import itertools
import operator
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import SECTIONS, Settings, SettingsError, UserError, flatten
from core.settings.parsing import short_repr
from llm_qfl.configuration import Folder, configure, dotted_key, flat_values
from reporting.study_record import COLUMNS

PLACES = ("run.name", "run.output", "run.folder", "run.report")
"""Settings that change no figure; of a study's runs the study sets them."""

MOST_SEED = 2**31 - 1

Group = Mapping[str, Any]
"""Settings that one value of an axis stands for, and perhaps a ``config``."""


@dataclass(frozen=True)
class Cell:
    """One combination of the axes' values.

    Attributes
    ----------
    values : Mapping
        Its value of each axis.
    settings : Settings
        Its settings, but for the seed and the folder.
    """

    values: Mapping[str, Any]
    settings: Settings

    def __str__(self) -> str:
        values = self.values.values()
        return ", ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values)


@dataclass(frozen=True)
class Plan:
    """A study before it runs; everything is checked.

    Attributes
    ----------
    cells : tuple of Cell
        In the order of the axes, the first one outermost.
    seeds : tuple of int
        The same for every cell.
    reference : Mapping
        Values by axis: a cell is compared with the one that has these, and else its own.
    target : float, "reference" or None
        Validation accuracy whose cost is compared; ``"reference"``: what the reference of the same
        seed ends with, less `margin`.
    figures : tuple of str
        More figures of a run, by their path in ``summary.json``.
    runner : str
        ``module:function`` that runs a cell in the place of `llm_qfl.run`; empty: that.
    folder : Path
        Of the study.
    notices : tuple of str
        Settings that have no effect in a cell, and were dropped there.
    """

    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    reference: Mapping[str, Any]
    target: float | str | None
    margin: float
    figures: tuple[str, ...]
    runner: str
    folder: Path
    notices: tuple[str, ...] = ()

    @property
    def axes(self) -> dict[str, list[Any]]:
        """Values by axis, in order."""
        return axes_of(self.cells)

    def is_reference(self, cell: Cell) -> bool:
        """Whether a cell is one that others are compared with."""
        return all(cell.values[axis] == value for axis, value in self.reference.items())


def axes_of(cells: Sequence[Cell]) -> dict[str, list[Any]]:
    """Return the values that cells have, by axis, in order."""
    names = list(cells[0].values) if cells else []
    return {name: list(dict.fromkeys(cell.values[name] for cell in cells)) for name in names}


def make_plan(
    config: Any,
    grid: Any,
    overrides: Group,
    *,
    seeds: Any,
    reference: Any,
    target: Any,
    margin: Any,
    figures: Any,
    runner: Any,
    folder: Folder,
    only: Sequence[tuple[str, str]] = (),
) -> Plan:
    """Check a study; arguments as those of `llm_qfl.study`.

    Parameters
    ----------
    only : sequence of (axis, value)
        Leave out cells with other values of these axes, but for the reference's.

    Raises
    ------
    SettingsError
        One line.
    """
    base = list(config) if isinstance(config, list | tuple) else [config]
    axes = _axes(grid)
    groups = [[set(_own(group)) for _, group in values] for values in axes.values()]
    for own in groups:
        check_values(set.union(*own), ())
        check_values(set.intersection(*own), overrides)  # of a part of an axis it is the default
    notices: dict[str, None] = {}
    cells = list(_cells(base, axes, overrides, notices))
    names = [tuple(cell.values.values()) for cell in cells]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise SettingsError(f"the cell {repeated[0]} twice", "each once", "remove one")
    whole = Plan(
        tuple(cells),
        check_seeds(seeds),
        {},
        _target(target),
        _number("margin", margin),
        check_figures(figures),
        check_runner(runner),
        check_folder(folder),
        tuple(notices),
    )
    held = Plan(**{**vars(whole), "reference": _reference(reference, whole.axes)})
    return Plan(**{**vars(held), "cells": _chosen(held, only)})


def _axes(grid: Any) -> dict[str, list[tuple[str | None, Group]]]:
    """Return each axis's values: a name, None where the settings give it, and what it sets."""
    if not isinstance(grid, Mapping) or not grid:
        accepted = "settings with lists of values, or axes of named groups of settings"
        raise SettingsError(f"grid = {short_repr(grid)}", accepted, "give at least one")
    axes: dict[str, list[tuple[str | None, Group]]] = {}
    for key, values in _unfolded(grid):
        if not isinstance(key, str):
            raise SettingsError(f"the axis {key!r}", "text", "name a setting, or an axis")
        if isinstance(values, Mapping) and values:
            _check_groups(key, values)
            axes[key] = list(values.items())
        elif isinstance(values, str) or not isinstance(values, Sequence) or not values:
            accepted = "a list of values, or a table of named groups of settings"
            raise SettingsError(f"grid[{key!r}] = {short_repr(values)}", accepted, "give one")
        else:
            axis = dotted_key(key) if key in COLUMNS else key
            axes[axis] = [(None, {key: value}) for value in values]
    for taken in COLUMNS & axes.keys():
        raise SettingsError(f"the axis {taken!r}", "a name that no figure has", "choose another")
    return axes


def _unfolded(grid: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield axes; a section's table, as TOML has it, is an axis for each of its keys."""
    for key, values in grid.items():
        lists = isinstance(values, Mapping) and [isinstance(v, list) for v in values.values()]
        if key in SECTIONS and lists and all(lists):
            yield from ((f"{key}.{leaf}", inner) for leaf, inner in values.items())
        else:
            yield key, values


def _own(group: Group) -> dict[str, Any]:
    """Return the settings of an axis's value, by dotted key."""
    return flat_values({key: value for key, value in group.items() if key != "config"})


def check_values(varied: Collection[str], overrides: Collection[str]) -> None:
    """Refuse settings that the study itself sets, and values that its own ones would replace.

    Parameters
    ----------
    varied : collection of str
        Settings that the study varies, by dotted key.
    overrides : collection of str
        Settings of all its runs.
    """
    if "run.seed" in varied or "run.seed" in overrides:
        raise SettingsError(
            "run.seed in a study", "seeds = [...], for every cell", "name them there"
        )
    if places := set(PLACES) & set(varied):
        accepted = "settings of what a run does; the study names its runs' folders"
        raise SettingsError(f"{min(places)} in a grid or search", accepted, "leave it out")
    if both := set(varied) & set(overrides):
        given = f"{min(both)}, of which the study has values, with another for all its runs"
        raise SettingsError(given, "one of both", "leave one out, or see --only")


def _check_groups(axis: str, groups: Mapping[str, Any]) -> None:
    for name, group in groups.items():
        if not isinstance(group, Mapping):
            given = f"grid[{axis!r}][{name!r}] = {short_repr(group)}"
            raise SettingsError(given, "a table of settings", f"write {name} = {{key = value}}")


def _cells(
    base: list[Any],
    axes: Mapping[str, list[tuple[str | None, Group]]],
    overrides: Group,
    notices: dict[str, None],
) -> Iterator[Cell]:
    """Yield every combination; `notices` takes what was dropped."""
    for choice in itertools.product(*axes.values()):
        configs, values = [*base, overrides], dict[str, Any]()
        for _, group in choice:
            more = group.get("config", [])
            configs[-1:-1] = more if isinstance(more, list) else [more]
            own = _own(group)
            if both := own.keys() & values.keys():
                raise SettingsError(f"two axes set {min(both)}", "one of them", "change one axis")
            values |= own
        named = {axis: name for axis, (name, _) in zip(axes, choice, strict=True)}
        where = ", ".join(f"{axis} {name}" for axis, name in named.items() if name)
        try:
            settings, dropped = configure(configs, values)
        except UserError as error:
            raise SettingsError(f"{where}: {error}" if where else str(error)) from None
        notices |= dict.fromkeys(dropped)
        flat: Mapping[str, Any] = flatten(settings)
        yield Cell(
            {
                axis: flat[dotted_key(next(iter(group)))] if name is None else name
                for axis, (name, group) in zip(axes, choice, strict=True)
            },
            settings,
        )


def check_seeds(seeds: Any) -> tuple[int, ...]:
    """Return the seeds; a number stands for 0 to below it."""
    accepted = f"a list of whole numbers from 0 to {MOST_SEED}, each once, or how many"
    if isinstance(seeds, int) and not isinstance(seeds, bool) and 0 < seeds <= 10_000:
        return tuple(range(seeds))
    try:
        found = tuple(operator.index(seed) for seed in seeds)
    except TypeError:
        raise SettingsError(f"seeds = {short_repr(seeds)}", accepted, "give one") from None
    if not found or len(set(found)) < len(found) or min(found) < 0 or max(found) > MOST_SEED:
        raise SettingsError(f"seeds = {short_repr(seeds)}", accepted, "give one")
    return found


def check_folder(folder: Any) -> Path:
    """Return the study's folder."""
    if isinstance(folder, str | os.PathLike) and str(folder):
        return Path(folder)
    raise SettingsError(f"folder = {short_repr(folder)}", "a folder's path", "give one")


def _target(target: Any) -> float | str | None:
    if target is None or target == "reference":
        return target  # type: ignore[no-any-return]
    if isinstance(target, int | float) and target is not True and 0 < target <= 1:
        return float(target)
    accepted = "a validation accuracy above 0, at most 1, or 'reference'"
    raise SettingsError(f"target = {short_repr(target)}", accepted, "say 0.9 for 90 %")


def _number(name: str, value: Any) -> float:
    if isinstance(value, int | float) and 0 <= value < 1:
        return float(value)
    raise SettingsError(f"{name} = {short_repr(value)}", "a number from 0 to below 1", "give one")


def check_figures(figures: Any) -> tuple[str, ...]:
    """Return the paths of a study's own figures."""
    if isinstance(figures, list | tuple) and all(isinstance(one, str) for one in figures):
        return tuple(figures)
    accepted = "a list of paths in summary.json, for instance ['validation.accuracy']"
    raise SettingsError(f"figures = {short_repr(figures)}", accepted, "give one")


def check_runner(runner: Any) -> str:
    """Return the runner's ``module:function``; empty for none."""
    from core.registry import OWN_FILE

    if not runner:
        return ""
    name = runner
    if callable(runner):
        name = f"{runner.__module__}:{runner.__qualname__}"
    if not isinstance(name, str) or not OWN_FILE.fullmatch(name):
        accepted = "module:function, which a new process can import"
        raise SettingsError(f"runner = {short_repr(runner)}", accepted, "name such a function")
    return name


def _reference(given: Any, axes: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Return the reference's value of each axis that is compared."""
    shown = "; ".join(f"{axis}: {', '.join(map(str, v))}" for axis, v in axes.items())
    refused = SettingsError(
        f"reference = {short_repr(given)}", f"values of the axes ({shown})", "name such values"
    )
    if given is None:
        axis = next(iter(axes))
        return {axis: axes[axis][0]}
    if isinstance(given, list | tuple):
        found = dict(zip(axes, given, strict=False))
        if len(given) != len(axes):
            raise refused
    elif isinstance(given, Mapping):
        found = dict(flat_axes(given, axes))
    else:
        having = [axis for axis, values in axes.items() if given in values]
        if len(having) != 1:
            raise refused
        found = {having[0]: given}
    if not found or any(value not in axes.get(axis, ()) for axis, value in found.items()):
        raise refused
    return found


def flat_axes(given: Mapping[str, Any], axes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield axes and values, where TOML has made a table of a section's key."""
    for key, value in given.items():
        if key not in axes and isinstance(value, Mapping):
            yield from ((f"{key}.{leaf}", inner) for leaf, inner in value.items())
        else:
            yield key, value


def _chosen(plan: Plan, only: Sequence[tuple[str, str]]) -> tuple[Cell, ...]:
    """Return the cells that are wanted, and those that they are compared with."""
    wanted: dict[str, set[str]] = {}
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in only):
        raise SettingsError(
            f"only = {short_repr(only)}", "pairs of an axis and a value", "give such"
        )
    for axis, value in only:
        value = str(value)
        if axis not in plan.axes or value not in map(str, plan.axes[axis]):
            shown = "; ".join(f"{a}: {', '.join(map(str, v))}" for a, v in plan.axes.items())
            raise SettingsError(f"--only {axis}={value}", shown, "name a value of an axis")
        wanted.setdefault(axis, set()).add(value)

    def holds(cell: Cell, axes: Mapping[str, set[str]]) -> bool:
        return all(str(cell.values[axis]) in values for axis, values in axes.items())

    others = {axis: values for axis, values in wanted.items() if axis not in plan.reference}
    return tuple(
        cell
        for cell in plan.cells
        if holds(cell, wanted) or (plan.is_reference(cell) and holds(cell, others))
    )
