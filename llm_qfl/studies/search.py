"""Search by validation loss: Optuna proposes settings, runs try them, the best one is tested.

A trial is proposed from the finished trials of earlier batches and a seed of its own, so one seed
gives the same trials whatever was interrupted and however many run at once. Only the winner's
runs, made again with `evaluation.test`, look at the test rows.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from core import FIELDS, SECTIONS, SettingsError, derive_seed, flatten, read_json
from core.settings.parsing import short_repr
from llm_qfl.configuration import configure, dotted_key
from llm_qfl.studies.plan import (
    PLACES,
    Cell,
    Plan,
    check_figures,
    check_folder,
    check_runner,
    check_seeds,
    check_values,
)
from llm_qfl.studies.running import Conductor, Run, held, preflight
from llm_qfl.studies.workers import Pool

if TYPE_CHECKING:
    import optuna

BATCH = 4
"""Trials that are proposed together: they know those of earlier batches, not each other."""

KEYS = ("trials", "seed", "ranges")
SCALARS = (bool, int, float, str)
REFUSED = {"reference": None, "target": None, "margin": 0.0, "only": ()}
"""What a search would ignore."""


def find_best(
    search: Mapping[str, Any],
    requested: Mapping[str, Any],
    overrides: Mapping[str, Any],
    jobs: int,
    callbacks: Any,
    quiet: bool | None,
) -> None:
    """Run the trials that are missing, then test the best; arguments as `llm_qfl.study` has them.

    Raises
    ------
    SettingsError
        One line, before the first run; or where Optuna is not installed.
    """
    trials, seed, ranges = _checked(search)
    for key, default in REFUSED.items():
        if requested[key] != default:
            raise SettingsError(f"{key} with a search", "it in a grid's study", f"remove {key}")
    spaces = {key: _distribution(key, given) for key, given in ranges.items()}
    searched = Search(requested, overrides, spaces, seed)
    searched.check(ranges)
    plan = searched.plan
    facts = {"search": {"trials": trials, "seed": seed, "ranges": ranges}}
    with held(plan.folder):
        conductor = Conductor(plan, jobs, callbacks, quiet, facts)
        conductor.progress.expect((trials + 1) * len(plan.seeds))
        try:
            with conductor.progress, Pool(jobs, plan.folder / "workers.log") as pool:
                best = searched.conduct(conductor, pool, trials)
                conductor.facts["best"] = best
                conductor.write()
        finally:
            conductor.close()


class Search:
    """Proposes trials, and remembers them in Optuna's journal.

    Parameters
    ----------
    requested, overrides : Mapping
        What the study is requested for.
    spaces : Mapping
        Optuna's distribution of each setting.
    seed : int
        Of the proposals.
    """

    def __init__(
        self,
        requested: Mapping[str, Any],
        overrides: Mapping[str, Any],
        spaces: Mapping[str, Any],
        seed: int,
    ) -> None:
        self.config, self.overrides = requested["config"], dict(overrides)
        self.spaces, self.seed = dict(spaces), seed
        self.plan = Plan(
            cells=(),
            seeds=check_seeds(requested["seeds"]),
            reference={},
            target=None,
            margin=0.0,
            figures=check_figures(requested["figures"]),
            runner=check_runner(requested["runner"]),
            folder=check_folder(requested["folder"]),
        )

    def check(self, ranges: Mapping[str, Any]) -> None:
        """Refuse ends of ranges that no run would take, and a first trial that could not run."""
        check_values(self.spaces, self.overrides)
        for key, given in ranges.items():
            ends = given if isinstance(given, list) else [given["low"], given["high"]]
            for end in ends:
                self._settings({key: end}, test=False)
        preflight([self.cell(0, self.propose(0, []), test=False)])

    def conduct(self, conductor: Conductor, pool: Pool, trials: int) -> dict[str, Any]:
        """Run trials and the winner; return its number, loss and settings."""
        journal = self._journal()
        losses = list[float]()
        for start in range(0, trials, BATCH):
            numbers = range(start, min(start + BATCH, trials))
            known = journal.trials[:start]
            proposed = [self.propose(k, known) for k in numbers]
            cells = [self.cell(k, p, test=False) for k, p in zip(numbers, proposed, strict=True)]
            runs = conductor.add(cells)
            conductor.run(pool, runs, aimed=False)
            for k, cell in zip(numbers, cells, strict=True):
                loss = mean_loss(conductor, [run for run in runs if run.cell is cell])
                losses.append(loss)
                if k >= len(journal.trials):
                    journal.add_trial(self._finished(proposed[k - start], loss))
        if not any(map(math.isfinite, losses)):
            return {}
        best = min(range(trials), key=lambda k: losses[k])
        winner = self.cell(best, journal.trials[best].params, test=True)
        conductor.run(pool, conductor.add([winner]), aimed=False)
        return {"trial": best, "validation_loss": losses[best], **journal.trials[best].params}

    def propose(self, number: int, known: Sequence[optuna.trial.FrozenTrial]) -> dict[str, Any]:
        """Return a trial's values, from its number and the trials of earlier batches."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=derive_seed(self.seed, "trial", number))
        memory = optuna.create_study(sampler=sampler)
        memory.add_trials(known)
        return dict(memory.ask(self.spaces).params)

    def cell(self, number: int, values: Mapping[str, Any], *, test: bool) -> Cell:
        """Return a trial as a cell."""
        named = f"{number}, tested" if test else str(number)
        return Cell({"trial": named, **values}, self._settings(values, test=test))

    def _settings(self, values: Mapping[str, Any], *, test: bool) -> Any:
        own = {**values} if test else {**values, "evaluation.test": False}
        base = self.config if isinstance(self.config, list | tuple) else [self.config]
        return configure([*base, self.overrides], own).settings

    def _journal(self) -> optuna.Study:
        """Return Optuna's study of this very search; another one has another name."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        flat = flatten(self._settings({}, test=False))
        same = {key: flat[key] for key in flat if key not in (*PLACES, *self.spaces)}
        spaces = {key: repr(space) for key, space in self.spaces.items()}
        parts = [same, spaces, self.seed, self.plan.seeds, self.plan.runner]
        name = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]
        storage = JournalStorage(JournalFileBackend(str(self.plan.folder / "trials.journal")))
        return optuna.create_study(storage=storage, study_name=name, load_if_exists=True)

    def _finished(self, values: Mapping[str, Any], loss: float) -> optuna.trial.FrozenTrial:
        import optuna

        done = math.isfinite(loss)
        state = optuna.trial.TrialState.COMPLETE if done else optuna.trial.TrialState.FAIL
        return optuna.trial.create_trial(
            params=dict(values),
            distributions=self.spaces,
            value=loss if done else None,
            state=state,
        )


def mean_loss(conductor: Conductor, runs: Sequence[Run]) -> float:
    """Return the mean validation loss of a trial's runs, nats; infinite if one has failed."""
    if any(run.status != "completed" for run in runs):
        return math.inf
    summaries = [read_json(conductor.plan.folder / run.folder / "summary.json") for run in runs]
    found = [float(one["validation"]["loss"]) for one in summaries]
    return sum(found) / len(found)


def _checked(search: Any) -> tuple[int, int, dict[str, Any]]:
    """Return trials, seed, and ranges by dotted key."""
    if find_spec("optuna") is None:
        accepted = "an installation with the extra 'search'"
        fix = "install with `pip install 'llm-qfl[search]'`"
        raise SettingsError("a search needs the package optuna, not installed", accepted, fix)
    if not isinstance(search, Mapping):
        raise SettingsError(
            f"search = {short_repr(search)}", f"a dict of {', '.join(KEYS)}", "give one"
        )
    if unknown := [key for key in search if key not in KEYS]:
        raise SettingsError(f"search: unknown key {unknown[0]!r}", ", ".join(KEYS), "correct it")
    trials, seed, ranges = (search.get(key) for key in KEYS)
    seed = 0 if seed is None else seed
    for name, value, least in (("trials", trials, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            given = f"search: {name} = {short_repr(value)}"
            raise SettingsError(given, f"a whole number from {least}", "give one")
    if not isinstance(ranges, Mapping) or not ranges:
        accepted = "settings with {low = ..., high = ...} or a list of values"
        raise SettingsError(f"search: ranges = {short_repr(ranges)}", accepted, "give at least one")
    return int(trials or 0), int(seed), dict(_dotted(ranges))


def _dotted(ranges: Mapping[str, Any]) -> Any:
    """Yield ranges by dotted key, where TOML has made a table of a section."""
    for key, value in ranges.items():
        if key in SECTIONS and isinstance(value, Mapping):
            yield from ((f"{key}.{leaf}", inner) for leaf, inner in value.items())
        else:
            yield dotted_key(key), value


def _distribution(key: str, given: Any) -> Any:
    """Return Optuna's distribution of a setting's range."""
    from optuna import distributions

    if key not in FIELDS:
        configure(None, {key: 0})  # says so
    if isinstance(given, list) and given and all(isinstance(v, SCALARS) for v in given):
        return distributions.CategoricalDistribution(given)
    named = isinstance(given, Mapping) and {"low", "high"} <= given.keys()
    if not named or given.keys() - {"low", "high", "log", "step"}:
        accepted = "a list of values, or {low, high} with log = true or a step"
        raise SettingsError(f"search: {key} = {short_repr(given)}", accepted, "write it so")
    whole = FIELDS[key].annotation is int
    kind = distributions.IntDistribution if whole else distributions.FloatDistribution
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        shown = f"search: {key} = {short_repr(given)} ({str(error).splitlines()[0]})"
        raise SettingsError(shown, "low below high, log or a step", "correct it") from None
