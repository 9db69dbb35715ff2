from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_vanish.capture.tensorflow.activations.layer_outputs import LayerOutput
from keras_vanish.capture.tensorflow.activations.measures import UNKNOWN, measures, table
from keras_vanish.records.activations import ACTIVATION_COLUMNS


def row(seen: LayerOutput, *gradients: Any) -> dict[str, float]:
    """The columns of one layer."""
    (found,) = table([measures(seen, [tf.constant(g) for g in gradients])]).numpy().tolist()
    return dict(zip(ACTIVATION_COLUMNS, found))


def seen_of(*outputs: Any, **columns: Any) -> LayerOutput:
    return LayerOutput(
        "layer", layers.Layer(), [tf.constant(x, tf.float32) for x in outputs], **columns
    )


def applied(layer: Any, x: Any) -> LayerOutput:
    """A layer whose activation function is given `x`."""
    before = tf.constant(x, tf.float32)
    after = layer.activation(before)
    return LayerOutput("layer", layer, [after], layer.activation, before, after)


@pytest.mark.smoke
def test_gradients_and_outputs() -> None:
    found = row(seen_of([[3.0, 4.0], [0.0, 5.0]]), [[1e-3, -1e-3], [1e-3, 1e-3]])
    assert found["size"] == 2
    assert found["gradient_rms"] == pytest.approx(1e-3)
    assert found["output_rms"] == pytest.approx(math.sqrt(50 / 4))
    assert found["gradient_nonfinite_count"] == found["output_nonfinite_count"] == 0
    for name in ACTIVATION_COLUMNS[5:]:
        assert math.isnan(found[name]), name


def test_several_outputs_count_as_one() -> None:
    found = row(seen_of(np.ones((2, 3, 4)), 7 * np.ones((2, 4))), [1.0, 1.0], [[5.0, 5.0]])
    assert found["size"] == 16
    assert found["gradient_rms"] == pytest.approx(math.sqrt(13))
    assert found["output_rms"] == pytest.approx(math.sqrt((24 + 8 * 49) / 32))


@pytest.mark.smoke
def test_what_is_not_finite_is_counted_and_left_out() -> None:
    broken = [[math.nan, 3.0], [-math.inf, 4.0], [math.inf, 5.0]]
    found = row(seen_of(broken), broken[:2])
    assert found["output_nonfinite_count"] == 3
    assert found["output_rms"] == pytest.approx(math.sqrt(50 / 3))
    assert found["gradient_nonfinite_count"] == 2
    assert found["gradient_rms"] == pytest.approx(math.sqrt(25 / 2))
    found = row(seen_of([[math.nan]]), [[math.inf]])
    assert math.isnan(found["output_rms"])
    assert math.isnan(found["gradient_rms"])


@pytest.mark.smoke
@pytest.mark.parametrize("value", [1e-30, 1e30])
def test_no_square_leaves_the_range(value: float) -> None:
    found = row(seen_of([[value, -value]]), [[value]])
    assert found["gradient_rms"] == pytest.approx(value)
    assert found["output_rms"] == pytest.approx(value)


def test_what_is_not_there_is_missing_and_not_zero() -> None:
    found = row(seen_of([[1.0]]))
    assert math.isnan(found["gradient_rms"])
    assert math.isnan(found["gradient_nonfinite_count"])
    assert row(seen_of([[0.0]]), [[0.0]])["gradient_rms"] == 0.0
    assert np.isnan(table([UNKNOWN]).numpy()).all()


@pytest.mark.smoke
def test_preactivations_and_dead_units() -> None:
    x = [[-1.0, 2.0, -3.0, 0.5], [-4.0, -1.0, -3.0, 0.5]]
    found = row(applied(layers.Dense(4, activation="relu"), x))
    assert found["preactivation_mean"] == pytest.approx(np.mean(x))
    assert found["preactivation_std"] == pytest.approx(np.std(x))
    assert found["dead_fraction"] == 0.5
    assert math.isnan(found["saturated_fraction"])
    # A mean far from zero loses digits, and never the root of something negative.
    found = row(applied(layers.Dense(2, activation="relu"), np.full((3, 2), 1234.567)))
    assert found["preactivation_std"] == pytest.approx(0.0, abs=1e-3)


def test_units_stand_on_the_axis_of_channels() -> None:
    x = np.ones((2, 3, 4, 5))
    x[:, 1] = -1
    first = layers.Conv2D(3, 1, activation="relu", data_format="channels_first")
    last = layers.Conv2D(5, 1, activation="relu", data_format="channels_last")
    assert row(applied(first, x))["dead_fraction"] == pytest.approx(1 / 3)
    assert row(applied(last, x))["dead_fraction"] == 0.0


@pytest.mark.smoke
def test_saturation_and_attention() -> None:
    found = row(applied(layers.Dense(4, activation="tanh"), [[0.0, 9.0, -9.0, 0.1]]))
    assert found["saturated_fraction"] == 0.5
    assert math.isnan(found["dead_fraction"])
    even = tf.fill([1, 2, 4], 0.25)
    assert row(seen_of([[1.0]], attention=(even, None, 1)))["attention_entropy"] == pytest.approx(1)


def test_rows_keep_their_order() -> None:
    rows = [measures(seen_of([[value]]), []) for value in (3.0, 1.0, 2.0)]
    found = table([*rows, UNKNOWN]).numpy()
    assert (found.shape, found.dtype) == ((4, len(ACTIVATION_COLUMNS)), np.float32)
    assert found[:3, ACTIVATION_COLUMNS.index("output_rms")].tolist() == [3.0, 1.0, 2.0]
