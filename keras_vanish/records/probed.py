"""What the probe saw at one recorded update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_vanish.records.activations import ACTIVATION_COLUMNS


@dataclass(frozen=True, eq=False)
class Probed:
    """What the probe saw at one recorded update.

    Attributes:
        loss: The loss of the probed samples.
        shuffled_loss: The loss when each sample gets another sample's input. A model that knows
            how often each label occurs, and nothing of the input, reaches it too. NaN for one
            sample.
        names: The layers whose outputs the probe saw, in the order of the forward pass.
        table: Float64 array of shape `[layers, len(ACTIVATION_COLUMNS)]`, read-only.
        profiles: By recurrent layer, a read-only float64 array of shape `[time steps]`; see
            `RecurrentReading`.

    Raises:
        ValueError: If the shapes do not fit together.
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
        object.__setattr__(self, "table", frozen(self.table))
        profiles = {name: frozen(profile) for name, profile in self.profiles.items()}
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


def frozen(array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """A read-only copy of an array, as float64."""
    copy = np.array(array, np.float64)
    copy.flags.writeable = False
    return copy
