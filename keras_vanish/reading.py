"""The records of a reading, under the path that earlier versions gave them."""

from keras_vanish.records.readings import (
    ActivationReading,
    LayerReading,
    Probed,
    Reading,
    RecurrentReading,
    Statistics,
)

__all__ = [
    "ActivationReading",
    "LayerReading",
    "Probed",
    "Reading",
    "RecurrentReading",
    "Statistics",
]
