"""Which entries of a large tensor a sample takes."""

from __future__ import annotations

import math
from collections.abc import Sequence

# A sample consists of runs of this many neighbours. A run is half a line of a processor's cache,
# and is copied in one go.
RUN = 8

# The smallest and the largest sample of a variable, and its share of the entries.
_HISTOGRAM_SAMPLE = (1024, 16384, 16)
_UPDATE_SAMPLE = (2048, 32768, 16)


def _stride(shape: Sequence[int], sample: tuple[int, int, int]) -> int:
    """Gives the distance between sampled runs of a tensor in storage order, in runs.

    A distance that shares a factor with the length of an axis would visit only some of
    its positions: a dead unit would be seen always or never.
    """
    size = math.prod(shape)
    smallest, largest, share = sample
    wanted = max(1, min(size, max(smallest, min(largest, size // share))))
    step = max(1, size // wanted)
    # Rather more runs than wanted, up to twice as many, than fewer.
    for distance in (*range(step, step // 2, -1), *range(step, size)):
        if all(math.gcd(distance, axis) == 1 for axis in shape):
            return distance
    return 1


def every_entry(shape: Sequence[int]) -> int:
    """Gives the distance between runs that leaves none out."""
    return 1


def histogram_stride(shape: Sequence[int]) -> int:
    """Gives the distance between the runs of entries that a variable's histogram counts."""
    return _stride(shape, _HISTOGRAM_SAMPLE)


def update_stride(shape: Sequence[int]) -> int:
    """Gives the distance between the runs on which weights and updates are measured."""
    return _stride(shape, _UPDATE_SAMPLE)


def sampled_runs(size: int, stride: int) -> range:
    """Gives the numbers of the runs that are sampled.

    Args:
        size: The number of entries of the tensor.
        stride: The distance between sampled runs.
    """
    return range(0, size // RUN, stride)
