"""Reads and corrects an optimizer's momentum."""

from __future__ import annotations

from typing import Any

import keras

from keras_vanish.capture.tensorflow.private_names import velocities
from keras_vanish.capture.tensorflow.tap import unwrapped


def momentum(optimizer: Any) -> float:
    """Returns the share of each update that the next one repeats, in [0, 1).

    It is `momentum` for gradient descent and RMSprop, and `beta_1` for Adam and its relatives. It
    is 0 if the optimizer has neither, or if the value is no number in [0, 1).

    Args:
        optimizer: A Keras optimizer.
    """
    inner = unwrapped(optimizer)
    found = getattr(inner, "momentum", getattr(inner, "beta_1", 0.0))
    known = isinstance(found, (int, float)) and 0 <= found < 1
    return float(found) if known else 0.0


def correct_momentum(optimizer: Any, share: float) -> None:
    """Multiplies the optimizer's velocity after a change of the learning rate.

    `keras.optimizers.SGD` and `RMSprop` accumulate gradients that are already multiplied by the
    rate. Without this correction, the velocity of a rate that was too large goes on for `1 / (1 -
    momentum)` steps. Adam and its relatives accumulate plain gradients and need no correction.

    Args:
        optimizer: A Keras optimizer.
        share: The factor by which the learning rate changed.

    Reference:
        Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017, section 3.
    """
    inner = unwrapped(optimizer)
    if not isinstance(inner, (keras.optimizers.SGD, keras.optimizers.RMSprop)):
        return
    for slot in velocities(inner):
        slot.assign(slot * share)
