"""Histograms of gradients as TensorBoard stores them."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_vanish.logs.tags import labels, utf8
from keras_vanish.records.bins import BINS, EXPONENT_BINS

#: What TensorBoard shows below a histogram.
AXIS = (
    "The axis is log10 of the magnitude of the gradient's entries, before clipping: -9 stands "
    "for 1e-9. Entries that are zero, NaN or infinite are left out. Counts are estimated from "
    "a sample."
)

# Of all bins but that of NaN and Inf.
_EDGES = math.log10(2) * (np.arange(EXPONENT_BINS) - 127)


@dataclass(frozen=True, eq=False)
class Histograms:
    """The sampled histograms of the gradients of all trained variables.

    Attributes:
        layers: The name of each variable's layer, as in the reading.
        variables: The variable's own name, such as `kernel`.
        sizes: How many entries each variable has.
        counts: Float array of shape `[variables, BINS]`: sampled entries by binary exponent, as
            in `records/bins.py`; NaN for a variable without a gradient.
    """

    layers: tuple[str, ...]
    variables: tuple[str, ...]
    sizes: tuple[int, ...]
    counts: npt.NDArray[Any]


@functools.lru_cache(maxsize=8)
def histogram_tags(
    names: tuple[str, ...], layers: tuple[str, ...], variables: tuple[str, ...]
) -> list[str]:
    """The tags of variables' histograms.

    Args:
        names: The layers of the reading.
        layers: The name of each variable's layer.
        variables: Each variable's own name.

    Raises:
        ValueError: If a variable's layer is not in the reading.
    """
    label = dict(zip(names, labels(names)))
    for layer in layers:
        if layer not in label:
            raise ValueError(
                "A histogram belongs to a layer of the reading. Received: "
                f"layer={layer!r}. Pass the layer's name as the reading has it."
            )
    return [
        utf8(f"gradients/{label[layer]}/{variable}") for layer, variable in zip(layers, variables)
    ]


def histogram_rows(histograms: Histograms) -> list[npt.NDArray[np.float64] | None]:
    """The histograms as TensorBoard stores them, over log10 of the magnitude.

    Returns:
        For each variable, a float64 array of shape `[k, 3]`: rows of left edge, right edge and
        count. Counts are scaled from the sample to the variable. None if no entry is finite and
        not zero.

    Raises:
        ValueError: If `counts` has another shape than `[variables, BINS]`.
    """
    counts = np.asarray(histograms.counts, np.float64)
    if counts.shape != (len(histograms.variables), BINS):
        raise ValueError(
            f"Histograms need {BINS} counts a variable. Received: counts of shape "
            f"{counts.shape} for {len(histograms.variables)} variables. Pass rows as "
            "records/bins.py has them."
        )
    # NaN where the variable has no gradient.
    sampled = counts.sum(1, keepdims=True)
    counts = counts[:, : EXPONENT_BINS - 1]
    filled = counts > 0
    places = np.flatnonzero(filled.any(0))
    if not places.size:
        return [None] * len(counts)
    start, stop = int(places[0]), int(places[-1]) + 1
    rows = np.empty([len(counts), stop - start, 3])
    rows[:, :, 0] = _EDGES[start:stop]
    rows[:, :, 1] = _EDGES[start + 1 : stop + 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.array(histograms.sizes)[:, np.newaxis] / sampled
        rows[:, :, 2] = counts[:, start:stop] * scale
    filled = filled[:, start:stop]
    firsts, lasts = filled.argmax(1), filled.shape[1] - filled[:, ::-1].argmax(1)
    return [
        row[first:last] if some else None
        for row, first, last, some in zip(rows, firsts, lasts, np.any(filled, axis=1))
    ]
