"""The layout of the rows that a backend fills and a log holds, and how to read them by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from keras_vanish.records.activations import ACTIVATION_COLUMNS
from keras_vanish.records.bins import (
    BFLOAT16_FIRST_BIN,
    BINS,
    EXPONENT_BINS,
    FLOAT16_FIRST_BIN,
    ZERO_BIN,
)
from keras_vanish.records.statistics import COLUMNS, FLOATS, MOMENTS

__all__ = [
    "ACTIVATION_COLUMNS",
    "BFLOAT16_FIRST_BIN",
    "BINS",
    "COLUMNS",
    "EXPONENT_BINS",
    "FLOAT16_FIRST_BIN",
    "FLOATS",
    "MOMENTS",
    "ZERO_BIN",
    "by_name",
]


def by_name(
    table: npt.NDArray[np.float64], columns: Sequence[str], wanted: Sequence[str]
) -> npt.NDArray[np.float64]:
    """Arranges the columns of a table that another version may have written.

    Args:
        table: Float64 array of shape `[rows, len(columns)]`.
        columns: The name of each of its columns; no name occurs twice.
        wanted: The columns of the result.

    Returns:
        Float64 array of shape `[rows, len(wanted)]`. A column that the table lacks is NaN.

    Raises:
        ValueError: If the table does not have one column a name.
    """
    if table.ndim != 2 or table.shape[1] != len(columns):
        raise ValueError(f"the record has {len(columns)} columns and the shape {table.shape}")
    place = {name: index for index, name in enumerate(columns)}
    arranged = np.full((len(table), len(wanted)), np.nan)
    for index, name in enumerate(wanted):
        if name in place:
            arranged[:, index] = table[:, place[name]]
    return arranged
