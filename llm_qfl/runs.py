"""`llm_qfl.run`: one federated run from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from core import SettingsError
from llm_qfl.callbacks import Callbacks, Progress
from llm_qfl.configuration import Folder, changes, new_settings
from llm_qfl.result import Result

Runtime = Literal["process", "flower"]


def run(
    config: Any = None,
    *,
    runtime: Runtime = "process",
    on: Folder | None = None,
    resume: Folder | None = None,
    callbacks: Any = None,
    quiet: bool | None = None,
    **overrides: Any,
) -> Result:
    """Run a federation to its end, and return what it has left.

    Parameters
    ----------
    config : str, Path, dict, Settings, list of these, or None
        A TOML file, or a shipped one by its name (``"demo"``); values by key; None: the defaults.
        Of several the later ones win.
    runtime : {"process", "flower"}
        In this process, or in Flower's simulation, as ``llm-qfl run`` does. The figures are the
        same.
    on : str or Path, optional
        A deployment's folder: run on its nodes.
    resume : str or Path, optional
        Results folder of a run that was interrupted or failed: go on with it. Keywords may change
        rounds, stop rules, timeouts and budgets.
    callbacks : object, function, or list of these, optional
        See prepare, each round, and the end (`llm_qfl.Callback`).
    quiet : bool, optional
        True: show nothing; False: print lines where neither a terminal nor a notebook shows a bar.
    **overrides
        Settings, which win over `config`: by the last part of a key (``rounds=5``), by section
        (``train={"steps": 10}``) or whole (``**{"train.steps": 10}``). ``agent``, ``ansatz``,
        ``dataset``, ``aggregation`` and ``model`` take a name or an object.

    Returns
    -------
    Result
        Figures, tables, report and model, read from the run's folder.

    Raises
    ------
    UserError
        One line, for whatever its user can correct: settings, data, a failed run. What a failed
        run has done is in its folder.
    KeyboardInterrupt
        At Ctrl-C; the run can go on from its folder.

    Examples
    --------
    >>> result = llm_qfl.run("demo", rounds=2, quiet=True)  # doctest: +SKIP
    >>> result.rounds[["round", "loss"]]  # doctest: +SKIP
    """
    if runtime not in ("process", "flower"):
        raise SettingsError(f"runtime = {runtime!r}", "'process' or 'flower'", "name one")
    if runtime == "process" and on is None:
        return _in_process(config, resume, callbacks, quiet, overrides)
    from llm_qfl.launched import launched_run

    return launched_run(config, on, resume, callbacks, quiet, overrides)


def _in_process(
    config: Any, resume: Folder | None, callbacks: Any, quiet: bool | None, overrides: Any
) -> Result:
    """Run in this process."""
    from llm_qfl.cli.plan import resumed_plan
    from llm_qfl.process import run_here
    from server_app.app import results_folder
    from server_app.preflight import check

    if resume is None:
        settings = new_settings(config, overrides)
        check(settings)
    else:
        settings = resumed_plan(Path(resume), changes(config, Path(resume), overrides)).settings
    watchers = Callbacks(callbacks, Progress(quiet, settings.run.name, settings.run.rounds))
    watchers.folder = folder = results_folder(settings)
    try:
        with watchers.progress:
            run_here(settings, folder, watchers.watch)
    except KeyboardInterrupt:
        watchers.interrupted()
        raise
    finally:
        watchers.end()
    return Result(folder)
