"""The columns of a table, read by their names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


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
