"""What a backend hands over of one recorded update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keras_vanish.records.layers import LayerInfo
from keras_vanish.records.probed import Probed


@dataclass(frozen=True, eq=False)
class Captured:
    """One recorded update, as the training step left it.

    Attributes:
        update: The number of updates that the optimizer had applied before this one.
        layers: The layers in the order in which data flows, input side first. Their `indices`
            are rows of the two arrays.
        floats: Float32 array of shape `[variables, len(FLOATS)]`. A variable without a gradient
            has a row of NaN.
        counts: Float32 array of shape `[variables, BINS]`, with the same rows.
        probed: What the probe saw; None without a probe.
    """

    update: int
    layers: Sequence[LayerInfo]
    floats: npt.NDArray[np.float32]
    counts: npt.NDArray[np.float32]
    probed: Probed | None = None
