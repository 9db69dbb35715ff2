from __future__ import annotations

from collections.abc import Callable

import pytest

from keras_vanish.diagnosis.findings.evidence import Evidence
from keras_vanish.diagnosis.profiles import activation_profile, weight_profile
from keras_vanish.diagnosis.progress import LearningProgress
from keras_vanish.records.probed import Probed
from keras_vanish.records.readings import Reading


@pytest.mark.smoke
def test_evidence_is_that_of_the_reading_and_computed_once(
    make_reading: Callable[..., Reading], make_probed: Callable[..., Probed]
) -> None:
    reading = make_reading(probed=make_probed(profiles={"rnn": [1.0, 2.0]}))
    evidence = Evidence(reading)
    assert evidence.progress == LearningProgress()
    assert evidence.layers == reading.layers
    assert str(evidence.activations) == str(reading.activations)  # NaN equals nothing.
    assert evidence.timesteps == reading.timesteps
    assert evidence.weight_profile == weight_profile(reading.layers)
    assert evidence.activation_profile == activation_profile(reading.layers, reading.activations)
    assert evidence.layers is evidence.layers
    assert evidence.weight_profile is evidence.weight_profile


def test_evidence_without_the_probe(make_reading: Callable[..., Reading]) -> None:
    evidence = Evidence(make_reading())
    assert (evidence.activations, evidence.timesteps) == ((), {})
    assert evidence.activation_profile == []
