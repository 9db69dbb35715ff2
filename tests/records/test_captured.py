"""What a backend hands over of one recorded update."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from keras_vanish.records.bins import BINS
from keras_vanish.records.captured import Captured
from keras_vanish.records.layers import LayerInfo
from keras_vanish.records.statistics import FLOATS


def captured() -> Captured:
    layer = LayerInfo("dense", ("kernel",), (0,), (4,), 2)
    floats, counts = np.ones((1, len(FLOATS)), np.float32), np.ones((1, BINS), np.float32)
    return Captured(3, [layer], floats, counts)


def test_without_a_probe_nothing_was_probed() -> None:
    assert captured().probed is None


def test_it_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        captured().update = 4  # type: ignore[misc]


def test_it_is_itself_and_no_other() -> None:
    # Arrays have no truth: to compare them by fields would raise.
    one, other = captured(), captured()
    assert one == one
    assert one != other
    assert len({one, other}) == 2
