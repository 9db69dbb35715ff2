"""Variables of the monitor, made while a train step is traced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_vanish.capture.tensorflow.private_names import resource_variable


def unmanaged(value: float, dtype: tf.DType, shape: Sequence[int]) -> Any:
    """Makes a variable that no model, optimizer, checkpoint or `tf.function` knows of.

    `tf.Variable` would ask the `tf.function` that is being traced. That function allows no new
    variables when it is traced again.

    Args:
        value: The value of every entry.
        dtype: The dtype of the variable.
        shape: The shape of the variable.
    """
    return resource_variable(tf.fill(shape, tf.constant(value, dtype)))


def value_of(variable: Any) -> npt.NDArray[Any]:
    """Gives the value of a variable that `unmanaged` made. The call waits for the device.

    `variable.numpy()` takes five times as long: it asks tapes and strategies, and those know
    nothing of the variable.
    """
    read = tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)
    return np.asarray(read.numpy())
