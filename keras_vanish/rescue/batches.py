"""Batches that are taken out of a fit's iterator before the train step sees them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_vanish.capture.tensorflow.private_names import clear_losses


class TakenBatches:
    """The batches of the next call of the train function.

    Args:
        iterator: The iterator that the call was about to take its batches from.
        count: How many batches it takes.

    Raises:
        StopIteration: If there is none.
    """

    def __init__(self, iterator: Any, count: int) -> None:
        self._iterator = iterator
        self._batches = list(itertools.islice(_until_end(iterator), count))
        if not self._batches:
            raise StopIteration

    def inputs(self) -> Any:
        """The inputs `x` of the first batch."""
        return keras.utils.unpack_x_y_sample_weight(self._batches[0])[0]

    def build(self, model: Any) -> None:
        """Makes the weights of a model that has none before its first step."""
        model(tf.nest.map_structure(lambda tensor: tensor[:1], self.inputs()))
        # Losses that layers added belong to no step.
        clear_losses(model)

    def iterator(self) -> Any:
        """An iterator over the batches, for a function that was traced with the other one."""
        dataset = tf.data.Dataset.from_generator(
            lambda: iter(self._batches), output_signature=self._iterator.element_spec
        )
        return iter(dataset)


def _until_end(iterator: Any) -> Iterator[Any]:
    try:
        yield from iterator
    except tf.errors.OutOfRangeError:
        return
