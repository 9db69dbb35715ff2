"""Records the loss of every train step on the device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vanish.capture.tensorflow.attributes import replaced
from keras_vanish.capture.tensorflow.private_names import holds_numbers
from keras_vanish.capture.tensorflow.ring_buffer import RingBuffer


class LossLog:
    """Records the value that `model.compute_loss` last returns in each train step."""

    def __init__(self) -> None:
        self._ring = RingBuffer(1)
        self._read = 0

    @contextlib.contextmanager
    def noting(self, model: Any) -> Iterator[None]:
        """Returns a context in which to run or trace one train step.

        Args:
            model: The Keras model.
        """
        compute = model.compute_loss
        found: list[tf.Tensor] = []

        def computing(*args: Any, **kwargs: Any) -> Any:
            loss = compute(*args, **kwargs)
            found.append(loss)
            return loss

        with replaced(model, "compute_loss", computing):
            yield
        here = [loss for loss in found if _is_here(loss)]
        if here:
            self._ring.write([tf.reduce_mean(tf.cast(here[-1], tf.float32))])

    def read(self) -> np.ndarray:
        """Returns the losses since the last call, oldest first: float32 of shape `[steps]`.

        Waits for the device.
        """
        self._read, rows = self._ring.read(self._read)
        return rows[:, 0]


def _is_here(tensor: Any) -> bool:
    """Returns whether a tensor can be used at the end of the step.

    This excludes tensors that were made within a loop, and those of the probe, which has a graph of
    its own.
    """
    if not tf.is_tensor(tensor) or holds_numbers(tensor):
        return tf.executing_eagerly()
    return not tf.executing_eagerly() and tensor.graph is tf.compat.v1.get_default_graph()
