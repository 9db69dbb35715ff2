"""Immutable records of what was seen at one recorded update."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
import numpy.typing as npt

from keras_vanish.capture.columns import (
    BFLOAT16_FIRST_BIN,
    FLOAT16_FIRST_BIN,
    FLOATS,
    ZERO_BIN,
)
from keras_vanish.topology import LayerInfo


@dataclass(frozen=True)
class Statistics:
    """Numbers about the gradient and the weights of some trained variables.

    All are floats; what is missing or cannot be known is NaN, never 0. The gradient
    is the one that training used: loss scaling removed, before clipping.

    Attributes:
        size: How many entries have a gradient; all there are where none has one.
        gradient_rms: Root mean square of the finite entries, in units of loss per
            unit of weight, as are norm, mean, minimum and maximum.
        gradient_norm: Euclidean norm of the finite entries.
        gradient_norm_after_clipping: The same after the optimizer's own `clipnorm`,
            `global_clipnorm` or `clipvalue`.
        gradient_mean: Mean of the finite entries.
        gradient_min: Smallest finite entry.
        gradient_max: Largest finite entry.
        zero_fraction: Share of entries that are exactly zero, in [0, 1]; as the two
            below, over the entries that the histogram samples.
        float16_underflow: Share of entries that are not zero and that float16 would
            round to zero: below 2**-25.
        bfloat16_underflow: Share of entries that are not zero and below 2**-126, the
            smallest normal number of bfloat16.
        nan_count: How many entries are NaN.
        inf_count: How many entries are infinite.
        weight_rms: RMS of the weights before the update.
        update_rms: RMS of the change that the update made to the weights, measured
            from the weights before and after it on the same entries.
    """

    size: float
    gradient_rms: float
    gradient_norm: float
    gradient_norm_after_clipping: float
    gradient_mean: float
    gradient_min: float
    gradient_max: float
    zero_fraction: float
    float16_underflow: float
    bfloat16_underflow: float
    nan_count: float
    inf_count: float
    weight_rms: float
    update_rms: float

    @property
    def update_ratio(self) -> float:
        """`update_rms / weight_rms`; NaN where every weight was zero."""
        return self.update_rms / self.weight_rms if self.weight_rms > 0 else math.nan

    @property
    def nonfinite_count(self) -> float:
        """How many entries of the gradient are NaN or infinite."""
        return self.nan_count + self.inf_count


#: The numeric fields of a layer's record, in the order of its row in an event file.
COLUMNS = tuple(field.name for field in fields(Statistics))


@dataclass(frozen=True)
class LayerReading(Statistics):
    """The statistics of one layer.

    Attributes:
        name: What `model.summary()` calls the layer; `block/query` where it is nested.
        depth: Its place in the order in which data flows; 0 is nearest to the input.
        units: Width of its output.
    """

    name: str
    depth: int
    units: int


@dataclass(frozen=True, eq=False)
class Reading:
    """What was seen at one recorded update.

    Attributes:
        step: How many updates the optimizer had applied before this one.
        wall_time: Seconds since 1970.
        names: The layers, input side first.
        units: The width of each layer's output.
        table: Float64 array of shape `[layers, len(COLUMNS)]`, read-only.
    """

    step: int
    wall_time: float
    names: tuple[str, ...]
    units: tuple[int, ...]
    table: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        expected = (len(self.names), len(COLUMNS))
        if self.table.shape != expected or len(self.units) != len(self.names):
            raise ValueError(
                "A reading needs one name, one width and one row of "
                f"{len(COLUMNS)} numbers a layer. Received: {len(self.names)} names, "
                f"{len(self.units)} widths and a table of shape {self.table.shape}."
            )
        table = np.array(self.table, np.float64)
        table.flags.writeable = False
        object.__setattr__(self, "table", table)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reading):
            return NotImplemented
        return (self.step, self.wall_time, self.names, self.units) == (
            other.step,
            other.wall_time,
            other.names,
            other.units,
        ) and np.array_equal(self.table, other.table, equal_nan=True)

    @property
    def layers(self) -> tuple[LayerReading, ...]:
        """One record a layer, input side first."""
        return tuple(
            LayerReading(**dict(zip(COLUMNS, row)), name=name, depth=depth, units=units)
            for depth, (name, units, row) in enumerate(
                zip(self.names, self.units, self.table.tolist())
            )
        )

    @property
    def model(self) -> Statistics:
        """The statistics of all layers together."""
        return combine(Statistics(*row) for row in self.table.tolist())


def from_rows(
    step: int,
    wall_time: float,
    layers: Sequence[LayerInfo],
    floats: npt.NDArray[np.float32],
    counts: npt.NDArray[np.float32],
) -> Reading:
    """Makes a reading of the rows that one recorded update left.

    Args:
        step: Number of the update.
        wall_time: Seconds since 1970.
        layers: The layers, input side first; their `indices` are rows.
        floats: Array of shape `[variables, len(FLOATS)]`.
        counts: Array of shape `[variables, BINS]`. A variable that has no gradient
            has a row of NaN here and in `floats`.
    """
    table = np.empty((len(layers), len(COLUMNS)))
    for place, layer in enumerate(layers):
        parts = [
            _variable_statistics(size, floats[index], counts[index])
            for index, size in zip(layer.indices, layer.sizes)
        ]
        table[place] = astuple(combine(parts))
    return Reading(
        step=step,
        wall_time=wall_time,
        names=tuple(layer.name for layer in layers),
        units=tuple(layer.units for layer in layers),
        table=table,
    )


def _variable_statistics(
    size: int, floats: npt.NDArray[np.float32], counts: npt.NDArray[np.float32]
) -> Statistics:
    row = dict(zip(FLOATS, floats.tolist()))
    sampled = float(counts.sum())
    shares = counts / sampled if sampled > 0 else np.full_like(counts, math.nan)
    finite = size - row["nan_count"] - row["inf_count"]
    return Statistics(
        size=float(size),
        gradient_rms=row["rms"],
        gradient_norm=row["rms"] * math.sqrt(finite) if finite > 0 else math.nan,
        gradient_norm_after_clipping=row["rms_after_clipping"] * math.sqrt(size),
        gradient_mean=row["mean"],
        gradient_min=row["min"],
        gradient_max=row["max"],
        zero_fraction=float(shares[ZERO_BIN]),
        float16_underflow=float(shares[:FLOAT16_FIRST_BIN].sum()),
        bfloat16_underflow=float(shares[:BFLOAT16_FIRST_BIN].sum()),
        nan_count=row["nan_count"],
        inf_count=row["inf_count"],
        weight_rms=row["weight_rms"],
        update_rms=row["update_rms"],
    )


def combine(parts: Iterable[Statistics]) -> Statistics:
    """The statistics of several sets of variables taken together.

    Sets without a gradient are left out; if none has one, all is NaN but the size.
    """
    every = list(parts)
    known = [part for part in every if not math.isnan(part.nan_count)]
    # A part without a gradient must not weigh on what is known of the others.
    size = sum(part.size for part in known or every)
    if not known:
        return Statistics(size, *[math.nan] * (len(COLUMNS) - 1))
    sizes = np.array([part.size for part in known])
    nonfinite = np.array([part.nonfinite_count for part in known])

    def column(name: str) -> npt.NDArray[np.float64]:
        return np.array([getattr(part, name) for part in known], np.float64)

    def rms(name: str) -> float:
        # The largest is taken out, so that squares stay within range.
        values = column(name)
        largest = float(values.max())
        if not 0 < largest < math.inf:
            return largest
        return largest * math.sqrt(float(((values / largest) ** 2 * sizes).sum() / sizes.sum()))

    def share(name: str) -> float:
        return float((column(name) * sizes).sum() / sizes.sum())

    seen = sizes - nonfinite
    some = seen > 0
    norms = column("gradient_norm")[some]
    norm = math.hypot(*norms.tolist()) if some.any() else math.nan
    finite = float(seen.sum())
    return Statistics(
        size=size,
        gradient_rms=norm / math.sqrt(finite) if finite > 0 else math.nan,
        gradient_norm=norm,
        gradient_norm_after_clipping=math.hypot(*column("gradient_norm_after_clipping").tolist()),
        gradient_mean=(
            float((column("gradient_mean")[some] * seen[some]).sum()) / finite
            if finite > 0
            else math.nan
        ),
        gradient_min=float(column("gradient_min")[some].min()) if some.any() else math.nan,
        gradient_max=float(column("gradient_max")[some].max()) if some.any() else math.nan,
        zero_fraction=share("zero_fraction"),
        float16_underflow=share("float16_underflow"),
        bfloat16_underflow=share("bfloat16_underflow"),
        nan_count=float(column("nan_count").sum()),
        inf_count=float(column("inf_count").sum()),
        weight_rms=rms("weight_rms"),
        update_rms=rms("update_rms"),
    )
