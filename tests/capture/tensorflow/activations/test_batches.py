"""The samples that the probe is given."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_vanish.capture.tensorflow.activations.batches import (
    first_samples,
    number_of_samples,
    rolled,
    without_size,
)


def model(stateful: bool = False) -> Any:
    return keras.Sequential(
        [layers.Input((3, 2), batch_size=6), layers.SimpleRNN(2, stateful=stateful)]
    )


def numbers(*shape: int) -> tf.Tensor:
    return tf.reshape(tf.range(np.prod(shape), dtype=tf.float32), shape)


@pytest.mark.smoke
def test_the_first_samples_and_their_share() -> None:
    data = ({"a": numbers(6, 3, 2)}, numbers(6, 1), numbers(6))
    x, y, weight, share = first_samples(model(), data, 4)
    assert (x["a"].shape, y.shape, weight.shape) == ((4, 3, 2), (4, 1), (4,))
    np.testing.assert_array_equal(weight, [0, 1, 2, 3])
    assert float(share) == pytest.approx(4 / 6)


def test_a_small_batch_is_taken_whole() -> None:
    given = numbers(6, 3, 2)
    x, y, weight, share = first_samples(model(), (given,), 6)
    assert x is given
    assert (y, weight, float(share)) == (None, None, 1.0)


def test_a_stateful_model_is_given_the_whole_batch() -> None:
    given = numbers(6, 3, 2)
    x, _, _, share = first_samples(model(stateful=True), (given, numbers(6, 1)), 4)
    assert x is given
    assert share == 1.0


@pytest.mark.parametrize("bad", [tf.sparse.eye(4, 6), tf.constant(1.0)])
def test_what_cannot_be_sliced_is_refused(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"is sparse or has no first axis. Use probe=False."):
        first_samples(model(), (numbers(4, 3, 2), bad), 2)


def test_the_number_of_samples_is_an_int_where_it_is_known() -> None:
    assert number_of_samples({"a": numbers(5, 2)}) == 5
    ragged = tf.RaggedTensor.from_row_lengths(numbers(6, 2), [2, 4])
    assert int(number_of_samples(ragged)) == 2

    @tf.function(input_signature=[tf.TensorSpec([None, 2])])
    def count(x: tf.Tensor) -> tf.Tensor:
        assert without_size(x)
        assert tf.is_tensor(number_of_samples(x))
        return number_of_samples(x)

    assert int(count(numbers(7, 2))) == 7
    assert not without_size(numbers(7, 2))


def test_each_sample_is_given_the_input_of_the_one_before() -> None:
    assert rolled({"a": numbers(4)})["a"].numpy().tolist() == [3, 0, 1, 2]
