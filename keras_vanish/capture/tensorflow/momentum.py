"""What an optimizer carries from one update to the next."""

from __future__ import annotations

from typing import Any

import keras

from keras_vanish.capture.tensorflow.private_names import velocities
from keras_vanish.capture.tensorflow.tap import unwrapped


def momentum(optimizer: Any) -> float:
    """The share of each update that the next one repeats, in [0, 1).

    `momentum` of gradient descent and RMSprop, `beta_1` of Adam and its relatives; 0 where an
    optimizer has none, or it is no number.
    """
    inner = unwrapped(optimizer)
    found = getattr(inner, "momentum", getattr(inner, "beta_1", 0.0))
    known = isinstance(found, (int, float)) and 0 <= found < 1
    return float(found) if known else 0.0


def correct_momentum(optimizer: Any, share: float) -> None:
    """Multiplies what is left of earlier updates, after the learning rate was.

    `keras.optimizers.SGD` and `RMSprop` add up gradients that are multiplied by the rate already.
    Without this, the velocity of a rate that was too large goes on for `1 / (1 - momentum)` steps
    (momentum correction; Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1
    Hour", 2017, section 3). Adam and its relatives keep plain gradients: nothing is done.

    Args:
        optimizer: A Keras optimizer.
        share: What the learning rate was multiplied by.
    """
    inner = unwrapped(optimizer)
    if not isinstance(inner, (keras.optimizers.SGD, keras.optimizers.RMSprop)):
        return
    for slot in velocities(inner):
        slot.assign(slot * share)
