"""Selects the entries of a large tensor that form its sample."""

from __future__ import annotations

import math
from collections.abc import Sequence

# A sample consists of runs of this many neighbouring entries. A run is half a cache line, and is
# copied in one go.
RUN = 8

# The smallest and the largest sample of a variable, and the divisor of its size that gives the
# wanted sample.
_HISTOGRAM_SAMPLE = (1024, 16384, 16)
_UPDATE_SAMPLE = (2048, 32768, 16)


def _stride(shape: Sequence[int], sample: tuple[int, int, int]) -> int:
    """Returns the distance between sampled runs of a tensor in storage order, in runs.

    A distance that shares a factor with the length of an axis would visit only some positions of
    that axis. A dead unit would then be seen always or never.
    """
    size = math.prod(shape)
    smallest, largest, share = sample
    wanted = max(1, min(size, max(smallest, min(largest, size // share))))
    step = max(1, size // wanted)
    # Prefer up to twice as many runs as wanted to fewer.
    for distance in (*range(step, step // 2, -1), *range(step, size)):
        if all(math.gcd(distance, axis) == 1 for axis in shape):
            return distance
    return 1


def every_entry(shape: Sequence[int]) -> int:
    """Returns the distance between runs that leaves none out: 1."""
    return 1


def histogram_stride(shape: Sequence[int]) -> int:
    """Returns the distance between the runs of entries that a variable's histogram counts."""
    return _stride(shape, _HISTOGRAM_SAMPLE)


def update_stride(shape: Sequence[int]) -> int:
    """Returns the distance between the runs on which weights and updates are measured."""
    return _stride(shape, _UPDATE_SAMPLE)


def sampled_runs(size: int, stride: int) -> range:
    """Returns the indices of the sampled runs.

    Args:
        size: The number of entries of the tensor.
        stride: The distance between sampled runs.
    """
    return range(0, size // RUN, stride)
