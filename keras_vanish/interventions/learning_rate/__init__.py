"""The policy of `auto_lr`."""

from keras_vanish.interventions.learning_rate.control import LearningRateControl
from keras_vanish.interventions.learning_rate.state import RateState

__all__ = ["LearningRateControl", "RateState"]
