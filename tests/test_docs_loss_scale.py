"""What the pages say of a loss that is multiplied by a constant, tried with `fit`."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_vanish import Diagnosis, GradientMonitor

X = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
Y = np.arange(64) % 4


def first_diagnosis(optimizer: keras.optimizers.Optimizer, factor: float) -> Diagnosis:
    """Of a first step whose loss is multiplied by a factor."""
    keras.utils.set_random_seed(1)
    hidden = [keras.layers.Dense(16, "tanh") for _ in range(6)]
    model = keras.Sequential([keras.Input([16]), *hidden, keras.layers.Dense(4)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, loss_weights=[factor])
    monitor = GradientMonitor(None)
    model.fit(X, Y, batch_size=64, verbose=0, callbacks=[monitor])
    return monitor.history[0]


def test_under_sgd_the_exploding_score_grows_with_the_loss_and_the_vanishing_score_stays() -> None:
    once, larger = (first_diagnosis(keras.optimizers.SGD(1e-3), factor) for factor in (1, 1000))
    assert once.vanishing_score > 0.1
    assert larger.vanishing_score == pytest.approx(once.vanishing_score, rel=1e-6)
    assert larger.reading.update_ratios.max() < 0.1
    # The update is 1000 times as large, and the score u / (1 + u) of it.
    update = larger.exploding_score / (1 - larger.exploding_score)
    assert update == pytest.approx(1000 * once.exploding_score, rel=1e-3)


def test_under_adam_both_scores_stay() -> None:
    once, larger = (first_diagnosis(keras.optimizers.Adam(1e-3), factor) for factor in (1, 1000))
    assert larger.vanishing_score == pytest.approx(once.vanishing_score, rel=1e-6)
    # But for Adam's epsilon.
    assert larger.exploding_score == pytest.approx(once.exploding_score, rel=0.01)


def test_a_layer_whose_update_becomes_too_large_is_left_out() -> None:
    once, larger = (first_diagnosis(keras.optimizers.SGD(1e-2), factor) for factor in (1, 1000))
    assert larger.reading.update_ratios.min() >= 0.1
    assert once.components["weights"] > 0
    assert np.isnan(larger.components["weights"])
