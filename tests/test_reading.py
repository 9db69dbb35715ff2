"""The old path of the records gives the same objects as the package does."""

from __future__ import annotations

import subprocess
import sys

import pytest

import keras_vanish
from keras_vanish import reading
from keras_vanish.records import activations, probed, readings, recurrent, statistics

PLACES = {
    "ActivationReading": activations,
    "LayerReading": readings,
    "Probed": probed,
    "Reading": readings,
    "RecurrentReading": recurrent,
    "Statistics": statistics,
}


@pytest.mark.smoke
@pytest.mark.parametrize("name", sorted(PLACES))
def test_a_name_is_one_object_on_every_path(name: str) -> None:
    assert getattr(reading, name) is getattr(keras_vanish, name) is getattr(PLACES[name], name)


def test_no_name_is_missing() -> None:
    assert set(reading.__all__) == set(PLACES)


def test_it_does_not_load_a_framework() -> None:
    program = "import sys, keras_vanish.reading; print({'keras', 'tensorflow'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
