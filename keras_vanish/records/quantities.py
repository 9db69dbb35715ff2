"""The quantities that heatmaps show, as matrices of layers by recorded steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from keras_vanish.records.activations import ACTIVATION_COLUMNS
from keras_vanish.records.readings import Reading
from keras_vanish.records.recurrent import RecurrentReading
from keras_vanish.records.statistics import COLUMNS

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Quantity:
    """One number a layer.

    Attributes:
        label: The name that the user reads.
        scale: `"log"` if it is shown in powers of ten, `"share"` if it lies in [0, 1].
        probed: Whether it is about a layer's output, which the probe saw, and not about its
            trained variables.
        values: Gives the numbers of a reading, float64 of shape `[layers]`. They are NaN where
            missing, and infinite where a gradient has NaN or infinite entries.
    """

    label: str
    scale: Literal["log", "share"]
    probed: bool
    values: Callable[[Reading], Matrix]

    def names(self, reading: Reading) -> tuple[str, ...]:
        """The layers of a reading that have this quantity; none if it lacks the probe."""
        if not self.probed:
            return reading.names
        return () if reading.probed is None else reading.probed.names


def _column(name: str, spoilt: str = "") -> Callable[[Reading], Matrix]:
    return lambda reading: _taken(reading.table, COLUMNS, name, spoilt)


def _probed(name: str, spoilt: str = "") -> Callable[[Reading], Matrix]:
    def values(reading: Reading) -> Matrix:
        if reading.probed is None:
            return np.empty(0)
        return _taken(reading.probed.table, ACTIVATION_COLUMNS, name, spoilt)

    return values


def _taken(table: Matrix, columns: tuple[str, ...], name: str, spoilt: str) -> Matrix:
    values = table[:, columns.index(name)]
    if not spoilt:
        return values
    counts = sum(table[:, columns.index(column)] for column in spoilt.split())
    return np.where(counts > 0, np.inf, values)


#: By the name that a request gives.
QUANTITIES = {
    "gradient_rms": Quantity(
        "Gradient RMS", "log", False, _column("gradient_rms", "nan_count inf_count")
    ),
    "update_ratio": Quantity("Update ratio", "log", False, lambda reading: reading.update_ratios),
    "activation_gradient_rms": Quantity(
        "Activation gradient", "log", True, _probed("gradient_rms", "gradient_nonfinite_count")
    ),
    "zero_fraction": Quantity("Zeros", "share", False, _column("zero_fraction")),
    "dead_fraction": Quantity("Dead units", "share", True, _probed("dead_fraction")),
    "saturated_fraction": Quantity("Saturation", "share", True, _probed("saturated_fraction")),
}


def merged(sequences: Sequence[Sequence[str]]) -> list[str]:
    """Merges the names of several sequences in one order: that of the last where they differ.

    A name that occurs twice in a sequence stands once.
    """
    # Most readings of a run have the same layers.
    distinct = list(dict.fromkeys(map(tuple, reversed(sequences))))
    order = list(dict.fromkeys(distinct[0])) if distinct else []
    for sequence in distinct[1:]:
        known, place = set(order), 0
        for name in dict.fromkeys(sequence):
            if name in known:
                place = order.index(name) + 1
            else:
                order.insert(place, name)
                place += 1
    return order


def matrix(readings: Sequence[Reading], quantity: Quantity) -> tuple[list[str], Matrix]:
    """Arranges one quantity over the recorded steps.

    Args:
        readings: The steps, oldest first.
        quantity: What to show.

    Returns:
        The layers, input side first, and a float64 array of shape `[layers, steps]`, NaN where
        missing. A layer for which the probe never has a number is left out.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, reading in enumerate(readings):
        groups.setdefault(quantity.names(reading), []).append(place)
    names = merged([quantity.names(reading) for reading in readings])
    row = {name: index for index, name in enumerate(names)}
    values = np.full((len(names), len(readings)), np.nan)
    for group, places in groups.items():
        if group:
            rows = np.array([row[name] for name in group])
            columns = np.stack([quantity.values(readings[place]) for place in places], 1)
            values[rows[:, np.newaxis], places] = columns
    if quantity.probed:
        told = ~np.isnan(values).all(axis=1)
        names = [name for name, tells in zip(names, told) if tells]
        values = values[told]
    return names, values


def shown(readings: Sequence[Reading], columns: int) -> list[Reading]:
    """Chooses at most `columns` readings for a picture with as many columns, evenly over the steps.

    If several fall on one column, the first with NaN or Inf is chosen, or else the last. A mean
    would show numbers that were never recorded.
    """
    if len(readings) <= columns:
        return list(readings)
    first, last = readings[0].step, readings[-1].step
    chosen: dict[int, Reading] = {}
    for reading in readings:
        column = (reading.step - first) * columns // (last - first + 1)
        if column not in chosen or not _spoilt(chosen[column]):
            chosen[column] = reading
    return list(chosen.values())


_NONFINITE = [COLUMNS.index("nan_count"), COLUMNS.index("inf_count")]


def _spoilt(reading: Reading) -> bool:
    return bool((reading.table[:, _NONFINITE] > 0).any())


def through_time(
    readings: Sequence[Reading], layer: str, rows: int
) -> tuple[list[int], Matrix, list[float]]:
    """Arranges how far back in time a recurrent layer's gradient reaches, over recorded steps.

    Args:
        readings: The steps, oldest first.
        layer: The recurrent layer.
        rows: The largest number of time steps to give; they are chosen evenly.

    Returns:
        How many time steps each row lies back from the last one; the gradient's RMS there as a
        share of its RMS at the last time step, a float64 array of shape `[rows, steps]` with NaN
        where missing; and the horizon at each step, as in `RecurrentReading`.
    """
    profiles: list[Any] = [
        () if reading.probed is None else reading.probed.profiles.get(layer, ())
        for reading in readings
    ]
    length = max(map(len, profiles), default=0)
    back = np.unique(np.linspace(0, max(0, length - 1), min(rows, length)).astype(int))
    values = np.full((len(back), len(readings)), np.nan)
    for place, profile in enumerate(profiles):
        if len(profile):
            within = back[back < len(profile)]
            with np.errstate(invalid="ignore", divide="ignore"):
                values[: len(within), place] = profile[-1 - within] / profile[-1]
    horizons = [RecurrentReading(tuple(map(float, profile))).horizon for profile in profiles]
    return back.tolist(), values, horizons
