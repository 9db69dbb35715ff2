"""From records to findings, verdicts and words: pure functions that need no framework."""

from keras_vanish.diagnosis.diagnose import diagnose, diagnoses
from keras_vanish.diagnosis.diagnosis import Diagnosis
from keras_vanish.diagnosis.findings.finding import THRESHOLD, Verdict, worst
from keras_vanish.diagnosis.loss_trend import LossTrend
from keras_vanish.diagnosis.progress import LearningProgress
from keras_vanish.diagnosis.verdicts import (
    AGREEING_READINGS,
    representative,
    steadied,
    verdict_of,
    verdicts,
    worst_of,
)

__all__ = [
    "AGREEING_READINGS",
    "THRESHOLD",
    "Diagnosis",
    "LearningProgress",
    "LossTrend",
    "Verdict",
    "diagnose",
    "diagnoses",
    "representative",
    "steadied",
    "verdict_of",
    "verdicts",
    "worst",
    "worst_of",
]
