from keras_vanish.interventions.clipping import (
    AdaptiveClipping,
    Limits,
    NormClipping,
    PercentileClipping,
    ZScoreClipping,
)
from keras_vanish.interventions.intervention import Intervention, Look
from keras_vanish.interventions.learning_rate import LearningRateControl
from keras_vanish.interventions.loss_trend import LossTrend
from keras_vanish.interventions.reinitialization import Reinitialization
from keras_vanish.interventions.rollback import Decision, Rollback

__all__ = [
    "AdaptiveClipping",
    "Decision",
    "Intervention",
    "LearningRateControl",
    "Limits",
    "Look",
    "LossTrend",
    "NormClipping",
    "PercentileClipping",
    "Reinitialization",
    "Rollback",
    "ZScoreClipping",
]
