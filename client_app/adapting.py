"""A client's part in training one adapter together, before the quantum rounds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from client_app.site import SiteMemory
from core import derive_seed, open_store
from core.messages import AdaptIns, AdaptReport, AdoptReport, Parameters

if TYPE_CHECKING:
    from data import Moments


def adapt_round(
    memory: SiteMemory, arrays: Parameters, told: AdaptIns
) -> tuple[AdaptReport, Parameters]:
    """Train the shared adapter on the site's training rows for one round of averaging.

    Parameters
    ----------
    memory : SiteMemory
        The site.
    arrays : dict of arrays
        The averaged adapter of the round before; empty in round 1, which starts from the seed.
    told : AdaptIns
        Which round.

    Returns
    -------
    tuple
        The numbers of the round, and the trained adapter.
    """
    import torch

    from llm import Task, local_round

    settings, site = memory.settings, memory.site
    torch.set_num_threads(settings.quantum.threads)
    task = Task(
        *(site.train.texts, site.train.labels, (), np.zeros(0)),
        classes=memory.classes,
        settings=settings.llm,
        kind=memory.info.kind,
        seed=derive_seed(settings.run.seed, "llm", memory.client),
    )
    store = open_store(settings.llm.store)
    done = local_round(task, arrays, told.round, settings.run.seed, store, memory.tell)
    numbers = AdaptReport(
        rows=len(site.train),
        round=told.round,
        steps=done.steps,
        loss=done.loss,
        start=done.start,
        reused=int(done.reused),
        llm_tokens=done.tokens,
        llm_seconds=done.seconds,
    )
    return numbers, done.arrays


def adopt_shared(memory: SiteMemory, arrays: Parameters) -> tuple[AdoptReport, Parameters]:
    """Keep the shared adapter, make it the site's teacher, and sum up its features.

    Parameters
    ----------
    memory : SiteMemory
        The site.
    arrays : dict of arrays
        The adapter after the last round of averaging.

    Returns
    -------
    tuple
        The teacher's figures on the site's validation rows; the moments of the training rows'
        features, or empty ones where the adapter does not make the features.
    """
    began = time.monotonic()
    memory.adopt(arrays)
    teacher, _ = memory.teacher()
    # Moments of other features have been told: to tell them again would be a release of its own.
    shared = memory.settings.features.encoder == "shared"
    moments = site_moments(memory) if shared else _of_no_features(memory)
    numbers = AdoptReport(
        rows=len(memory.site.validation),
        loss=float(teacher.metrics["loss"]),
        accuracy=float(teacher.metrics["accuracy"]),
        llm_seconds=time.monotonic() - began,
    )
    return numbers, packed(moments)


def site_moments(memory: SiteMemory) -> Moments:
    """Return the moments of the training rows' features, (C,), (C, d) and (d, d), as they are told.

    Classes of fewer than ``privacy.min_rows`` rows are left out. Before the shared adapter is there
    the features that it makes are unknown: d is then 0, and only the rows by class are sent.
    """
    from core.privacy import noise_seed
    from data import clip_rows, frequent_class_rows, moments_of, noisy_moments

    privacy = memory.settings.privacy
    if memory.settings.features.encoder == "shared" and not memory.adopted_digest:
        return _of_no_features(memory)
    noise, longest, features = privacy.moment_noise, privacy.moment_clip, memory.features("train")
    labels = np.asarray(memory.site.train.labels)
    enough = frequent_class_rows(labels, memory.classes, privacy.min_rows)
    told = (clip_rows(features, longest) if noise else np.asarray(features))[enough]
    moments = moments_of(told, labels[enough], memory.classes)
    if not noise:
        return moments
    seed = noise_seed(memory.settings, "moments", memory.client)
    return noisy_moments(moments, noise, longest, np.random.default_rng(seed))


def _of_no_features(memory: SiteMemory) -> Moments:
    """Return the rows by class as moments of d = 0 features."""
    from data import moments_of

    labels = memory.site.train.labels
    return moments_of(np.zeros((len(labels), 0)), labels, memory.classes)


def packed(moments: Moments) -> Parameters:
    """Return moments as the arrays that travel."""
    return {"count": moments.count, "sums": moments.sums, "second": moments.second}
