"""Copies of a training's state, in memory on the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from keras_vanish.capture.tensorflow.private_names import counter_and_rate


class Snapshot:
    """A model's weights, statistics and seeds and its optimizer's slots, as they are now.

    The optimizer's count of steps and its learning rate are not in it: time goes on, also
    for schedules, and the rate may be another callback's.

    A copy takes no memory until training overwrites what it shares.

    Args:
        model: A built Keras model.
        optimizer: The optimizer that trains it.
    """

    def __init__(self, model: Any, optimizer: Any) -> None:
        self._values = [(v, tf.identity(v)) for v in _state(model, optimizer)]

    def restore(self) -> None:
        """Gives every variable the value that it had."""
        for variable, value in self._values:
            variable.assign(value)

    def finite(self) -> bool:
        """Whether no floating-point value is NaN or Inf; waits for the device."""
        floats = [value for _, value in self._values if value.dtype.is_floating]
        finite = [tf.reduce_all(tf.math.is_finite(value)) for value in floats]
        return bool(tf.reduce_all(tf.stack(finite))) if finite else True


def _state(model: Any, optimizer: Any) -> Iterator[Any]:
    """The `tf.Variable` of everything that is copied, once each."""
    seen = set(map(id, _counters(optimizer)))
    for variable in [*model.variables, *optimizer.variables]:
        if id(variable) not in seen:
            seen.add(id(variable))
            yield variable.value


def _counters(optimizer: Any) -> Iterator[Any]:
    while optimizer is not None:
        yield from counter_and_rate(optimizer)
        optimizer = getattr(optimizer, "inner_optimizer", None)
