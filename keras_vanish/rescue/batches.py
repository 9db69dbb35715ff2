"""Takes batches out of the iterator of a `fit` before the train step sees them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_vanish.capture.tensorflow.private_names import clear_losses


class TakenBatches:
    """The batches that the next call of the train function is going to use.

    Args:
        iterator: The iterator from which the call was about to take its batches.
        count: The number of batches that the call uses, at most.

    Raises:
        StopIteration: If the iterator has no batch left.
    """

    def __init__(self, iterator: Any, count: int) -> None:
        self._iterator = iterator
        self._batches = list(itertools.islice(_until_end(iterator), count))
        if not self._batches:
            raise StopIteration

    def inputs(self) -> Any:
        """Returns the inputs `x` of the first batch."""
        return keras.utils.unpack_x_y_sample_weight(self._batches[0])[0]

    def build(self, model: Any) -> None:
        """Creates the weights of a model that has none before its first step.

        Args:
            model: A Keras model.
        """
        model(tf.nest.map_structure(lambda tensor: tensor[:1], self.inputs()))
        # The call may have added layer losses. They belong to no step.
        clear_losses(model)

    def iterator(self) -> Any:
        """Returns an iterator over the batches that the traced train function accepts."""
        dataset = tf.data.Dataset.from_generator(
            lambda: iter(self._batches), output_signature=self._iterator.element_spec
        )
        return iter(dataset)


def _until_end(iterator: Any) -> Iterator[Any]:
    try:
        yield from iterator
    except tf.errors.OutOfRangeError:
        return
