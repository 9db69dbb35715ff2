from __future__ import annotations

import math
from typing import Any

import pytest
from diagnosis_helpers import NOT_LEARNED
from factories import MakeReading

from keras_vanish.diagnosis import LearningProgress, diagnose
from keras_vanish.diagnosis.findings.zero_gradient import by_zero_gradient
from keras_vanish.diagnosis.progress import PATIENCE

#: Of a run that has not learned anything.


@pytest.mark.smoke
def test_early_layers_that_no_gradient_reaches(
    make_reading: MakeReading,
) -> None:
    def of(*rms: float, progress: LearningProgress = NOT_LEARNED, **columns: Any) -> float:
        return by_zero_gradient(make_reading(rms=rms, **columns).layers, progress)

    nan = math.nan
    assert of(0.0, 0.0, 0.0, 1e-3) == 1.0
    assert of(0.0, 0.0, 1.0, progress=LearningProgress(count=9, share=0.5, best=0.5)) == 1.0
    # A kernel of zeros, and one that was zero until the last update.
    assert of(0.0, 0.0, 1.0, weight_rms=[1.0, 1.0, 0.0]) == 0.0
    assert of(0.0, 0.0, 1.0, weight_rms=[1.0, 1.0, 1e-3], update_rms=[0.0, 0.0, 1e-3]) == 0.0
    assert of(0.0, 0.0, 1e-9, 1e-3) == 1.0
    assert of(nan, 0.0, 0.0, nan, 1e-3) == 1.0  # Frozen layers do not count.
    assert of(0.0, 1e-9, 1e-9, 1e-3) == 0.0
    assert of(1e-12, 0.0, 0.0, 1e-3) == 0.0
    # NaN is no zero, where the entries beside it are.
    assert of(0.0, 0.0, 1e-3, nan_count=[5.0, 0.0, 0.0]) == 0.0
    assert of(0.0, 0.0, 1e-3, nan_count=[0.0, 0.0, 5.0]) == 1.0
    assert of(0.0, 0.0, 0.0) == 0.0  # Nothing to compare with.
    assert math.isnan(of(0.0))
    assert math.isnan(of(nan, 1.0))
    assert math.isnan(of(0.0, 0.0, 1.0, progress=LearningProgress(count=PATIENCE - 1)))


def test_layers_that_hear_nothing_are_to_blame(make_reading: MakeReading) -> None:
    reading = make_reading(rms=[0.0, 0.0, 0.0, 1e-3, 1e-3], names="abcde")
    found = diagnose(reading, NOT_LEARNED)
    assert (found.verdict, found.cause, found.blame) == ("vanishing", "silent", ("a", "b", "c"))
    # As a kernel of zeros in the last layer makes them, before it is updated.
    assert diagnose(reading, LearningProgress()).verdict == "healthy"
