"""Immutable records of what was seen at one recorded update."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_vanish.records.columns import (
    ACTIVATION_COLUMNS,
    BFLOAT16_FIRST_BIN,
    BINS,
    FLOAT16_FIRST_BIN,
    FLOATS,
    ZERO_BIN,
)
from keras_vanish.records.layers import LayerInfo, layout


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

    @property
    def weights_nonfinite(self) -> bool:
        """Whether weights are NaN or infinite, as far as they were looked at.

        False where that is not known: without a gradient, the weights are not read.
        """
        known = self.nan_count == self.nan_count and self.size > 0
        return known and not math.isfinite(self.weight_rms)


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


@dataclass(frozen=True)
class ActivationReading:
    """What the probe saw of one layer's output, over a slice of the batch.

    All are floats; what does not apply to the layer, or cannot be known, is NaN.

    Attributes:
        name: What `model.summary()` calls the layer; `block/query` where it is nested.
        depth: Its place in the order of the forward pass; 0 is nearest to the input.
        size: How many numbers the output has for one sample.
        gradient_rms: RMS of the finite entries of the gradient of the loss, a mean over
            the probed samples, with respect to the output.
        gradient_nonfinite_count: How many entries of that gradient are NaN or infinite.
        output_rms: RMS of the finite entries of the output.
        output_nonfinite_count: How many entries of the output are NaN or infinite.
        preactivation_mean: Mean of what the activation function is given.
        preactivation_std: Its standard deviation.
        dead_fraction: Share of units of the ReLU family that are zero for every probed
            sample, in [0, 1].
        saturated_fraction: Share of the entries at which a bounded activation is nearly
            flat, in [0, 1]; see `docs/score.md`.
        attention_entropy: Mean entropy of the attention weights, in [0, 1]: 1 where
            every key has the same weight.
    """

    name: str
    depth: int
    size: float
    gradient_rms: float
    gradient_nonfinite_count: float
    output_rms: float
    output_nonfinite_count: float
    preactivation_mean: float
    preactivation_std: float
    dead_fraction: float
    saturated_fraction: float
    attention_entropy: float


#: A time step is within the horizon while its gradient is at least this share of the last.
HORIZON_SHARE = 0.01


@dataclass(frozen=True)
class RecurrentReading:
    """How far back in time the gradient reaches in one recurrent layer.

    Attributes:
        rms: RMS of dL/dh_t, the gradient with respect to the layer's state, at each time
            step that the layer went through, the last one last; NaN where there was none.
    """

    rms: tuple[float, ...]

    @property
    def horizon(self) -> float:
        """How many steps back from the last one the gradient stays above 1% of its value there.

        At most one less than the number of time steps; NaN where the last is not a positive
        number.
        """
        last = self.rms[-1] if self.rms else math.nan
        if not 0 < last < math.inf:
            return math.nan
        back = 0
        for value in self.rms[-2::-1]:
            if not value >= HORIZON_SHARE * last:
                break
            back += 1
        return float(back)


@dataclass(frozen=True, eq=False)
class Probed:
    """What the probe saw at one recorded update.

    Attributes:
        loss: The loss of the probed samples.
        shuffled_loss: The loss where each sample is given another's input: what a model
            reaches that knows the labels' frequencies and nothing of the input. NaN for
            one sample.
        names: The layers whose outputs it saw, in the order of the forward pass.
        table: Float64 array of shape `[layers, len(ACTIVATIONS)]`, read-only.
        profiles: By recurrent layer a float64 array of shape `[time steps]`, read-only:
            see `RecurrentReading`.
    """

    loss: float
    shuffled_loss: float
    names: tuple[str, ...]
    table: npt.NDArray[np.float64]
    profiles: Mapping[str, npt.NDArray[np.float64]]

    def __post_init__(self) -> None:
        expected = (len(self.names), len(ACTIVATION_COLUMNS))
        if self.table.shape != expected:
            raise ValueError(
                f"A probe needs one name and one row of {len(ACTIVATION_COLUMNS)} numbers a layer. "
                f"Received: {len(self.names)} names and a table of shape {self.table.shape}."
            )
        for name, profile in self.profiles.items():
            if profile.ndim != 1:
                raise ValueError(
                    "A profile has one number a time step. Received: an array of shape "
                    f"{profile.shape} for {name!r}."
                )
        object.__setattr__(self, "table", _frozen(self.table))
        profiles = {name: _frozen(profile) for name, profile in self.profiles.items()}
        object.__setattr__(self, "profiles", MappingProxyType(profiles))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Probed):
            return NotImplemented
        return (
            (self.names, list(self.profiles)) == (other.names, list(other.profiles))
            and np.array_equal(
                [self.loss, self.shuffled_loss], [other.loss, other.shuffled_loss], equal_nan=True
            )
            and np.array_equal(self.table, other.table, equal_nan=True)
            and all(
                np.array_equal(profile, other.profiles[name], equal_nan=True)
                for name, profile in self.profiles.items()
            )
        )

    def __reduce__(self) -> Any:
        return Probed, (self.loss, self.shuffled_loss, self.names, self.table, dict(self.profiles))


def _frozen(array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    copy = np.array(array, np.float64)
    copy.flags.writeable = False
    return copy


@dataclass(frozen=True)
class StepLog:
    """What was seen of every step since the look before, recorded or not.

    Attributes:
        norms: The global norm of the gradient before any clipping, one an update, oldest first;
            not finite where the gradient was not.
        losses: The loss, one a train step, oldest first; not finite where it was not. Empty
            where the loss is not known.
        clipped: Updates that were clipped.
        skipped: Steps that were skipped, because their gradient was not finite.
        stalled: Whether no update at all was applied.
        rate: The learning rate of the last update; NaN where it is not known.
        momentum: The share of each update that the next one repeats, in [0, 1).
    """

    norms: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    clipped: int = 0
    skipped: int = 0
    stalled: bool = False
    rate: float = math.nan
    momentum: float = 0.0


@dataclass(frozen=True, eq=False)
class Reading:
    """What was seen at one recorded update.

    Attributes:
        step: How many updates the optimizer had applied before this one.
        wall_time: Seconds since 1970.
        names: The layers, input side first.
        units: The width of each layer's output.
        table: Float64 array of shape `[layers, len(COLUMNS)]`, read-only.
        probed: What the probe saw; None without it.
    """

    step: int
    wall_time: float
    names: tuple[str, ...]
    units: tuple[int, ...]
    table: npt.NDArray[np.float64]
    probed: Probed | None = None

    def __post_init__(self) -> None:
        expected = (len(self.names), len(COLUMNS))
        if self.table.shape != expected or len(self.units) != len(self.names):
            raise ValueError(
                "A reading needs one name, one width and one row of "
                f"{len(COLUMNS)} numbers a layer. Received: {len(self.names)} names, "
                f"{len(self.units)} widths and a table of shape {self.table.shape}."
            )
        object.__setattr__(self, "table", _frozen(self.table))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reading):
            return NotImplemented
        return (self.step, self.wall_time, self.names, self.units, self.probed) == (
            other.step,
            other.wall_time,
            other.names,
            other.units,
            other.probed,
        ) and np.array_equal(self.table, other.table, equal_nan=True)

    @property
    def layers(self) -> tuple[LayerReading, ...]:
        """One record a layer, input side first."""
        rows: list[Any] = self.table.tolist()
        return tuple(
            LayerReading(*[*row, name, depth, units])
            for depth, (name, units, row) in enumerate(zip(self.names, self.units, rows))
        )

    @property
    def activations(self) -> tuple[ActivationReading, ...]:
        """One record a probed layer, in the order of the forward pass; empty without the probe."""
        if self.probed is None:
            return ()
        return tuple(
            ActivationReading(name, depth, *row)
            for depth, (name, row) in enumerate(zip(self.probed.names, self.probed.table.tolist()))
        )

    @property
    def timesteps(self) -> dict[str, RecurrentReading]:
        """By recurrent layer, how far back the gradient reaches; empty without the probe."""
        profiles = {} if self.probed is None else self.probed.profiles
        return {name: RecurrentReading(tuple(p.tolist())) for name, p in profiles.items()}

    @property
    def update_ratios(self) -> npt.NDArray[np.float64]:
        """The update ratio of each layer, float64 of shape `[layers]`; NaN where missing."""
        weights, updates = (
            self.table[:, COLUMNS.index(f"{of}_rms")] for of in ("weight", "update")
        )
        missing = np.full(len(weights), math.nan)
        return np.divide(updates, weights, out=missing, where=weights > 0)

    @property
    def global_norm(self) -> float:
        """Euclidean norm of the finite entries of all gradients, before clipping."""
        return self._norm("gradient_norm")

    @property
    def global_norm_after_clipping(self) -> float:
        """The same after the optimizer's own clipping."""
        return self._norm("gradient_norm_after_clipping")

    def _norm(self, name: str) -> float:
        norms = [norm for norm in self.table[:, COLUMNS.index(name)].tolist() if norm == norm]
        return math.hypot(*norms) if norms else math.nan

    @property
    def model(self) -> Statistics:
        """The statistics of all layers together."""
        return Statistics(*_combined(self.table, _ALL)[0].tolist())


def from_rows(
    step: int,
    wall_time: float,
    layers: Sequence[LayerInfo],
    floats: npt.NDArray[np.float32],
    counts: npt.NDArray[np.float32],
    probed: Probed | None = None,
) -> Reading:
    """Makes a reading of the rows that one recorded update left.

    Args:
        step: Number of the update.
        wall_time: Seconds since 1970.
        layers: The layers, input side first; their `indices` are rows.
        floats: Array of shape `[variables, len(FLOATS)]`.
        counts: Array of shape `[variables, BINS]`. A variable that has no gradient
            has a row of NaN here and in `floats`.
        probed: What the probe saw.
    """
    laid = layout(tuple(layers))
    sizes = np.array(laid.sizes, np.float64)
    table = _combined(_variables(sizes, floats[laid.indices], counts[laid.indices]), laid.starts)
    return Reading(
        step=step,
        wall_time=wall_time,
        names=tuple(layer.name for layer in layers),
        units=tuple(layer.units for layer in layers),
        table=table,
        probed=probed,
    )


def combine(parts: Iterable[Statistics]) -> Statistics:
    """The statistics of several sets of variables taken together.

    Sets without a gradient are left out; if none has one, all is NaN but the size.
    """
    table = np.array([astuple(part) for part in parts], np.float64)
    return Statistics(*_combined(table, _ALL)[0].tolist())


def _variables(
    sizes: npt.NDArray[np.float64],
    floats: npt.NDArray[np.float32],
    counts: npt.NDArray[np.float32],
) -> npt.NDArray[np.float64]:
    """One row of `COLUMNS` a variable."""
    row = dict(zip(FLOATS, floats.T.astype(np.float64)))
    counted = counts.astype(np.float64) @ _COUNTED
    finite = sizes - row["nan_count"] - row["inf_count"]
    table = np.empty([len(sizes), len(COLUMNS)])
    column = dict(zip(COLUMNS, table.T))
    with np.errstate(invalid="ignore", divide="ignore"):
        column["size"][:] = sizes
        column["gradient_rms"][:] = row["rms"]
        column["gradient_norm"][:] = np.where(finite > 0, row["rms"] * np.sqrt(finite), math.nan)
        np.multiply(
            row["rms_after_clipping"], np.sqrt(sizes), column["gradient_norm_after_clipping"]
        )
        for name in ("mean", "min", "max"):
            column[f"gradient_{name}"][:] = row[name]
        np.divide(counted[:, 1:], counted[:, :1], table[:, _SHARES])
        for name in ("nan_count", "inf_count", "weight_rms", "update_rms"):
            column[name][:] = row[name]
    return table


# Where in a row of COLUMNS the shares stand, which counts, and which RMS.
_SHARES = slice(COLUMNS.index("zero_fraction"), COLUMNS.index("bfloat16_underflow") + 1)
_COUNTS = slice(COLUMNS.index("nan_count"), COLUMNS.index("inf_count") + 1)
_ROOTS = slice(COLUMNS.index("weight_rms"), COLUMNS.index("update_rms") + 1)

# By bin of a histogram whether it counts for all entries, and for each of the shares.
_COUNTED = np.zeros([BINS, 4])
_COUNTED[:, 0] = 1
_COUNTED[ZERO_BIN, 1] = 1
_COUNTED[:FLOAT16_FIRST_BIN, 2] = 1
_COUNTED[:BFLOAT16_FIRST_BIN, 3] = 1

# The start of the one run that is all rows.
_ALL = np.zeros(1, np.int64)


def _combined(
    table: npt.NDArray[np.float64], starts: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Combines runs of rows, each from one of `starts` to the next, into a row each.

    As few calls of NumPy as will do: each costs more than the numbers in it.
    """
    column = dict(zip(COLUMNS, table.T))
    lengths = np.diff(starts, append=len(table))

    # An event file may hold anything, infinite counts too.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        known = column["nan_count"] == column["nan_count"]
        sizes = np.where(known, column["size"], 0.0)
        seen = np.where(known, sizes - column["nan_count"] - column["inf_count"], 0.0)
        unknown, unseen = ~known, ~(seen > 0)

        # All sums at once, and all roots of weighted sums of squares.
        terms = np.empty([len(table), 9])
        terms[:, 0], terms[:, 1], terms[:, 2] = column["size"], sizes, seen
        np.multiply(table[:, _SHARES], sizes[:, np.newaxis], terms[:, 3:6])
        terms[:, 6:8] = table[:, _COUNTS]
        np.multiply(column["gradient_mean"], seen, terms[:, 8])
        terms[unknown, 3:8] = terms[unseen, 8] = 0.0
        sums = np.add.reduceat(terms, starts)
        total, finite = sums[:, 1], sums[:, 2]

        parts = np.empty([len(table), 4])
        parts[:, 0] = column["gradient_norm"]
        parts[:, 1] = column["gradient_norm_after_clipping"]
        parts[:, 2:] = table[:, _ROOTS]
        parts[unseen, 0] = parts[unknown, 1:] = 0.0
        # The largest is taken out to stay in range.
        largest = np.maximum.reduceat(parts, starts)
        squares = np.square(parts / np.repeat(largest, lengths, axis=0))
        squares[:, 2:] *= (sizes / np.repeat(total, lengths))[:, np.newaxis]
        roots = largest * np.sqrt(np.add.reduceat(squares, starts))
        roots = np.where((largest > 0) & (largest < math.inf), roots, largest)

        # What is missing is missing, and no sum of nothing.
        missing = np.where(total > 0, 0.0, math.nan)
        silent = np.where(finite > 0, 0.0, math.nan)
        low = np.where(unseen, math.inf, column["gradient_min"])
        high = np.where(unseen, -math.inf, column["gradient_max"])
        result = np.empty([len(starts), len(COLUMNS)])
        of = dict(zip(COLUMNS, result.T))
        of["size"][:] = np.where(total > 0, total, sums[:, 0])
        np.add(roots[:, 0], silent, of["gradient_norm"])
        np.divide(of["gradient_norm"], np.sqrt(finite), of["gradient_rms"])
        np.add(roots[:, 1], missing, of["gradient_norm_after_clipping"])
        np.divide(sums[:, 8], finite, of["gradient_mean"])
        np.add(np.minimum.reduceat(low, starts), silent, of["gradient_min"])
        np.add(np.maximum.reduceat(high, starts), silent, of["gradient_max"])
        np.divide(sums[:, 3:6], total[:, np.newaxis], result[:, _SHARES])
        np.add(sums[:, 6:8], missing[:, np.newaxis], result[:, _COUNTS])
        np.add(roots[:, 2:], missing[:, np.newaxis], result[:, _ROOTS])
    return result
