"""Policies for `auto_clip`: when the train step clips gradients, and to which norm."""

from keras_vanish.interventions.clipping.adaptive import AdaptiveClipping
from keras_vanish.interventions.clipping.limits import Limits
from keras_vanish.interventions.clipping.norm import NormClipping
from keras_vanish.interventions.clipping.percentile import PercentileClipping
from keras_vanish.interventions.clipping.zscore import NormHistory, ZScoreClipping

__all__ = [
    "AdaptiveClipping",
    "Limits",
    "NormClipping",
    "NormHistory",
    "PercentileClipping",
    "ZScoreClipping",
]
