"""A factor on an optimizer's learning rate, held in a variable of the monitor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_vanish.capture.tensorflow.private_names import current_rate, current_rate_replaced
from keras_vanish.capture.tensorflow.update import Update
from keras_vanish.capture.tensorflow.variables import unmanaged


class RateFactor:
    """Multiplies the learning rate inside a train step, wherever the rate comes from.

    The optimizer's own rate or schedule stays as it is. So callbacks that read or set the rate are
    not affected.

    Args:
        xla: Whether XLA compiles the train step.

    Attributes:
        value: The factor, as the host last set it. It is 1 at first.
    """

    def __init__(self, xla: bool) -> None:
        self.xla = xla
        with tf.init_scope():
            self._factor = unmanaged(1.0, tf.float32, [])
        self.value = 1.0

    def assign(self, factor: float) -> None:
        """Sets the factor from the next step on."""
        self._factor.assign(factor)
        self.value = factor

    def rate(self, update: Update) -> tf.Tensor:
        """Returns the multiplied rate of an update, a scalar tensor."""
        rate = update.rate()
        return rate * tf.cast(self._factor, rate.dtype)

    def untouched(self) -> tf.Tensor:
        """Returns whether the factor is 1, a bool scalar."""
        return tf.equal(self._factor, 1.0)

    def apply(self, update: Update) -> None:
        """Builds the update of the weights.

        If the factor is 1, the step skips the multiplication. It would change how the graph is
        optimized, and so the last bit of the weights.
        """

        def multiplied() -> None:
            with self.on(update.optimizer):
                update.apply(update.given)

        tf.cond(self.untouched(), update.apply_as_given, multiplied)

    @contextlib.contextmanager
    def on(self, optimizer: Any) -> Iterator[None]:
        """Returns a context in which the optimizer computes with the multiplied rate.

        In a `tf.function`, the context only needs to be open during tracing.
        """
        current = current_rate(optimizer)

        def multiplied() -> tf.Tensor:
            rate = keras.ops.convert_to_tensor(current())
            return rate * tf.cast(self._factor, rate.dtype)

        with current_rate_replaced(optimizer, multiplied):
            yield
