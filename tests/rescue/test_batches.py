"""Batches that are taken out of a fit's iterator, and given back in order."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vanish.rescue.batches import TakenBatches


def data(count: int = 5, weights: bool = False) -> tf.data.Dataset:
    """Batches of two samples: the first input of batch `n` is `10 n`."""
    x = np.arange(count, dtype=np.float32)[:, None, None] * 10 + np.ones((1, 2, 3), np.float32)
    y = np.arange(count)[:, None] * np.ones((1, 2), np.int64)
    parts = (x, y, np.ones((count, 2), np.float32)) if weights else (x, y)
    return tf.data.Dataset.from_tensor_slices(parts)


def labels(iterator: Any) -> list[int]:
    return [int(batch[1][0]) for batch in iterator]


@pytest.mark.parametrize("count", [1, 3])
def test_they_are_given_back_in_order(count: int) -> None:
    iterator = iter(data())
    taken = TakenBatches(iterator, count)
    assert labels(taken.iterator()) == list(range(count))
    # What was not taken stands in the iterator still.
    assert labels(iterator) == list(range(count, 5))


def test_a_traced_function_takes_the_other_iterator() -> None:
    iterator = iter(data())
    traces: list[int] = []

    @tf.function
    def train(batches: Any) -> tf.Tensor:
        traces.append(1)
        return next(batches)[1][0]

    assert int(train(iterator)) == 0
    taken = TakenBatches(iterator, 2).iterator()
    assert [int(train(taken)) for _ in range(2)] == [1, 2]
    assert int(train(iterator)) == 3
    assert len(traces) == 1


def test_a_last_call_may_take_fewer() -> None:
    taken = TakenBatches(iter(data(2)), 5)
    assert labels(taken.iterator()) == [0, 1]


@pytest.mark.parametrize("weights", [False, True])
def test_inputs_are_those_of_the_first_batch(weights: bool) -> None:
    iterator = iter(data(weights=weights))
    next(iterator)
    np.testing.assert_array_equal(TakenBatches(iterator, 2).inputs(), np.full((2, 3), 11.0))


def test_the_end_of_the_data_is_no_failure() -> None:
    iterator = iter(data(1))
    next(iterator)
    with pytest.raises(StopIteration):
        TakenBatches(iterator, 2)


def test_the_end_that_a_distributed_iterator_tells() -> None:
    class Ends:
        element_spec = data().element_spec

        def __init__(self) -> None:
            self.left = list(data(1))

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            if not self.left:
                raise tf.errors.OutOfRangeError(None, None, "the end")
            return self.left.pop()

    iterator = Ends()
    assert labels(TakenBatches(iterator, 3).iterator()) == [0]
    with pytest.raises(StopIteration):
        TakenBatches(iterator, 3)


def test_a_model_is_built_from_the_first_batch() -> None:
    class Late(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(4, activity_regularizer="l2")
            self.batches: list[int] = []

        def call(self, x: Any) -> Any:
            self.batches.append(len(x))
            return self.dense(x)

    model = Late()
    taken = TakenBatches(iter(data()), 2)
    taken.build(model)
    assert model.built
    assert tuple(model.dense.kernel.shape) == (3, 4)
    # One sample is enough, and what layers add to the loss belongs to no step.
    assert set(model.batches) == {1}
    assert model.losses == []
    assert labels(taken.iterator()) == [0, 1]
