"""The layers of a model as readings have them, and which variables each of them owns."""

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
        name: What `model.summary()` calls it; `block/query` where it is nested.
        variables: The names of its variables, such as `kernel`.
        indices: Where each of them stands in the list of trained variables.
        sizes: The number of entries of each.
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
        variables: Its own name.
        sizes: How many entries it has.
        indices: Where it stands in the list of trained variables; int array of shape
            `[variables]`.
        starts: At which variable each layer begins; int array of shape `[layers]`.
    """

    layers: tuple[str, ...]
    variables: tuple[str, ...]
    sizes: tuple[int, ...]
    indices: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]


@functools.lru_cache(maxsize=8)
def layout(layers: tuple[LayerInfo, ...]) -> Layout:
    """How the variables of `layers` follow each other; kept, as it is asked for at each reading."""
    *starts, _ = itertools.accumulate((len(layer.indices) for layer in layers), initial=0)
    return Layout(
        layers=tuple(layer.name for layer in layers for _ in layer.variables),
        variables=tuple(name for layer in layers for name in layer.variables),
        sizes=tuple(size for layer in layers for size in layer.sizes),
        indices=np.array([index for layer in layers for index in layer.indices], np.int64),
        starts=np.array(starts, np.int64),
    )
