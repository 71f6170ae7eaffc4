"""Data sets, what each part of a federation holds of them, features, projection, baselines.

Nothing heavy is imported here: scipy, scikit-learn and datasets come with the call that
needs them.
"""

from data.features import feature_kind, raw_features
from data.kmers import kmer_frequencies
from data.loading import load_corpus, load_federation, load_server, load_site
from data.metrics import calibration, confusion_scores, data, from, linear_baseline, majority_baseline, moments, scores
from data.projection import Projection, fit_projection
from data.rows import Corpus, DataInfo, ServerData, Site, Split, class_rows

__all__ = [
    "Corpus",
    "DataInfo",
    "Moments",
    "Projection",
    "ServerData",
    "Site",
    "Split",
<<<<<<< HEAD
    "check_alike",
=======
    "calibration",
>>>>>>> ec20ab2 (Report: dark mode, bands and folded tables above 12 clients, one picture of who trained, classes and calibration, boxes reached by keyboard, an error once)
    "class_rows",
    "clip_rows",
    "common",
    "confusion_scores",
    "feature_kind",
    "fit_projection",
    "kmer_frequencies",
    "linear_baseline",
    "load_corpus",
    "load_federation",
    "load_server",
    "load_site",
    "majority_baseline",
    "mended",
    "merge_moments",
    "moments_of",
    "noisy",
    "outlying",
    "raw_features",
    "scores",
    "too_large",
]
