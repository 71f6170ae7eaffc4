"""The loss by which models are credited weighs classes as the sites' loss does."""

import numpy as np
import pytest

from core import parse_run
from core.messages import pack_parameters, unpack_parameters
from data import fit_projection, load_server, moments_of, raw_features
from server_app.evaluation import CentralEvaluator
from strategies.context import PreparedFederation
from tests.test_defects import no_encoder


def evaluator(weights: list[float]) -> CentralEvaluator:
    settings, _ = parse_run([], ["data.train_rows=120", "data.server_rows=40", "data.test_rows=60"])
    server = load_server(settings)
    x = raw_features(server.train.texts, "dna", settings.features, no_encoder)
    projection = fit_projection(moments_of(x, server.train.labels, 2), 4, "lda", 0.1, 3.0, 0)
    return CentralEvaluator(settings, PreparedFederation((), {}, projection.to_bytes(), weights))


def test_it_is_the_plain_loss_with_equal_weights_and_by_hand_with_others() -> None:
    plain, weighted = evaluator([1.0, 1.0]), evaluator([3.0, 0.5])
    arrays = pack_parameters(plain.pipeline.classifier.initial(0))
    assert plain.credit_loss(arrays) == pytest.approx(plain.loss(arrays), rel=1e-6)
    said = plain.pipeline.probabilities(unpack_parameters(arrays), plain.validation, "by hand")
    total = weights = 0.0
    for row, label in zip(said, plain.data.validation.labels, strict=True):
        weight = (3.0, 0.5)[label]
        total, weights = total - weight * np.log(row[label]), weights + weight
    assert weighted.credit_loss(arrays) == pytest.approx(total / weights, rel=1e-6)
    assert weighted.credit_loss(arrays) != pytest.approx(plain.loss(arrays), rel=1e-3)
