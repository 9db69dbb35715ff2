from __future__ import annotations

import math

import pytest
from factories import MakeProbed, MakeReading

from keras_vanish.diagnosis import diagnose


@pytest.mark.smoke
@pytest.mark.parametrize("lost", [math.nan, math.inf])
@pytest.mark.parametrize("nan_count", [0.0, 1.0])
def test_weights_that_are_lost_are_to_blame(
    make_reading: MakeReading, make_probed: MakeProbed, lost: float, nan_count: float
) -> None:
    # The gradient need not tell, and where it does, it follows from them.
    probed = make_probed(output_nonfinite_count=5)
    weights = [0.1, lost, lost]
    found = diagnose(make_reading(weight_rms=weights, nan_count=nan_count, probed=probed))
    assert (found.verdict, found.cause) == ("nonfinite", "variables")
    assert found.blame == ("dense_1", "dense_2")
    # Weights that have no gradient are not read: that is no reason for alarm.
    missing = make_reading(weight_rms=weights, nan_count=math.nan)
    assert diagnose(missing).verdict != "nonfinite"
