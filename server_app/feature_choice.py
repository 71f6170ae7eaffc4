"""Which features a run takes: those that are named, or with `auto` the best of the candidates.

Each candidate's linear probe is fitted on the moments that the sites sent anyway, and evaluated on
validation rows: the server's own, or the sites', of which each sends the losses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from logging import INFO, WARNING
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from flwr.app import Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from core import Cost, DataError, Settings, open_store
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
from strategies import Member, rows_that_count
from strategies.updates import clip_to_centre

if TYPE_CHECKING:
    from data import Moments, Probe, ServerData

MOMENTS = ("count", "sums", "second")

USUAL_DISTANCE = 0.1
"""Nats: sites whose losses lie so near each other's median are alike."""


@dataclass(frozen=True)
class FeatureChoice:
    """The features of a run.

    Attributes
    ----------
    kinds : str
        As `features.kind` names them.
    sums : list of dict
        Each client's moments of them, ``count`` (C,), ``sums`` (C, d), ``second`` (d, d).
    why : str
        Why it is these; empty where there was no choice.
    costs : dict
        What the choice cost each client.
    """

    kinds: str
    sums: list[Parameters]
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
    grid: Grid, settings: Settings, members: Sequence[Member], sums: Sequence[Parameters]
) -> FeatureChoice:
    """Choose a run's features.

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

    Raises
    ------
    DataError
        If features that are named cannot be made of all rows.
    """
    from data import candidate_kinds, check_lengths, load_server, needs_length, possible_kinds

    kind: Any = members[0].about.kind
    kinds = candidate_kinds(kind, settings)
    central = settings.evaluation.mode == "central" and (len(kinds) > 1 or needs_length(kinds))
    server = load_server(settings) if central else None
    lengths = _lengths(kinds, members, server)
    if len(kinds) == 1:
        check_lengths(kinds[0], lengths)
        barred = len(possible_kinds(kind, settings.features)) > 1
        why = "with privacy settings nothing is sent to choose by" if barred else ""
        return _logged(FeatureChoice(kinds[0], [_of(one, kinds[0], kinds[0]) for one in sums], why))
    fewest = min(member.about.train_rows for member in members)
    parts, reasons = _candidates(kinds, sums, lengths, fewest)
    losses: dict[str, float] = {}
    costs: dict[int, Cost] = {}
    if len(parts) > 1:
        losses, costs = _probe_losses(grid, settings, members, parts, server)
    # Of equal losses the first, which is the cheapest: its moments are small.
    best = min(losses, key=lambda name: losses[name], default=kinds[0])
    words = [f"probe loss {losses[best]:.3f}"] if losses else []
    words += [f"{name} {loss:.3f}" for name, loss in losses.items() if name != best]
    words += ["no site evaluated the probes"] if len(parts) > 1 and not losses else []
    words += [f"{name} {reason}" for name, reason in reasons.items()]
    return _logged(FeatureChoice(best, parts[best], "; ".join(words), costs))


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
    kinds: Sequence[str], sums: Sequence[Parameters], lengths: Mapping[str, int], rows: int
) -> tuple[dict[str, list[Parameters]], dict[str, str]]:
    """Return the moments of the candidates that are tried, and why the others are not."""
    from data import unfit

    agreed = set(lengths.values())
    length = agreed.pop() if len(agreed) == 1 else 0
    first, found, reasons = kinds[0], {}, {}
    for kind in kinds:
        if reason := unfit(kind, length, rows):
            reasons[kind] = reason
        elif kind != first and not all(f"{kind}.second" in one for one in sums):
            reasons[kind] = "is not sent by every client"
        else:
            found[kind] = [_of(one, kind, first) for one in sums]
    return found, reasons


def _probe_losses(
    grid: Grid,
    settings: Settings,
    members: Sequence[Member],
    parts: Mapping[str, Sequence[Parameters]],
    server: ServerData | None,
) -> tuple[dict[str, float], dict[int, Cost]]:
    """Return each candidate's loss, that of its best shrinkage; and what asking the sites cost."""
    probes = _fitted(settings, [member.about for member in members], parts)
    costs: dict[int, Cost] = {}
    if server is not None:
        losses = {kind: _at_server(settings, server, kind, one) for kind, one in probes.items()}
    else:
        losses, costs = _at_sites(grid, settings, members, probes)
    return {kind: float(np.min(found)) for kind, found in losses.items()}, costs


def _fitted(
    settings: Settings, reports: Sequence[SiteReport], parts: Mapping[str, Sequence[Parameters]]
) -> dict[str, Probe]:
    """Fit the probes, without sites whose moments of the first candidate are unlike most.

    A site that lies in another's moments alone spoils that candidate: the first is then chosen.
    """
    from data import Moments, fit_probe

    moments = {kind: [Moments(**one) for one in found] for kind, found in parts.items()}
    unlike = unlike_sites(settings, next(iter(moments.values())))
    probes = {}
    for kind, held in moments.items():
        merged: Moments = merged_moments(settings, reports, held, unlike)
        check_classes(settings, merged.count)
        try:
            probes[kind] = fit_probe(merged)
        except DataError as error:
            log(WARNING, "features: %s are not tried: %s", kind, error)
    return probes


def _at_server(
    settings: Settings, server: ServerData, kind: str, probe: Probe
) -> npt.NDArray[np.float64]:
    """Return a probe's losses (S,) on the server's validation rows."""
    from data import raw_features, with_kind
    from llm import stored_embedding

    def embed(rows: Sequence[str]) -> npt.NDArray[np.float32]:
        store = open_store(settings.llm.store) / "features"
        return stored_embedding(rows, settings.llm, server.kind, store, lambda line: None)

    held, features = server.validation, with_kind(settings.features, kind)
    seen = raw_features(held.texts, server.kind, features, embed)
    return np.asarray(probe.losses(seen, held.labels))


def _at_sites(
    grid: Grid, settings: Settings, members: Sequence[Member], probes: Mapping[str, Probe]
) -> tuple[dict[str, npt.NDArray[np.float64]], dict[int, Cost]]:
    """Return the probes' losses (S,) on the sites' validation rows, averaged by rows that count.

    Those of a site that lie far from the others' are moved towards these first, as updates are: no
    site chooses alone.
    """
    content = _packed(probes)
    messages = [Message(content, member.node_id, PROBE) for member in members]
    replies = grid.send_and_receive(messages, timeout=settings.run.round_timeout)
    sizes = {kind: len(probes[kind].bias) for kind in sorted(probes)}
    counted = rows_that_count(members, "val_rows", settings)
    found: dict[int, npt.NDArray[np.float64]] = {}
    costs: dict[int, Cost] = {}
    for member, reply in _by_member(members, replies):
        try:
            report = _read_losses(reply, member.about, sum(sizes.values()))
        except ReplyError as error:
            log(WARNING, "features: client %d does not count: %s", member.client, error)
            continue
        if counted[member.client]:
            found[member.client] = np.asarray(report.losses)
        up, down = payload_bytes(reply.content), payload_bytes(content)
        costs[member.client] = Cost(bytes_up=up, bytes_down=down)
    if not found:
        return {}, costs
    given = [{"losses": losses} for losses in found.values()]
    bounded, _ = clip_to_centre(given, settings.aggregation.clip_radius, USUAL_DISTANCE)
    weights = [counted[client] for client in found]
    mean = np.average([one["losses"] for one in bounded], axis=0, weights=weights)
    parts = dict(zip(sizes, np.split(mean, np.cumsum(list(sizes.values()))[:-1]), strict=True))
    return {kind: parts[kind] for kind in probes}, costs


def _packed(probes: Mapping[str, Probe]) -> RecordDict:
    arrays = {f"{kind}.weights": probe.weights for kind, probe in probes.items()}
    arrays |= {f"{kind}.bias": probe.bias for kind, probe in probes.items()}
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
        if report.rows != about.val_rows or len(report.losses) != wanted:
            raise ValueError(
                f"{len(report.losses)} losses of {report.rows} rows instead of {wanted} of "
                f"{about.val_rows}"
            )
        return report


def with_features(settings: Settings, projection: bytes) -> Settings:
    """Return the settings with the features that a run's projection takes."""
    from data import Projection, with_kind

    features = with_kind(settings.features, Projection.from_bytes(projection).kinds)
    return settings.model_copy(update={"features": features})
