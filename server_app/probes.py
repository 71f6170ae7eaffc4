"""Linear probes of the features that a run may take: from moments, evaluated on validation rows.

What is compared is the class-weighted loss of a linear model on the projected features, for each
kind of features, each shrinkage and each number of qubits that there is to choose from.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from logging import WARNING
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from flwr.app import Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from core import AUTO, Cost, DataError, Settings, SettingsError, derive_seed, open_store
from core.messages import (
    ARRAYS,
    PROBE,
    Parameters,
    ProbeReport,
    SiteReport,
    pack_parameters,
    payload_bytes,
)
from core.received import ReplyError, checked_reply, read_report
from server_app.fitting import check_classes, merged_moments, unlike_sites
from strategies import Member, SharedAdapter, rows_that_count
from strategies.updates import clip_to_centre

if TYPE_CHECKING:
    from data import Moments, Probe, ServerData

Matrix = npt.NDArray[np.float64]

USUAL_DISTANCE = 0.1
"""Nats: sites whose losses lie so near each other's median are alike."""

FEWEST_QUBITS = 2

LOST = (0.01, 0.02)
"""Nats that fewer qubits may cost, least and most: a qubit is circuits, and with few rows of a rare
class a standard error says little."""


@dataclass(frozen=True)
class Best:
    """The features, the shrinkage and the number of qubits that probes speak for."""

    kinds: str
    shrinkage: float
    qubits: int


@dataclass(frozen=True)
class ProbeLosses:
    """How the probes do on the validation rows.

    Attributes
    ----------
    losses : dict
        By kind of features the loss of each shrinkage and number of qubits, (S, N), nats.
    spreads : dict
        Likewise the root mean square, over rows, of how far it is from that of most qubits.
    shrinkages : tuple of float
        The S that were tried.
    widths : dict
        By kind the N numbers of qubits, ascending.
    rows : float
        Validation rows that count.
    """

    losses: Mapping[str, Matrix]
    spreads: Mapping[str, Matrix]
    shrinkages: tuple[float, ...]
    widths: Mapping[str, tuple[int, ...]]
    rows: float

    def best(self) -> Best:
        """Return the features of least loss, and the fewest qubits that are about as good.

        About as good: within a standard error, over rows, of the difference, in the bounds `LOST`.
        The shrinkage is the best of so many qubits. Of equal losses the first counts, whose moments
        are smallest.
        """
        kinds = min(self.losses, key=lambda name: float(self.losses[name].min()))
        losses, spreads = self.losses[kinds], self.spreads[kinds]
        row = int(np.unravel_index(np.argmin(losses), losses.shape)[0])
        error = spreads[row] / max(1.0, self.rows) ** 0.5
        allowed = losses[row].min() + np.clip(error, *LOST)
        column = int(np.argmax(losses[row] <= allowed))
        shrinkage = self.shrinkages[int(np.argmin(losses[:, column]))]
        return Best(kinds, shrinkage, self.widths[kinds][column])

    def words(self, best: Best) -> str:
        """Say what was tried, and how it did."""
        losses, widths = self.losses[best.kinds], self.widths[best.kinds]
        row, column = self.shrinkages.index(best.shrinkage), widths.index(best.qubits)
        parts = [f"probe loss {losses[row, column]:.3f}"]
        parts += [
            f"{name} {found.min():.3f}" for name, found in self.losses.items() if name != best.kinds
        ]
        others = [
            f"{s:g} {loss:.3f}" for s, loss in zip(self.shrinkages, losses[:, column], strict=True)
        ]
        parts += [f"shrinkage {best.shrinkage:g} of {', '.join(others)}"] * (len(others) > 1)
        others = [f"{n} {loss:.3f}" for n, loss in zip(widths, losses[row], strict=True)]
        parts += [f"{best.qubits} qubits of {', '.join(others)}"] * (len(others) > 1)
        return "; ".join(parts)


def shrinkages_to_try(settings: Settings) -> tuple[float, ...]:
    """Return the shrinkages that there are to choose from; one where it does not matter."""
    from data import SHRINKAGES, USUAL_SHRINKAGE

    given = settings.features.shrinkage
    if given != AUTO:
        return (given,)
    return SHRINKAGES if settings.features.projection == "lda" else (USUAL_SHRINKAGE,)


def fit_probes(
    settings: Settings,
    reports: Sequence[SiteReport],
    parts: Mapping[str, Sequence[Parameters]],
    weights: Sequence[float],
) -> dict[str, Probe]:
    """Fit the probes, without sites whose moments of the first candidate are unlike most.

    A site that lies in another's moments alone spoils that candidate: another is then chosen.

    Parameters
    ----------
    settings : Settings
        The run's settings.
    reports : sequence of SiteReport
        The clients.
    parts : mapping
        By kind of features each client's moments.
    weights : sequence of float, length C
        Weights of the classes in the loss.
    """
    from data import Moments, block_columns, fit_probe

    moments = {kind: [Moments(**one) for one in found] for kind, found in parts.items()}
    unlike = unlike_sites(settings, next(iter(moments.values())))
    features, probes = settings.features, {}
    for kind, held in moments.items():
        merged: Moments = merged_moments(settings, reports, held, unlike)
        check_classes(settings, merged.count)
        try:
            blocks = block_columns(kind, features, reports[0].length, len(merged.second))
            probes[kind] = fit_probe(
                merged,
                _widths(settings, merged, blocks),
                shrinkages_to_try(settings),
                weights,
                kind=features.projection,
                clip=features.clip,
                seed=derive_seed(settings.run.seed, "projection"),
                blocks=blocks,
            )
        except DataError as error:
            log(WARNING, "features: %s are not tried: %s", kind, error)
    return probes


def _widths(settings: Settings, moments: Moments, blocks: Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of qubits that there are to choose from."""
    from data import varying_directions

    if settings.quantum.qubits != AUTO:
        return (settings.quantum.width,)
    classes = len(moments.count)
    fewest, most = fewest_qubits(settings, classes), settings.quantum.width
    most = max(fewest, min(most, varying_directions(moments, blocks)))
    if settings.features.projection == "lda":  # a discriminant less, and classes become alike
        fewest = min(most, max(fewest, classes - 1))
    return tuple(range(fewest, most + 1))


def fewest_qubits(settings: Settings, classes: int) -> int:
    """Return the number of qubits; of `auto` the fewest that the circuit can tell the classes by.

    Raises
    ------
    SettingsError
        If the most that `auto` becomes are too few.
    """
    from quantum import build_ansatz

    quantum, most = settings.quantum, settings.quantum.width
    for qubits in range(FEWEST_QUBITS, most):
        if quantum.qubits == AUTO:
            with contextlib.suppress(SettingsError):
                build_ansatz(quantum.model_copy(update={"qubits": qubits}), classes)
                return qubits
    return most


def evaluate_at_server(
    settings: Settings,
    server: ServerData,
    probes: Mapping[str, Probe],
    weights: Sequence[float],
    adapter: SharedAdapter | None,
) -> ProbeLosses:
    """Evaluate probes on the server's validation rows.

    Parameters
    ----------
    settings : Settings
        The run's settings.
    server : ServerData
        The server's rows.
    probes : mapping
        By kind of features.
    weights : sequence of float, length C
        Weights of the classes in the loss.
    adapter : SharedAdapter or None
        The shared one, where it makes the features.
    """
    from data import raw_features, with_kind
    from llm import freeze_adapter, stored_embedding

    held, classes, seed = server.validation, len(server.classes), settings.run.seed
    frozen = freeze_adapter(adapter.arrays, classes, seed) if adapter else None

    def embed(rows: Sequence[str]) -> npt.NDArray[np.float32]:
        store = open_store(settings.llm.store) / "features"
        return stored_embedding(
            rows, settings.llm, server.kind, store, lambda line: None, adapter=frozen
        )

    losses, spreads = {}, {}
    for kind, probe in probes.items():
        seen = raw_features(held.texts, server.kind, with_kind(settings.features, kind), embed)
        found = probe.losses(seen, held.labels, weights, settings.features.clip)
        losses[kind], spreads[kind] = found
    return _found(settings, probes, losses, spreads, len(held))


def evaluate_at_sites(
    grid: Grid,
    settings: Settings,
    members: Sequence[Member],
    probes: Mapping[str, Probe],
    weights: Sequence[float],
) -> tuple[ProbeLosses, dict[int, Cost]]:
    """Evaluate probes on the sites' validation rows: losses averaged by the rows that count.

    Those of a site that lie far from the others' are moved towards these first, as updates are: no
    site chooses alone.

    Parameters
    ----------
    grid : Grid
        Flower's connection to the nodes.
    settings : Settings
        The run's settings.
    members : sequence of Member
        The clients.
    probes : mapping
        By kind of features.
    weights : sequence of float, length C
        Weights of the classes in the loss.

    Returns
    -------
    tuple
        The losses, none where no site answered; and what asking cost each client.
    """
    largest = max(weights)  # losses have an upper bound, so weights go out as shares of it
    content = _packed(probes, np.divide(weights, largest))
    messages = [Message(content, member.node_id, PROBE) for member in members if probes]
    replies = grid.send_and_receive(messages, timeout=settings.run.round_timeout)
    sizes = {kind: probes[kind].bias[..., 0].size for kind in sorted(probes)}
    counted = rows_that_count(members, "val_rows", settings)
    found: dict[int, Parameters] = {}
    costs: dict[int, Cost] = {}
    for member, reply in _by_member(members, replies):
        try:
            report = _read_losses(reply, member.about, sum(sizes.values()))
        except ReplyError as error:
            log(WARNING, "features: client %d does not count: %s", member.client, error)
            continue
        if counted[member.client]:
            given = {"losses": report.losses, "spreads": report.spreads}
            found[member.client] = {k: largest * np.asarray(one) for k, one in given.items()}
        up, down = payload_bytes(reply.content), payload_bytes(content)
        costs[member.client] = Cost(bytes_up=up, bytes_down=down)
    if not found:
        return _found(settings, {}, {}, {}, 0), costs
    bounded, _ = clip_to_centre(
        list(found.values()), settings.aggregation.clip_radius, USUAL_DISTANCE
    )
    shares = [counted[client] for client in found]
    losses, spreads = (_averaged(bounded, name, shares, sizes) for name in ("losses", "spreads"))
    return _found(settings, probes, losses, spreads, sum(shares)), costs


def _averaged(
    given: Sequence[Parameters], name: str, shares: Sequence[float], sizes: Mapping[str, int]
) -> dict[str, Matrix]:
    """Return the weighted mean of an array of each site, cut into the kinds of features."""
    mean = np.average([one[name] for one in given], axis=0, weights=shares)
    parts = np.split(mean, np.cumsum(list(sizes.values()))[:-1])
    return dict(zip(sizes, parts, strict=True))


def _found(
    settings: Settings,
    probes: Mapping[str, Probe],
    losses: Mapping[str, Matrix],
    spreads: Mapping[str, Matrix],
    rows: float,
) -> ProbeLosses:
    """Put losses together, in the order of the candidates."""
    shapes = {kind: probe.tried for kind, probe in probes.items()}
    return ProbeLosses(
        {kind: np.reshape(losses[kind], shape) for kind, shape in shapes.items()},
        {kind: np.reshape(spreads[kind], shape) for kind, shape in shapes.items()},
        shrinkages_to_try(settings),
        {kind: probe.widths for kind, probe in probes.items()},
        rows,
    )


def _packed(probes: Mapping[str, Probe], weights: npt.ArrayLike) -> RecordDict:
    arrays = {"class_weights": np.asarray(weights, np.float64)}
    for kind, probe in probes.items():
        arrays |= {f"{kind}.{name}": np.ascontiguousarray(v) for name, v in vars(probe).items()}
    return RecordDict({ARRAYS: pack_parameters(arrays)})


def _by_member(
    members: Sequence[Member], replies: Iterable[Message]
) -> list[tuple[Member, Message]]:
    """Return the replies in order of the clients, so that sums do not depend on who was first."""
    found = {reply.metadata.src_node_id: reply for reply in replies}
    return [(one, found[one.node_id]) for one in members if one.node_id in found]


def _read_losses(reply: Message, about: SiteReport, wanted: int) -> ProbeReport:
    """Read a site's losses; raises `ReplyError`."""
    with checked_reply():
        if reply.has_error():
            raise ValueError(reply.error.reason or "no reason given")
        report = read_report(reply, ProbeReport)
        given = len(report.losses)
        if report.rows != about.val_rows or {given, len(report.spreads)} != {wanted}:
            raise ValueError(
                f"{given} losses of {report.rows} rows instead of {wanted} of {about.val_rows}"
            )
        return report
