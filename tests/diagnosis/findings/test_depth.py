from __future__ import annotations

from factories import MakeReading

from keras_vanish.diagnosis import diagnose
from keras_vanish.diagnosis.findings.activations import Activations
from keras_vanish.diagnosis.findings.weights import Weights


def test_the_blame_is_not_empty_at_the_very_threshold(make_reading: MakeReading) -> None:
    for i in range(1, 1000):
        for rms in ([i / 1e5, i / 1e3], [i / 1e3, i / 1e5]):
            diagnosis = diagnose(make_reading(rms=rms))
            assert diagnosis.verdict == "healthy" or diagnosis.blame == ("dense_0",)


def test_one_thing_is_said_of_weights_and_of_activations() -> None:
    weights, activations = Weights(), Activations()
    assert weights.verdict == activations.verdict == "vanishing"
    assert weights.words == activations.words
    assert weights.advice == activations.advice
