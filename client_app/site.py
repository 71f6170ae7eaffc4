"""What a site caches: its rows, their features, and the language model fine-tuned once.

To train, a new process takes labels, features and soft labels that the site stored in this run;
otherwise it reads its rows, and the fine-tuned model and embeddings come from the site's store.
Nothing large goes into Flower's ``context.state``, which loses it silently beyond some 80 MB.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from logging import INFO
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
from flwr.app import ConfigRecord, Context
from flwr.common.logger import log

from client_app.process_cache import (
    MOST_SITES,
    Recent,
    clear,
    client_of,
    of_client,
    settings_of,
    shared_rows,
    simulator,
)
from client_app.site_store import StoredSite, read_site, site_digest, write_site
from core import (
    AUTO,
    DataError,
    ModelError,
    Settings,
    derive_seed,
    fine_tunes_llm,
    open_store,
)
from core.messages import UNSET

if TYPE_CHECKING:
    from data import DataInfo, Projection, Site
    from llm import FrozenAdapter, Teacher
    from quantum import Classifier, Host

STATE_KEY = "llm-qfl"
SPLITS = ("train", "validation", "test", "unlabelled")


@dataclass
class SiteCache:
    """One site within one run and process.

    Attributes
    ----------
    settings : Settings
        The run's settings with this node's own.
    client : int
        Index of the client, from 0.
    name : str
        The site's own name.
    run : str
        Flower's id of the run, of a resumed one that of its first part, and the client's index:
        whose jobs and budgets these are.
    fresh : bool
        Whether the language model is still to be fine-tuned in this run.
    adapter_digest : str
        Digest of the shared adapter, once the federation has agreed on it.
    stored_digest : str
        Digest of what this site stored of the run; empty if nothing yet.
    rows : str
        Digest of the rows with which it first trained in this run.
    kinds : str
        The features that the run's projection takes; empty: those of the settings.
    terms : tuple of float
        lambda of the first round and tau, once the site has them; before empty.
    """

    settings: Settings
    client: int
    name: str
    run: str = ""
    fresh: bool = True
    adapter_digest: str = ""
    stored_digest: str = ""
    rows: str = ""
    kinds: str = ""
    terms: tuple[float, ...] = ()
    _to_store: bool = False
    _features: dict[tuple[str, str], npt.NDArray[np.float32]] = field(default_factory=dict)
    _teacher: Teacher | None = None

    def catch_up(self, noted: ConfigRecord, adapter: str, fine_tuned: bool) -> None:
        """Take over what other processes of this run have noted, and what a message says."""
        self.fresh = self.fresh and not (noted.get("fine-tuned") or fine_tuned)
        self.adapter_digest = self.adapter_digest or str(noted.get("adapter") or "")
        self.rows = self.rows or str(noted.get("rows") or "")
        self.terms = self.terms or tuple(cast("list[float]", noted.get("terms") or []))
        digest = str(noted.get("stored") or "")
        if digest and digest != self.stored_digest:
            self.stored_digest = digest
            self.__dict__.pop("stored", None)  # an earlier message may have found none
        if adapter != UNSET:
            self.adapter_digest = adapter

    @property
    def _run(self) -> str:
        return self.run.partition("/")[0]

    @functools.cached_property
    def _loaded(self) -> tuple[DataInfo, Site]:
        from data import load_site

        shared = shared_rows(self._run)
        info, site = load_site(self.settings, self.client, self.settings.run.clients, shared)
        if self.rows and site_digest(site) != self.rows:
            raise DataError(
                "rows that changed while the run was going on",
                "those with which this site began the run",
                "put the old rows back, or start a new run",
            )
        return info, site

    @property
    def info(self) -> DataInfo:
        """Name, kind and classes of the site's data."""
        return self._loaded[0]

    @property
    def site(self) -> Site:
        """The site's rows, read when they are first asked for."""
        return self._loaded[1]

    @functools.cached_property
    def stored(self) -> StoredSite | None:
        """What the site stored of this run, if it is there and whole."""
        if not self.stored_digest:
            return None
        store = open_store(self.settings.llm.store)
        return read_site(store, self.client, self.run, self.adapter_digest, self.stored_digest)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.stored.classes if self.stored else len(self.info.classes)

    def labels(self, split: str) -> npt.NDArray[np.int64]:
        """Return the labels of one of `SPLITS`, (rows,)."""
        return self.stored.labels[split] if self.stored else getattr(self.site, split).labels

    @property
    def host(self) -> Host:
        """Where the node's circuits run."""
        from quantum import Host

        settings = self.settings
        return Host(
            hardware=settings.hardware,
            seed=derive_seed(settings.run.seed, "device", self.client),
            layout_seed=settings.run.seed,
            timeout=settings.run.round_timeout,
            store=open_store(settings.llm.store),
            run=self.run,
        )

    @functools.cached_property
    def classifier(self) -> Classifier:
        """The quantum classifier on this node's backend."""
        from quantum import build_classifier

        if self.settings.quantum.backend == "exact":
            return self.simulated
        return build_classifier(self.settings.quantum, self.classes, self.host)

    @property
    def simulated(self) -> Classifier:
        """The same classifier on the exact simulator, for warm rounds."""
        return simulator(self._run, self.settings.quantum, self.classes)

    def classifier_in(self, server_round: int) -> Classifier:
        """Return what a client trains on in a round: in a warm one the exact simulator."""
        warm = server_round <= self.settings.train.warm_rounds
        return self.simulated if warm else self.classifier

    @property
    def has_teacher(self) -> bool:
        """Whether this process has the teacher at hand."""
        return self._teacher is not None or self.stored is not None

    @functools.cached_property
    def frozen_adapter(self) -> FrozenAdapter | None:
        """The shared adapter, from the site's store; None if there is none (yet)."""
        from llm import load_adapter

        if not self.adapter_digest:
            return None
        store = open_store(self.settings.llm.store)
        return load_adapter(store, self.adapter_digest, self.classes, self.settings.run.seed)

    def set_adapter(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Store the shared adapter: later messages bring only its digest. May raise ModelError."""
        from llm import freeze_adapter, save_adapter

        adapter = freeze_adapter(arrays, self.classes, self.settings.run.seed)
        store = open_store(self.settings.llm.store)
        try:
            save_adapter(adapter, store)
        except OSError as error:
            raise ModelError(
                f"the shared adapter cannot be stored in {store} ({error})",
                "a folder that may be written, with space left",
                "set llm.store to one",
            ) from error
        self.adapter_digest, self.stored_digest = adapter.digest, ""
        self.__dict__.update(frozen_adapter=adapter, stored=None)
        self._features.clear()
        self._teacher, self.terms = None, ()

    def terms_from(self, choose: Callable[[], tuple[float, float]]) -> tuple[float, ...]:
        """Return lambda of the first round and tau; they are chosen the first time only."""
        self.terms = self.terms or choose()
        return self.terms

    def features(self, split: str) -> npt.NDArray[np.float32]:
        """Return the raw features of one of `SPLITS`, (rows, d)."""
        if self.stored and split in self.stored.features:
            return self.stored.features[split]
        return self.features_of(split, self.kinds)

    def take_projection(self, projection: Projection) -> None:
        """Take note of the run's features and qubits; features of other candidates are dropped."""
        self.kinds = projection.kinds
        for split, made in [key for key in self._features if key[1] != self.kinds]:
            del self._features[split, made]
        if self.settings.quantum.qubits == AUTO:
            quantum = self.settings.quantum.model_copy(update={"qubits": projection.qubits})
            self.settings = self.settings.model_copy(update={"quantum": quantum})
            self.__dict__.pop("classifier", None)

    def features_of(self, split: str, kinds: str) -> npt.NDArray[np.float32]:
        """Return the features of some kinds, (rows, d), whether or not the run uses them."""
        if (split, kinds) not in self._features:
            from data import raw_features, with_kind

            texts = getattr(self.site, split).texts
            settings = with_kind(self.settings.features, kinds)
            made = raw_features(texts, self.info.kind, settings, self._embed)
            self._features[split, kinds] = made
        return self._features[split, kinds]

    def _embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        import torch

        from llm import stored_embedding

        torch.set_num_threads(self.settings.quantum.threads)
        settings = self.settings
        store = open_store(settings.llm.store) / "features"
        adapter = self.frozen_adapter if settings.features.encoder == "shared" else None
        return stored_embedding(
            texts, settings.llm, self.info.kind, store, self.log_progress, adapter=adapter
        )

    def log_progress(self, line: str) -> None:
        """Write a line of progress to the run's log, where the launcher finds it."""
        log(INFO, "client %d: %s", self.client, line)

    def teacher(self) -> tuple[Teacher, float]:
        """Return the site's teacher and the seconds it took: fine-tuned once, then cached."""
        began = time.monotonic()
        if self._teacher is None:
            self._to_store = self.stored is None
            self._teacher = self.stored.teacher if self.stored else self._fine_tuned()
            self.fresh = False
        return self._teacher, time.monotonic() - began

    def store(self) -> None:
        """Store what later processes of this run need; they do without where that fails."""
        wanted, self._to_store = self._to_store, False
        if not wanted or _sites.all_here:
            return
        labels = {split: self.labels(split) for split in SPLITS}
        teacher, _ = self.teacher()
        self.rows = site_digest(self.site)
        features = {split: made for (split, _), made in self._features.items()}
        entry = StoredSite(self.run, self.adapter_digest, self.classes, labels, features, teacher)
        folder = open_store(self.settings.llm.store)
        try:
            self.stored_digest = write_site(folder, self.client, entry)
        except OSError as error:
            self.log_progress(f"labels and features are not stored for later messages ({error})")

    def _fine_tuned(self) -> Teacher:
        from llm import Task, cross_fit, fine_tune, no_teacher

        settings = self.settings
        if not fine_tunes_llm(settings):
            return no_teacher()
        # `reuse = false` means: not from an earlier run. Within this run it is still done once.
        llm = settings.llm
        if not llm.reuse and not self.fresh:
            llm = llm.model_copy(update={"reuse": True})
        folds = settings.distill.folds
        train, validation = self.site.train, self.site.validation
        task = Task(
            *(train.texts, train.labels, validation.texts, validation.labels),
            classes=self.classes,
            settings=llm,
            kind=self.info.kind,
            seed=derive_seed(settings.run.seed, "llm", self.client),
            calibrate=settings.distill.calibrate,
            adapter=None if folds else self.frozen_adapter,
            hidden=settings.distill.features > 0 and not folds,
            extra_texts=self.site.unlabelled.texts if settings.distill.transfers else (),
            class_names=self.info.classes,
            run=settings,
        )
        if folds:
            return cross_fit(task, folds, open_store(llm.store), self.log_progress)
        return fine_tune(task, open_store(llm.store), self.log_progress)


def load_cache(
    context: Context, run: str = UNSET, adapter: str = UNSET, *, fine_tuned: bool = False
) -> SiteCache:
    """Return the cache of the site that a message reached.

    Parameters
    ----------
    context : Context
        Flower's: settings, the node's own, and the state that it stores of this run.
    run, adapter : str
        The run's first part and the shared adapter, as the message names them: a node that was
        restarted, or that a resumed run finds, has no state.
    fine_tuned : bool
        Whether the server knows that the site has fine-tuned its language model in this run.

    Raises
    ------
    SettingsError
        If the node does not know which client it is.
    """
    settings = settings_of(context.run_config, context.node_config)
    client = client_of(context, settings)
    settings = of_client(settings, client)
    name = str(context.node_config.get("site") or f"client {client}")
    run = f"{context.run_id if run == UNSET else run}/{client}"
    cache = _sites.get(
        (settings, client, name, run), lambda: SiteCache(settings, client, name, run)
    )
    cache.catch_up(context.state.config_records.get(STATE_KEY, ConfigRecord()), adapter, fine_tuned)
    return cache


def note(context: Context, cache: SiteCache) -> None:
    """Note, for other processes of this run, what the site has: all of it small."""
    context.state[STATE_KEY] = ConfigRecord(
        {
            "fine-tuned": not cache.fresh,
            "adapter": cache.adapter_digest,
            "stored": cache.stored_digest,
            "rows": cache.rows,
            "terms": list(cache.terms),
        }
    )


_sites: Recent[SiteCache] = Recent(MOST_SITES)


def hold_sites(count: int) -> None:
    """Cache all sites of a run in this process, so many: no other process needs what they have."""
    _sites.resize(max(count, MOST_SITES), all_here=True)


def forget() -> None:
    """Empty the caches of this process: the next run in it shares nothing with the last."""
    _sites.clear()
    _sites.resize(MOST_SITES)
    clear()
