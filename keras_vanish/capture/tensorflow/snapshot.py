"""Copies of a training's state, in memory on the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from keras_vanish.capture.tensorflow.private_names import counter_and_rate


class Snapshot:
    """A copy of a model's weights, statistics and seeds, and of its optimizer's slots.

    It does not contain the optimizer's step count and learning rate. Schedules go on counting, and
    another callback may own the rate.

    A copy takes no memory until training overwrites the values that it shares.

    Args:
        model: A built Keras model.
        optimizer: The optimizer that trains the model.
    """

    def __init__(self, model: Any, optimizer: Any) -> None:
        self._values = [(v, tf.identity(v)) for v in _state(model, optimizer)]

    def restore(self) -> None:
        """Gives every variable its value in the copy."""
        for variable, value in self._values:
            variable.assign(value)

    def finite(self) -> bool:
        """Returns whether no floating-point value is NaN or Inf. Waits for the device."""
        floats = [value for _, value in self._values if value.dtype.is_floating]
        finite = [tf.reduce_all(tf.math.is_finite(value)) for value in floats]
        return bool(tf.reduce_all(tf.stack(finite))) if finite else True


def _state(model: Any, optimizer: Any) -> Iterator[Any]:
    """Yields each `tf.Variable` to copy, once."""
    seen = set(map(id, _counters(optimizer)))
    for variable in [*model.variables, *optimizer.variables]:
        if id(variable) not in seen:
            seen.add(id(variable))
            yield variable.value


def _counters(optimizer: Any) -> Iterator[Any]:
    while optimizer is not None:
        yield from counter_and_rate(optimizer)
        optimizer = getattr(optimizer, "inner_optimizer", None)
