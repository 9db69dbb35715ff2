from keras_vanish.diagnosis.loss_trend import LossTrend
from keras_vanish.interventions.clipping import (
    AdaptiveClipping,
    Limits,
    NormClipping,
    PercentileClipping,
    ZScoreClipping,
)
from keras_vanish.interventions.intervention import Intervention
from keras_vanish.interventions.learning_rate import LearningRateControl
from keras_vanish.interventions.observation import Observation
from keras_vanish.interventions.policy import ClippingPolicy, RatePolicy
from keras_vanish.interventions.reinitialization import Reinitialization
from keras_vanish.interventions.rollback import Decision, Rollback

__all__ = [
    "AdaptiveClipping",
    "ClippingPolicy",
    "Decision",
    "Intervention",
    "LearningRateControl",
    "Limits",
    "Look",
    "LossTrend",
    "NormClipping",
    "Observation",
    "PercentileClipping",
    "RatePolicy",
    "Reinitialization",
    "Rollback",
    "ZScoreClipping",
]

#: The name that earlier versions gave to `Observation`.
Look = Observation
