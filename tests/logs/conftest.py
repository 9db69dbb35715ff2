"""What several tests of logs need."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from keras_vanish.logs.histograms import Histograms
from keras_vanish.records.bins import BINS


def _histogram(size: int = 10, layer: str = "dense_0", **counts: float) -> Histograms:
    array = np.zeros([1, BINS], np.float32)
    for name, count in counts.items():
        array[0, int(name[1:])] = count
    return Histograms((layer,), ("kernel",), (size,), array)


@pytest.fixture(scope="session")
def histogram() -> Callable[..., Histograms]:
    """`histogram(size=10, layer="dense_0", _<bin>=count)`: one histogram."""
    return _histogram
