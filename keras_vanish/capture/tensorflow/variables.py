"""Variables of our own, made while a train step is traced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_vanish.capture.tensorflow.private_names import resource_variable


def unmanaged(value: float, dtype: tf.DType, shape: Sequence[int]) -> Any:
    """A variable that no model, optimizer, checkpoint or `tf.function` knows of.

    `tf.Variable` would ask the `tf.function` that is being traced, which allows no new
    variables when it is traced again.

    Args:
        value: What it is filled with.
        dtype: Its dtype.
        shape: Its shape.
    """
    return resource_variable(tf.fill(shape, tf.constant(value, dtype)))


def value_of(variable: Any) -> npt.NDArray[Any]:
    """What a variable that `unmanaged` made holds; waits for the device.

    `variable.numpy()` takes five times as long: it asks tapes and strategies, which know nothing
    of ours.
    """
    read = tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)
    return np.asarray(read.numpy())
