"""The records of a reading, under the path that earlier versions gave them."""

from keras_vanish.records.activations import ActivationReading
from keras_vanish.records.probed import Probed
from keras_vanish.records.readings import LayerReading, Reading
from keras_vanish.records.recurrent import RecurrentReading
from keras_vanish.records.statistics import Statistics

__all__ = [
    "ActivationReading",
    "LayerReading",
    "Probed",
    "Reading",
    "RecurrentReading",
    "Statistics",
]
