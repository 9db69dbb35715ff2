"""The layers of a model as readings have them, and the variables that each of them owns."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class LayerInfo:
    """A layer with its trained variables.

    Attributes:
        name: Its name in `model.summary()`; `block/query` if it is nested.
        variables: The names of its variables, such as `kernel`.
        indices: The place of each variable in the list of trained variables.
        sizes: The number of entries of each variable.
        units: Width of its output: the last axis of its largest variable.
    """

    name: str
    variables: tuple[str, ...]
    indices: tuple[int, ...]
    sizes: tuple[int, ...]
    units: int


class Layout(NamedTuple):
    """The variables of some layers, in the layers' order.

    Attributes:
        layers: The name of each variable's layer.
        variables: The own name of each variable.
        sizes: The number of entries of each variable.
        indices: The place of each variable in the list of trained variables; int64 array of
            shape `[variables]`.
        starts: The first variable of each layer; int64 array of shape `[layers]`.
    """

    layers: tuple[str, ...]
    variables: tuple[str, ...]
    sizes: tuple[int, ...]
    indices: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]


@functools.lru_cache(maxsize=8)
def layout(layers: tuple[LayerInfo, ...]) -> Layout:
    """How the variables of `layers` follow each other; cached, since every reading needs it."""
    *starts, _ = itertools.accumulate((len(layer.indices) for layer in layers), initial=0)
    return Layout(
        layers=tuple(layer.name for layer in layers for _ in layer.variables),
        variables=tuple(name for layer in layers for name in layer.variables),
        sizes=tuple(size for layer in layers for size in layer.sizes),
        indices=np.array([index for layer in layers for index in layer.indices], np.int64),
        starts=np.array(starts, np.int64),
    )
