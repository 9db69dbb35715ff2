from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
from factories import MakeReading

from keras_vanish.records.activations import ACTIVATION_COLUMNS
from keras_vanish.records.probed import Probed


def test_readings_with_and_without_the_probe_differ(
    make_probed: Callable[..., Probed], make_reading: MakeReading
) -> None:
    probed = make_probed(profiles={"a": [1, 2]})
    assert probed == make_probed(profiles={"a": [1, 2]})
    assert make_reading(probed=probed) != make_reading()
    for other in (
        make_probed(profiles={"a": [1, 3]}),
        make_probed(profiles={"b": [1, 2]}),
        make_probed(profiles={"a": [1, 2]}, loss=3.0),
        make_probed(profiles={"a": [1, 2]}, shuffled_loss=3.0),
        make_probed(profiles={"a": [1, 2]}, output_rms=2.0),
        make_probed(profiles={"a": [1, 2]}, names=["x", "y", "z"]),
    ):
        assert probed != other


def test_what_the_probe_saw_can_be_pickled_and_not_be_changed(
    make_probed: Callable[..., Probed],
) -> None:
    probed = make_probed(profiles={"a": [1, 2]})
    assert pickle.loads(pickle.dumps(probed)) == probed
    with pytest.raises(ValueError, match="read-only"):
        probed.table[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        probed.profiles["a"][0] = 1


def test_a_probe_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"Received: 1 names and a table of shape \(1, 3\)"):
        Probed(1.0, 2.0, ("a",), np.zeros((1, 3)), {})
    with pytest.raises(ValueError, match=r"an array of shape \(2, 2\) for 'a'"):
        Probed(1.0, 2.0, (), np.zeros((0, len(ACTIVATION_COLUMNS))), {"a": np.zeros((2, 2))})
