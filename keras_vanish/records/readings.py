"""What was seen at one recorded update."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_vanish.records.activations import ActivationReading
from keras_vanish.records.combining import ALL, combined
from keras_vanish.records.probed import Probed, frozen
from keras_vanish.records.recurrent import RecurrentReading
from keras_vanish.records.statistics import COLUMNS, Statistics


@dataclass(frozen=True)
class LayerReading(Statistics):
    """The statistics of one layer.

    Attributes:
        name: The layer's name in `model.summary()`; `block/query` if it is nested.
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
        probed: What the probe saw; None without the probe.

    Raises:
        ValueError: If the shapes do not fit together.
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
        object.__setattr__(self, "table", frozen(self.table))

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
        """The statistics of each layer, input side first."""
        rows: list[Any] = self.table.tolist()
        return tuple(
            LayerReading(*[*row, name, depth, units])
            for depth, (name, units, row) in enumerate(zip(self.names, self.units, rows))
        )

    @property
    def activations(self) -> tuple[ActivationReading, ...]:
        """What the probe saw of each layer, in the order of the forward pass; empty without it."""
        if self.probed is None:
            return ()
        return tuple(
            ActivationReading(name, depth, *row)
            for depth, (name, row) in enumerate(zip(self.probed.names, self.probed.table.tolist()))
        )

    @property
    def timesteps(self) -> dict[str, RecurrentReading]:
        """How far back the gradient reaches, by recurrent layer; empty without the probe."""
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
        """The same norm after the optimizer's own clipping."""
        return self._norm("gradient_norm_after_clipping")

    def _norm(self, name: str) -> float:
        norms = [norm for norm in self.table[:, COLUMNS.index(name)].tolist() if norm == norm]
        return math.hypot(*norms) if norms else math.nan

    @property
    def model(self) -> Statistics:
        """The statistics of all layers together."""
        return Statistics(*combined(self.table, ALL)[0].tolist())
