from __future__ import annotations

import math

import pytest
from diagnosis_helpers import Outcome
from factories import MakeProbed, MakeReading

from keras_vanish.diagnosis.findings.dead_units import by_dead_units


@pytest.mark.smoke
def test_dead_units_count_where_they_cut_the_network(
    make_reading: MakeReading, make_probed: MakeProbed
) -> None:
    def of(rms: list[float], dead: list[float], shuffled_loss: float = 2.0) -> float:
        probed = make_probed(rms, dead_fraction=dead, loss=1.0, shuffled_loss=shuffled_loss)
        return by_dead_units(make_reading(probed=probed).activations, probed)

    nan = math.nan
    assert of([0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 1.0, nan]) == 1.0
    assert of([0.0, nan, 1.0], [nan, nan, 1.0]) == 1.0
    # Beside a skip the gradient gets past.
    assert of([1.0, 0.0, 1.0, 1.0], [0.5, 0.5, 1.0, nan]) == 0.0
    assert of([0.0, 0.0, 1.0], [0.5, 0.5, 0.99]) == 0.0
    # Before the first layer there is none to tell: the input must not count.
    assert of([1.0, 1.0], [1.0, 0.5]) == 0.0
    assert of([1.0, 1.0], [1.0, 0.5], shuffled_loss=1.0) == 1.0
    assert of([1.0, 1.0], [0.9, 0.5], shuffled_loss=1.0) == 0.0
    assert of([nan, 1.0], [nan, 1.0], shuffled_loss=nan) == 0.0
    assert math.isnan(of([1.0, 1.0], [nan, nan]))
    assert math.isnan(by_dead_units((), None))


@pytest.mark.smoke
def test_layers_of_dead_units_are_to_blame(outcome: Outcome) -> None:
    dead = {"dead_fraction": [0.9, math.nan, 1.0, 0.5, math.nan]}
    cut = [0.0, 0.0, 1.0, 1.0, 1.0]
    assert outcome(seen=cut, probed=dead) == ("vanishing", "dead", ("c",))
    assert outcome(probed=dead) == ("healthy", "", ())
