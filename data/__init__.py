"""Data sets, what each part of a federation holds of them, features, projection, baselines.

Nothing heavy is imported here: scipy, scikit-learn and datasets come with the call that
needs them.
"""

from data.checks import checked_dna
from data.dataset import Dataset
from data.feature_kinds.kmer import kmer_frequencies, moment_centre
from data.feature_kinds.one_hot import one_hot
from data.features import (
    block_columns,
    candidate_kinds,
    check_lengths,
    columns_of,
    common_length,
    embeds,
    feature_kind,
    is_private,
    needs_length,
    possible_kinds,
    raw_features,
    unfit,
    with_kind,
)
from data.loading import SharedRows, load_corpus, load_federation, load_server, load_site
from data.metrics import calibration, confusion_scores, linear_baseline, majority_baseline, scores
from data.moments import (
    Moments,
    check_alike,
    clip_rows,
    frequent_class_rows,
    implausible,
    merge_moments,
    moments_of,
    noisy_moments,
    repaired_moments,
)
from data.outliers import outlying_sites
from data.probe import SHRINKAGES, USUAL_SHRINKAGE, Probe, fit_probe
from data.projection import Projection, fit_projection, varying_directions
from data.rows import Corpus, DataInfo, ServerData, Site, Split, class_rows
from data.text import clean_texts
