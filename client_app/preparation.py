"""What a client does before the rounds: describe its rows, train and take the shared adapter."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from client_app.guidance import rows_to_train
from client_app.site import SiteCache
from core import derive_seed, open_store, site_secret
from core.formatting import display_safe
from core.messages import (
    NO_ENCODER,
    UNSET,
    AdaptReport,
    AdoptReport,
    Parameters,
    ProbeReport,
    SiteReport,
)

if TYPE_CHECKING:
    from data import Moments


def prepare_site(cache: SiteCache) -> tuple[SiteReport, Parameters | None]:
    """Describe the site and compute the moments of its training features.

    Returns
    -------
    tuple
        The report, and the arrays ``count`` (C,), ``sums`` (C, d) and ``second`` (d, d); where the
        run chooses its features, ``<kind>.sums`` and ``<kind>.second`` of each other candidate.
        No arrays under secure aggregation: there moments leave masked (`masked_moments`).
    """
    from data import candidate_kinds, class_rows, embeds
    from llm import common_identity, local_model, shared_bytes
    from quantum import circuits_before_steps, circuits_per_step

    began = time.monotonic()
    settings, site = cache.settings, cache.site
    kinds = candidate_kinds(cache.info.kind, settings)
    length = site_length(cache, kinds)
    masked = settings.privacy.secure_aggregation
    moments = None if masked else candidate_moments(cache, kinds, length)
    embedded = embeds(kinds)
    shared = settings.llm.federated != "none"
    # Built now so that a backend that is not there is reported before anybody fine-tunes.
    classifier = cache.classifier
    if not getattr(classifier.engine, "repeatable", True):
        cache.log_progress(
            f"{settings.quantum.backend} takes no seed: no run on it can be repeated"
        )
    rows = rows_to_train(cache)
    evaluated = len(site.validation) * (2 if settings.evaluation.mode == "federated" else 1)
    about = SiteReport(
        client=cache.client,
        site=cache.name,
        train_rows=len(site.train),
        val_rows=len(site.validation),
        test_rows=len(site.test),
        class_rows=class_rows(site.train.labels, cache.classes),
        classes=list(cache.info.classes),
        data=cache.info.name,
        kind=cache.info.kind,
        features=_features(cache, kinds[0]),
        backend=_backend(cache),
        llm=local_model(settings, cache.info.kind, embeds=embedded),
        encoder=common_identity(settings, cache.info.kind, embeds=embedded) or NO_ENCODER,
        adapter_bytes=shared_bytes(settings.llm, cache.info.kind, cache.classes) if shared else 0,
        circuits_per_step=circuits_per_step(
            settings.train, rows, classifier.ansatz.shifts, settings.quantum.backend
        ),
        circuits_fixed=evaluated + circuits_before_steps(settings.train, rows),
        shots_per_circuit=int(getattr(classifier.engine, "shots", 0)),
        seconds=time.monotonic() - began,
        rows_digest=rows_digest(cache),
        notes=_notes(cache),
        length=length,
    )
    return about, moments


def site_length(cache: SiteCache, kinds: Sequence[str]) -> int:
    """Return the letters of each sequence of the site, where features may need one length; or 0."""
    from data import common_length, needs_length

    if not needs_length(kinds):
        return 0
    parts = (cache.site.train, cache.site.validation, cache.site.test)
    return common_length([text for part in parts for text in part.texts])


def candidate_moments(cache: SiteCache, kinds: Sequence[str], length: int) -> Parameters:
    """Return the moments of the features that the run may take, as they are sent.

    Parameters
    ----------
    cache : SiteCache
        The site.
    kinds : sequence of str
        The candidates; those after the first as far as they are tried on the site's rows.
    length : int
        `site_length`.
    """
    from data import unfit

    arrays: Parameters = dict(vars(site_moments(cache, kinds[0])))
    for kind in kinds[1:]:
        if not unfit(kind, cache.settings, length, len(cache.site.train)):
            found = site_moments(cache, kind)
            arrays |= {f"{kind}.sums": found.sums, f"{kind}.second": found.second}
    return arrays


def probe_features(cache: SiteCache, arrays: Parameters) -> ProbeReport:
    """Evaluate linear probes of several kinds of features on the site's validation rows.

    Parameters
    ----------
    cache : SiteCache
        The site.
    arrays : dict of arrays
        ``<kind>.mean`` (d,), ``<kind>.matrix`` (S, d, n), ``<kind>.weights`` (S, N, n, C) and
        ``<kind>.bias`` (S, N, C); ``class_weights`` (C,), at most 1.
    """
    from data import Probe, candidate_kinds

    allowed = candidate_kinds(cache.info.kind, cache.settings)
    kinds = sorted(kind for kind in allowed if f"{kind}.bias" in arrays)
    names = ("mean", "matrix", "weights", "bias")
    probes = [Probe(*(arrays[f"{kind}.{name}"] for name in names)) for kind in kinds]
    rows, weights, clip = (
        cache.site.validation,
        arrays["class_weights"],
        cache.settings.features.clip,
    )
    if not len(rows):
        nothing = [0.0] * sum(probe.bias[..., 0].size for probe in probes)
        return ProbeReport(0, nothing, nothing)
    found = [
        probe.losses(cache.features_of("validation", kind), rows.labels, weights, clip)
        for kind, probe in zip(kinds, probes, strict=True)
    ]
    losses, spreads = (np.concatenate([one[k].ravel() for one in found]).tolist() for k in (0, 1))
    return ProbeReport(len(rows), losses, spreads)


def _notes(cache: SiteCache) -> str:
    """Say what is odd about this site's rows, where the server does not see it itself."""
    data = cache.settings.data
    shared_federated = cache.settings.evaluation.mode == "federated" and cache.client == 0
    if not (data.per_site or shared_federated):
        return UNSET
    return display_safe("; ".join(cache.info.notes))[:500] or UNSET


def _features(cache: SiteCache, kind: str) -> str:
    """Name the features and their number, which before the shared adapter is not known."""
    named = kind.replace(",", " + ")
    if _before_adapter(cache):
        return f"{named} by the shared adapter"
    return f"{named}, {cache.features_of('train', kind).shape[1]}"


def _before_adapter(cache: SiteCache) -> bool:
    """Whether the shared adapter makes the features, and is not there yet."""
    return cache.settings.features.encoder == "shared" and not cache.adapter_digest


def _backend(cache: SiteCache) -> str:
    """Name the node's backend, and what ``least_busy`` has found."""
    from quantum import DeviceEngine

    name, engine = cache.settings.quantum.backend, cache.classifier.engine
    if name == "ibm:least_busy" and isinstance(engine, DeviceEngine):
        return f"{name} ({engine.device_name})"
    return name


def adapt_round(
    cache: SiteCache, arrays: Parameters, server_round: int
) -> tuple[AdaptReport, Parameters]:
    """Train the shared adapter on the site's training rows for one round of averaging.

    Parameters
    ----------
    cache : SiteCache
        The site.
    arrays : dict of arrays
        The averaged adapter of the round before; empty in round 1, which starts from the seed.
    server_round : int
        Which round, from 1.

    Returns
    -------
    tuple
        The figures of the round, and the trained adapter.
    """
    import torch

    from llm import Task, local_round

    settings, site = cache.settings, cache.site
    torch.set_num_threads(settings.quantum.threads)
    task = Task(
        *(site.train.texts, site.train.labels, (), np.zeros(0)),
        classes=cache.classes,
        settings=settings.llm,
        kind=cache.info.kind,
        seed=derive_seed(settings.run.seed, "llm", cache.client),
    )
    store = open_store(settings.llm.store)
    done = local_round(task, arrays, server_round, settings.run.seed, store, cache.log_progress)
    report = AdaptReport(
        rows=len(site.train),
        round=server_round,
        steps=done.steps,
        loss=done.loss,
        start=done.start,
        reused=int(done.reused),
        llm_tokens=done.tokens,
        llm_seconds=done.seconds,
    )
    return report, done.arrays


def take_adapter(cache: SiteCache, arrays: Parameters) -> tuple[AdoptReport, Parameters]:
    """Store the shared adapter, make it the site's teacher, and sum up its features.

    Parameters
    ----------
    cache : SiteCache
        The site.
    arrays : dict of arrays
        The adapter after the last round of averaging.

    Returns
    -------
    tuple
        The teacher's figures on the site's validation rows; the moments of the training rows'
        features, or empty ones where the adapter does not make the features.
    """
    from data import feature_kind

    began = time.monotonic()
    cache.set_adapter(arrays)
    teacher, _ = cache.teacher()
    # Moments of other features have been sent: to send them again would be a release of its own.
    features = cache.settings.features
    kind = feature_kind(cache.info.kind, features)
    moments = site_moments(cache, kind) if features.encoder == "shared" else _class_counts(cache)
    report = AdoptReport(
        rows=len(cache.site.validation),
        loss=float(teacher.metrics["loss"]),
        accuracy=float(teacher.metrics["accuracy"]),
        llm_seconds=time.monotonic() - began,
    )
    return report, dict(vars(moments))


def site_moments(cache: SiteCache, kind: str) -> Moments:
    """Return the moments of the training rows' features, (C,), (C, d) and (d, d), as they are sent.

    Classes of fewer than ``privacy.min_rows`` rows are left out. Before the shared adapter is there
    the features that it makes are unknown: d is then 0, and only the rows by class are sent.
    """
    from core.privacy import noise_seed
    from data import clip_rows, frequent_class_rows, moment_centre, moments_of, noisy_moments

    privacy = cache.settings.privacy
    if _before_adapter(cache):
        return _class_counts(cache)
    noise, longest, features = (
        privacy.moment_noise,
        privacy.moment_clip,
        cache.features_of("train", kind),
    )
    labels = np.asarray(cache.site.train.labels)
    enough = frequent_class_rows(labels, cache.classes, privacy.min_rows)
    if not noise:
        return moments_of(np.asarray(features)[enough], labels[enough], cache.classes)
    centre = moment_centre(privacy.moment_centre, features.shape[1])
    sent = clip_rows(np.asarray(features) - centre, longest)[enough]
    moments = moments_of(sent, labels[enough], cache.classes)
    seed = noise_seed(cache.settings, "moments", cache.client)
    # The centre is public: to add it again tells nothing.
    return noisy_moments(moments, noise, longest, np.random.default_rng(seed)).moved(centre)


def _class_counts(cache: SiteCache) -> Moments:
    """Return the rows by class as moments of d = 0 features."""
    from data import moments_of

    labels = cache.site.train.labels
    return moments_of(np.zeros((len(labels), 0)), labels, cache.classes)


UNKNOWN = "none"
"""Where the store cannot keep a secret: nothing is compared then."""


def rows_digest(cache: SiteCache) -> str:
    """Return ``<store>-<digest>``: which secret keyed it, and the keyed digest of all rows.

    A resumed run compares it with the one that the run began with. Without the secret nobody can
    test a guess of the rows against it.
    """
    from llm import content_key

    try:
        secret = site_secret(open_store(cache.settings.llm.store))
    except OSError:
        return UNKNOWN
    parts = cache.site.parts
    texts, labels = [part.texts for part in parts], [part.labels for part in parts]
    which = content_key([], [], {"which": secret})
    return f"{which[:8]}-{content_key(texts, labels, {'secret': secret})}"
