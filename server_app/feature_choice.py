"""Which features a run takes, their shrinkage, the qubits: what is named, or with `auto` the best.

Each candidate's linear probe is fitted on the moments that the sites sent anyway, and evaluated on
validation rows: the server's own, or the sites', of which each sends the losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from logging import INFO
from typing import TYPE_CHECKING, Any

from flwr.common.logger import log
from flwr.serverapp import Grid

from core import AUTO, Cost, Settings
from core.messages import Parameters, SiteReport
from server_app.probes import (
    ProbeLosses,
    evaluate_at_server,
    evaluate_at_sites,
    fewest_qubits,
    fit_probes,
    shrinkages_to_try,
)
from strategies import Member, SharedAdapter

if TYPE_CHECKING:
    from data import ServerData

MOMENTS = ("count", "sums", "second")

USUAL_QUBITS = 4
"""Of `quantum.qubits = auto`, where there is nothing to choose by."""


@dataclass(frozen=True)
class FeatureChoice:
    """The features of a run.

    Attributes
    ----------
    kinds : str
        As `features.kind` names them.
    sums : list of dict
        Each client's moments of them, ``count`` (C,), ``sums`` (C, d), ``second`` (d, d).
    shrinkage : float
        Of the projection.
    qubits : int
        Directions of the projection.
    why : str
        Why it is these; empty where there was no choice.
    costs : dict
        What the choice cost each client.
    """

    kinds: str
    sums: Sequence[Parameters]
    shrinkage: float
    qubits: int
    why: str = ""
    costs: dict[int, Cost] = field(default_factory=dict)


def check_moments(about: SiteReport, arrays: Parameters, settings: Settings) -> None:
    """Check which features a site's moments are of, and how many.

    Raises
    ------
    ValueError
        If they are of features that are no candidates, or not of as many as these have.
    """
    from data import block_columns, candidate_kinds

    kind: Any = about.kind
    first, *others = candidate_kinds(kind, settings)
    given = {name.rpartition(".")[0] for name in arrays} - {""}
    if not given <= set(others):
        raise ValueError(f"moments of {sorted(given)[:20]} instead of {[first, *others]}")
    for name in (first, *given):
        columns = len(_of(arrays, name, first)["second"])
        if columns or settings.features.encoder != "shared":
            block_columns(name, settings.features, about.length, columns)


def _of(arrays: Parameters, kind: str, first: str) -> Parameters:
    """Return the moments of one candidate; those of the first have no prefix."""
    prefix = "" if kind == first else f"{kind}."
    names = {name: name if name == "count" else f"{prefix}{name}" for name in MOMENTS}
    return {name: arrays[key] for name, key in names.items()}


def choose_features(
    grid: Grid,
    settings: Settings,
    members: Sequence[Member],
    sums: Sequence[Parameters],
    weights: Sequence[float],
    adapter: SharedAdapter | None = None,
) -> FeatureChoice:
    """Choose a run's features, their shrinkage and the number of qubits.

    Parameters
    ----------
    grid : Grid
        Flower's connection to the nodes.
    settings : Settings
        The run's settings.
    members : sequence of Member
        The clients.
    sums : sequence of dict
        The moments that each sent.
    weights : sequence of float, length C
        Weights of the classes in the loss.
    adapter : SharedAdapter or None
        The shared one, where it makes the features.

    Raises
    ------
    DataError
        If features that are named cannot be made of all rows.
    """
    from data import candidate_kinds, check_lengths, is_private, possible_kinds

    kind: Any = members[0].about.kind
    kinds, possible = candidate_kinds(kind, settings), possible_kinds(kind, settings.features)
    open_ones = _choices(settings, possible)
    chooses = open_ones and not is_private(settings)
    server = _server_rows(settings, kinds, chooses)
    lengths = _lengths(kinds, members, server)
    if len(kinds) == 1:
        check_lengths(kinds[0], lengths)
    parts, reasons = _candidates(settings, kinds, members, sums, lengths)
    plain = _unchosen(settings, kinds[0], parts[kinds[0]])
    if not chooses:
        why = "with privacy settings nothing is sent to choose by" if open_ones else ""
        return _logged(replace(plain, why=why))
    if not _choices(settings, list(parts)):
        return _logged(replace(plain, why=_reasoned("", reasons)))
    probes = fit_probes(settings, [member.about for member in members], parts, weights)
    costs: dict[int, Cost] = {}
    if server is not None:
        found = evaluate_at_server(settings, server, probes, weights, adapter)
    else:
        found, costs = evaluate_at_sites(grid, settings, members, probes, weights)
    return _logged(_best_of(found, parts, reasons, replace(plain, costs=costs)))


def _server_rows(settings: Settings, kinds: Sequence[str], chooses: bool) -> ServerData | None:
    """Return the server's rows, where it has any and the choice looks at them."""
    from data import load_server, needs_length

    central = settings.evaluation.mode == "central" and (chooses or needs_length(kinds))
    return load_server(settings) if central else None


def _best_of(
    found: ProbeLosses,
    parts: Mapping[str, Sequence[Parameters]],
    reasons: Mapping[str, str],
    plain: FeatureChoice,
) -> FeatureChoice:
    """Return the features that probes speak for; the plain ones where nobody evaluated any."""
    if not found.losses:
        return replace(plain, why=_reasoned("no site evaluated the probes", reasons))
    best = found.best()
    why, sums = _reasoned(found.words(best), reasons), parts[best.kinds]
    return FeatureChoice(best.kinds, sums, best.shrinkage, best.qubits, why, plain.costs)


def _reasoned(words: str, reasons: Mapping[str, str]) -> str:
    """Say what was found, and why candidates were not tried."""
    found = [words] * bool(words) + [f"{name} {reason}" for name, reason in reasons.items()]
    return "; ".join(found)


def _choices(settings: Settings, kinds: Sequence[str]) -> bool:
    """Whether there is something to choose."""
    several = len(kinds) > 1 or len(shrinkages_to_try(settings)) > 1
    return several or settings.quantum.qubits == AUTO


def _unchosen(settings: Settings, kinds: str, sums: Sequence[Parameters]) -> FeatureChoice:
    """Return what is taken where there is nothing to choose by."""
    from data import USUAL_SHRINKAGE

    given, qubits = settings.features.shrinkage, settings.quantum.qubits
    shrinkage = USUAL_SHRINKAGE if given == AUTO else given
    usual = max(USUAL_QUBITS, fewest_qubits(settings, len(sums[0]["count"])))
    return FeatureChoice(kinds, sums, shrinkage, usual if qubits == AUTO else qubits)


def _logged(choice: FeatureChoice) -> FeatureChoice:
    if choice.why:
        log(INFO, "features: %s (%s)", choice.kinds, choice.why)
    return choice


def _lengths(
    kinds: Sequence[str], members: Sequence[Member], server: ServerData | None
) -> dict[str, int]:
    """Return the letters of the sequences that each part of the federation holds; 0: several."""
    from data import common_length, needs_length

    if not needs_length(kinds):
        return {}
    lengths = {f"client {one.client}": one.about.length for one in members}
    if server is not None:
        lengths["the server"] = common_length([*server.validation.texts, *server.test.texts])
    return lengths


def _candidates(
    settings: Settings,
    kinds: Sequence[str],
    members: Sequence[Member],
    sums: Sequence[Parameters],
    lengths: Mapping[str, int],
) -> tuple[dict[str, list[Parameters]], dict[str, str]]:
    """Return the moments of the candidates that are tried, and why the others are not."""
    from data import unfit

    agreed = set(lengths.values())
    length = agreed.pop() if len(agreed) == 1 else 0
    rows = min(member.about.train_rows for member in members)
    first, reasons = kinds[0], {}
    found = {first: [_of(one, first, first) for one in sums]}
    for kind in kinds[1:]:
        if reason := unfit(kind, settings, length, rows):
            reasons[kind] = reason
        elif not all(f"{kind}.second" in one for one in sums):
            reasons[kind] = "is not sent by every client"
        else:
            found[kind] = [_of(one, kind, first) for one in sums]
    return found, reasons


def with_features(settings: Settings, projection: bytes) -> Settings:
    """Return the settings with the features and the qubits of a run's projection."""
    from data import Projection, with_kind

    found = Projection.from_bytes(projection)
    features = with_kind(settings.features, found.kinds)
    if features.shrinkage == AUTO:
        features = features.model_copy(update={"shrinkage": found.shrinkage})
    quantum = settings.quantum.model_copy(update={"qubits": found.qubits})
    return settings.model_copy(update={"features": features, "quantum": quantum})
