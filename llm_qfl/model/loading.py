"""Loading a model from a run's results folder or from a folder that `Model.save` wrote.

Nothing in such a folder is executed: arrays are safetensors, everything else is JSON. An ansatz of
the user's own is imported from where the user has it, never from the folder.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from core import (
    FIELDS,
    DataError,
    Settings,
    SettingsError,
    parse_node,
    read_jsonl,
    real_path,
    registry,
    traits,
)
from core.formatting import toml_value
from core.model_file import ModelFile, model_settings, read_model_file
from core.own_code import source_digest
from core.settings.checks import check_conditions
from core.settings.resuming import recorded_settings
from llm_qfl.model.model import Model
from llm_qfl.model.predictor import ADAPTER, ARRAYS, Files

Overrides = Mapping[str, Any] | Iterable[str]
"""Settings by key, or ``key=value`` texts as the command line takes them."""

CHANGEABLE = ("quantum.", "hardware.", "llm.device", "llm.store")
"""Settings that say where a model computes, not what it is."""


ENCODER_IS = (
    "auto, a name, a hub id or a folder",
    "do not use this model: somebody has changed it",
)


def load(folder: str | Path, settings: Overrides = ()) -> Model:
    """Load a trained model.

    Parameters
    ----------
    folder : str or Path
        A run's results folder (``runs/latest``), or one that `Model.save` wrote.
    settings : mapping or iterable of str, optional
        Where it computes, for instance ``{"quantum.backend": "aer:brisbane"}``: any setting of
        `quantum`, `hardware` or `llm` that a node may set for itself. By default it predicts on
        the backend that the run's server evaluated on, the exact simulator unless
        `evaluation.backend` says otherwise.

    Returns
    -------
    Model
        Ready to predict; its backend and encoder are opened when they are first needed.

    Raises
    ------
    UserError
        If the folder holds no model, it is damaged or of another version, or a setting cannot be
        changed. One line.

    Examples
    --------
    >>> model = llm_qfl.load("runs/latest")  # doctest: +SKIP
    >>> model.predict(["ACGTTGCA" * 25])  # doctest: +SKIP
    array(['worm'], dtype='<U5')
    """
    place = real_path(folder)
    try:
        about, files = read_model_file(place), Files(place)
    except FileNotFoundError:
        about, files = _older_run(place), Files(place, _NOT_CHECKED)
    except NotADirectoryError:
        raise _no_model(place) from None
    _check_code(about, place)
    arrays = _read_arrays(place / ARRAYS)
    adapter = _read_arrays(place / ADAPTER) if ADAPTER in about.files else None
    chosen = changed_settings(about.whole_settings(), settings)
    return Model(about, chosen, arrays, adapter, files)


_NOT_CHECKED = ("a run of an older version: whether the encoder is still the same is not known",)


def _no_model(place: Path) -> DataError:
    return DataError(
        f"no trained model in {str(place)!r}",
        "the results folder of a run that was completed, or a folder of Model.save",
        "name one; an interrupted run goes on with llm-qfl run --resume RUN",
    )


def _older_run(place: Path) -> ModelFile:
    """Put together what a run of an older version wrote in other files.

    Raises
    ------
    DataError
        If it is no run, was not completed, or says too little.
    """
    if not (place / ARRAYS).is_file() or not (place / "config.json").is_file():
        raise _no_model(place)
    from data import feature_kind, with_kind

    settings = recorded_settings(place)
    events = read_jsonl(place / "metrics.jsonl")
    prepared = next((line for line in events if line.get("event") == "prepared"), {})
    if prepared.get("kind") not in ("text", "dna") or not prepared.get("classes"):
        given = f"a run of an older version in {str(place)!r} that names no classes"
        raise DataError(given, "a run whose metrics.jsonl is whole", "train it again")
    kind = prepared["kind"]
    # What the run chose, where it chose, of for instance "kmer:5 + one-hot, 752 -> 4 (lda)".
    parts = str(prepared.get("features", "")).rpartition(", ")[0].partition(" by ")[0]
    named = re.fullmatch(r"[a-z-]+(:\d+)?( \+ [a-z-]+(:\d+)?)*", parts)
    kinds = parts.replace(" + ", ",") if named else feature_kind(kind, settings.features)
    chosen = with_kind(settings.features, kinds)
    settings = settings.model_copy(update={"features": chosen})
    shared = settings.features.encoder == "shared" and (place / ADAPTER).is_file()
    return ModelFile(
        format=1,
        classes=prepared["classes"],
        kind=kind,
        data=str(prepared.get("data", "")),
        code={},
        settings=model_settings(settings, chosen.kind),
        files=dict.fromkeys((ARRAYS, ADAPTER) if shared else (ARRAYS,), ""),
    )


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        given = f"{path} cannot be read ({type(error).__name__})"
        raise DataError(given, "the arrays of a trained model", "copy the folder again") from None


def _check_code(about: ModelFile, place: Path) -> None:
    """Refuse a model whose ansatz or language model is code that is absent, changed or beside it.

    Raises
    ------
    SettingsError
        With what is expected.
    """
    settings = about.settings
    encoder = str(settings.get("llm", {}).get("encoder", ""))
    if registry.OWN_FILE.fullmatch(encoder):  # no run has such a one: it is a stranger's idea
        raise SettingsError(f"a model whose llm.encoder is {encoder!r}", *ENCODER_IS)
    for point, section in (("ansatz", "quantum"), ("model", "llm")):
        name = str(settings.get(section, {}).get("model", ""))
        if registry.OWN_FILE.fullmatch(name):
            _refuse_code_in(place, f"{section}.model = {name!r}", name)
        digest = about.code.get(point, "")
        if digest and source_digest(point, name) != digest:
            raise SettingsError(
                f"{section}.model = {name!r}: its file is not the one that the model was trained "
                "with",
                f"the file of sha256 {digest[:12]}…",
                "put that version of the file into this folder",
            )


def _refuse_code_in(place: Path, given: str, name: str) -> None:
    """Refuse code that came with the model: a folder of somebody else's must not run any."""
    top = name.partition(":")[0].partition(".")[0]
    own = registry.own_file(name)
    spec = None if own else importlib.util.find_spec(top)
    file = own or (Path(spec.origin) if spec and spec.origin else None)
    if file is not None and place in real_path(file).parents:
        raise SettingsError(
            f"{given}, whose file lies in the model's own folder",
            "code from a folder of yours: nothing in a model's folder is executed",
            "look at the file, copy it elsewhere, and start there",
        )


def changed_settings(settings: Settings, changes: Overrides) -> Settings:
    """Return the settings with others for where the model computes.

    Raises
    ------
    SettingsError
        For a key that would make another model of it, and as `core.parse_node`.
    """
    if isinstance(changes, str):
        changes = [changes]
    if isinstance(changes, Mapping):
        changes = [f"{key}={toml_value(value)}" for key, value in changes.items()]
    changes = list(changes)
    for key in (text.partition("=")[0].strip() for text in changes):
        changes_place = traits(key).per_node and key.startswith(CHANGEABLE)
        if (key in FIELDS and not changes_place) or key == "site":
            raise SettingsError(
                f"{key} of a trained model",
                "quantum.backend and its options, hardware.*, llm.device, llm.store",
                "leave it out, or train another model",
            )
    own = parse_node(changes, "--set")
    tree = settings.model_dump()
    for key, value in own.items():
        section, _, leaf = key.partition(".")
        tree[section][leaf] = value
    chosen = Settings.model_validate(tree)
    check_conditions(chosen, own)
    return chosen
