from __future__ import annotations

import pytest
from diagnosis_helpers import Falling, Outcome
from factories import MakeReading

from keras_vanish.diagnosis import Verdict, diagnose


@pytest.mark.smoke
def test_a_decay_of_two_decades_is_the_threshold(
    falling: Falling, make_reading: MakeReading
) -> None:
    def verdict(rms: list[float]) -> Verdict:
        return diagnose(make_reading(rms=rms)).verdict

    assert verdict([0.01, 1.0]) == "vanishing"
    assert verdict([1.0, 0.01]) == "exploding"
    assert verdict(falling(12, 2.1)) == "vanishing"
    assert verdict(falling(12, 1.9)) == "healthy"
    assert verdict(falling(12, 2.1)[::-1]) == "exploding"
    assert verdict(falling(12, 1.9)[::-1]) == "healthy"


@pytest.mark.smoke
def test_starved_layers_are_to_blame(falling: Falling, outcome: Outcome) -> None:
    low = falling(5, 4.0)
    assert outcome(low) == ("vanishing", "weights", ("dense_0", "dense_1", "dense_2"))
    # Of two, the worse one.
    assert outcome(falling(5, 6.0), seen=low)[1] == "weights"
