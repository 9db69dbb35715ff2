"""Numbers over the steps of a run as lines of blocks: pictures for a terminal without colour."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

BLOCKS = "▁▂▃▄▅▆▇█"

#: The characters for a cell that is no positive number.
MISSING, ZERO, NONFINITE = "·", "0", "X"


def spans(count: int, most: int) -> list[slice]:
    """Divides `count` places into at most `most` groups of nearly the same size."""
    edges = np.linspace(0, count, min(count, most) + 1).astype(int).tolist()
    return [slice(first, last) for first, last in zip(edges, edges[1:])]


def heatmap(values: Array, most_rows: int, most_columns: int) -> tuple[list[str], int]:
    """Draws rows of blocks, each block a decade lower than the next one.

    If there is less room than there are numbers, a cell stands for the geometric mean of several.
    A number that is not finite is never averaged away.

    Args:
        values: Float64 array of shape `[rows, columns]`: positive numbers or 0. A
            number that is not finite is given as infinity, a missing one as NaN.
        most_rows: How many lines may be used.
        most_columns: How many characters a line may have.

    Returns:
        The lines, in the order of `values`, and log10 of the number at which the full block
        begins: the decade in which the largest cell lies.
    """
    rows, columns = (spans(n, most) for n, most in zip(values.shape, (most_rows, most_columns)))
    cells = [[_mean(values[row, column]) for column in columns] for row in rows]
    known = [cell for line in cells for cell in line if math.isfinite(cell)]
    top = math.floor(max(known, default=0.0))
    return ["".join(_block(cell, top) for cell in line) for line in cells], top


def _mean(values: Array) -> float:
    """Mean log10: infinity where one value is not finite, -infinity where all are zero."""
    if np.isinf(values).any():
        return math.inf
    positive = values[values > 0]
    if positive.size:
        return float(np.log10(positive).mean())
    return -math.inf if (values == 0).any() else math.nan


def _block(cell: float, top: int) -> str:
    if math.isnan(cell):
        return MISSING
    if math.isinf(cell):
        return NONFINITE if cell > 0 else ZERO
    return BLOCKS[max(0, len(BLOCKS) - 1 + math.floor(cell) - top)]


def line(values: Sequence[float], most: int, largest: float = 1.0) -> str:
    """Draws numbers between 0 and `largest` as one line.

    Each block shows the largest of the numbers that it stands for.

    Args:
        values: The numbers; NaN where one is missing.
        most: How many characters the line may have.
        largest: The number at which the full block ends.
    """
    array = np.array(values, np.float64)
    found = ""
    for span in spans(len(array), most):
        known = array[span][~np.isnan(array[span])]
        share = known.max() / largest if known.size else math.nan
        found += MISSING if math.isnan(share) else BLOCKS[min(7, max(0, int(8 * share)))]
    return found
