"""Takes the samples of a batch that the probe uses."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_vanish.capture.tensorflow.private_names import flattened


def first_samples(model: Any, data: Any, samples: int) -> tuple[Any, Any, Any, Any]:
    """Returns the first samples of a batch. A stateful model gets the whole batch.

    Args:
        model: A Keras model.
        data: The data that `train_step` received: `x`, `(x, y)` or `(x, y, sample_weight)`.
        samples: The largest number of samples to take.

    Returns:
        `x`, `y` and `sample_weight` of these samples, and their share of the batch.

    Raises:
        TypeError: If a part of the batch cannot be sliced.
    """
    parts = keras.utils.unpack_x_y_sample_weight(data)
    tensors = [t for t in tf.nest.flatten(parts) if t is not None]
    for tensor in tensors:
        shape = tf.TensorShape(getattr(tensor, "shape", ()))
        if isinstance(tensor, tf.SparseTensor) or shape.rank == 0:
            raise TypeError(
                "The probe takes the first samples of each tensor of a batch. Received: a "
                f"{_kind(tensor)} of shape {shape}, which is "
                "sparse or has no first axis. Use probe=False."
            )
    if any(getattr(layer, "stateful", False) for layer in flattened(model)):
        return (*parts, 1.0)
    total = number_of_samples(tensors)
    count = tf.minimum(total, samples)
    share = tf.cast(count, tf.float32) / tf.cast(total, tf.float32)
    if isinstance(total, int) and total <= samples:
        return (*parts, share)
    parts = tf.nest.map_structure(lambda t: None if t is None else t[:samples], tuple(parts))
    return (*parts, share)


def number_of_samples(tensors: Any) -> Any:
    """Returns the number of samples of a batch: an int, or a tensor if it is not known yet."""
    first = tf.nest.flatten(tensors)[0]
    if first.shape[0] is not None:
        return first.shape[0]
    return first.nrows() if isinstance(first, tf.RaggedTensor) else tf.shape(first)[0]


def rolled(x: Any) -> Any:
    """Returns the inputs shifted by one: each sample gets the input of the one before it.

    The first sample gets the input of the last one.
    """
    return tf.nest.map_structure(lambda tensor: tf.concat([tensor[-1:], tensor[:-1]], 0), x)


def without_size(tensor: tf.Tensor) -> bool:
    """Returns whether the length of a tensor's first axis is unknown during tracing."""
    return tensor.shape.rank is not None and tensor.shape[0] is None


def _kind(tensor: Any) -> str:
    return "Tensor" if isinstance(tensor, tf.Tensor) else type(tensor).__name__
