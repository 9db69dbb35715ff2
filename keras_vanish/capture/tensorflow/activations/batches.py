"""The samples of a batch that the probe is given."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_vanish.capture.tensorflow.private_names import flattened


def first_samples(model: Any, data: Any, samples: int) -> tuple[Any, Any, Any, Any]:
    """Takes the first samples of a batch; the whole batch for a stateful model.

    Args:
        model: A Keras model.
        data: What `train_step` was given: `x`, `(x, y)` or `(x, y, sample_weight)`.
        samples: The number of samples to take, at most.

    Returns:
        `x`, `y` and `sample_weight` of these samples, and their share of the batch.

    Raises:
        TypeError: If the batch contains what cannot be sliced.
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
    """Gives the number of samples of a batch: an int, or a tensor where it is unknown yet."""
    first = tf.nest.flatten(tensors)[0]
    if first.shape[0] is not None:
        return first.shape[0]
    return first.nrows() if isinstance(first, tf.RaggedTensor) else tf.shape(first)[0]


def rolled(x: Any) -> Any:
    """Gives each sample the input of the sample before it, and the first that of the last."""
    return tf.nest.map_structure(lambda tensor: tf.concat([tensor[-1:], tensor[:-1]], 0), x)


def without_size(tensor: tf.Tensor) -> bool:
    """Tells whether the length of the first axis of a tensor is unknown while it is traced."""
    return tensor.shape.rank is not None and tensor.shape[0] is None


def _kind(tensor: Any) -> str:
    return "Tensor" if isinstance(tensor, tf.Tensor) else type(tensor).__name__
