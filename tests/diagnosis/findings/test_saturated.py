from __future__ import annotations

import math

import pytest
from diagnosis_helpers import Outcome
from factories import MakeProbed, MakeReading

from keras_vanish.diagnosis.findings.saturated import by_saturation


@pytest.mark.smoke
def test_saturation_is_that_of_the_median_layer_that_has_one(
    make_reading: MakeReading, make_probed: MakeProbed
) -> None:
    def of(*shares: float) -> float:
        probed = make_probed([1.0] * len(shares), saturated_fraction=list(shares))
        return by_saturation(make_reading(probed=probed).activations)

    assert of(0.1, 0.9, 0.7) == 0.7
    assert of(0.0, 1.0, math.nan) == 0.5
    assert math.isnan(of(math.nan, math.nan))
    assert math.isnan(by_saturation(make_reading().activations))


@pytest.mark.smoke
def test_layers_that_are_saturated_are_to_blame(outcome: Outcome) -> None:
    def of(*shares: float) -> tuple[str, str, tuple[str, ...]]:
        return outcome(probed={"saturated_fraction": shares})

    assert of(0.9, 0.5, 0.4, 0.8, math.nan) == ("vanishing", "saturated", ("a", "b", "d"))
    assert of(0.9, 0.4, 0.4, 0.3, 0.9) == ("healthy", "", ())
