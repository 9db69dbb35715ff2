"""From the rows of variables that a backend records to a reading of layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from keras_vanish.records.combining import combined, of_variables
from keras_vanish.records.layers import LayerInfo, layout
from keras_vanish.records.probed import Probed
from keras_vanish.records.readings import Reading


def from_rows(
    step: int,
    wall_time: float,
    layers: Sequence[LayerInfo],
    floats: npt.NDArray[np.float32],
    counts: npt.NDArray[np.float32],
    probed: Probed | None = None,
) -> Reading:
    """Makes a reading from the rows that one recorded update left.

    Args:
        step: Number of the update.
        wall_time: Seconds since 1970.
        layers: The layers, input side first. Their `indices` say which rows are theirs.
        floats: Float32 array of shape `[variables, len(FLOATS)]`.
        counts: Float32 array of shape `[variables, BINS]`. A variable without a gradient has a
            row of NaN here and in `floats`.
        probed: What the probe saw.
    """
    laid = layout(tuple(layers))
    sizes = np.array(laid.sizes, np.float64)
    table = combined(of_variables(sizes, floats[laid.indices], counts[laid.indices]), laid.starts)
    return Reading(
        step=step,
        wall_time=wall_time,
        names=tuple(layer.name for layer in layers),
        units=tuple(layer.units for layer in layers),
        table=table,
        probed=probed,
    )
