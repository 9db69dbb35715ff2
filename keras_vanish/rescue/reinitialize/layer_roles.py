"""Finds out in one forward pass which layer receives the output of which other layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from keras_vanish.capture.tensorflow.activations.layer_outputs import (
    ACTIVATION_LAYERS,
    PROJECTED_ATTENTION,
)
from keras_vanish.capture.tensorflow.layer_state import given_back
from keras_vanish.capture.tensorflow.private_names import (
    flattened,
    holds_numbers,
    key_projection,
    query_projection,
    value_projection,
)
from keras_vanish.rescue.reinitialize import kernels as kernel_start

layers = keras.layers


@dataclass
class LayerRole:
    """The role of one layer in the forward pass.

    Attributes:
        layer: The Keras layer.
        aim: The purpose of its pre-activations. It is the name of the activation function that
            follows, `"head"` for an output of the model, or `"branch"` if nothing is seen to follow
            or the output is added to another. It is empty if the layer has no kernel.
        before: The RMS of its pre-activations; for a recurrent layer, of its outputs.
        output: Its first output.
        consumers: The layers that received the output, the innermost first.
    """

    layer: Any
    aim: str = ""
    before: float = math.nan
    output: Any = None
    consumers: list[Any] = field(default_factory=list)


def follow(model: Any, x: Any) -> dict[int, LayerRole]:
    """Runs one forward pass as in training, and observes the layers.

    Args:
        model: A built Keras model.
        x: A batch of its inputs.

    Returns:
        The role of each layer by its `id`, in the order in which the calls ended. Layers that are
        only called inside compiled functions are left out.
    """
    everything = list(flattened(model))
    seen: dict[int, LayerRole] = {}
    made_by: dict[int, list[LayerRole]] = {}
    spreads: dict[int, float] = {}

    def noting(layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            for tensor in tf.nest.flatten((args, kwargs)):
                for source in made_by.get(id(tensor), ()):
                    source.consumers.append(layer)
            if id(layer) not in seen and eager(outputs):
                # The entry keeps the tensor alive, because another tensor could later get the same
                # `id`.
                entry = LayerRole(layer, output=tf.nest.flatten(outputs)[0])
                seen[id(layer)] = entry
                made_by.setdefault(id(entry.output), []).append(entry)
                if isinstance(layer, layers.RNN):
                    entry.before = rms(entry.output)
            return outputs

        return called

    def measuring(layer: Any, activation: Any) -> Callable[..., Any]:
        def measured(z: Any) -> Any:
            if eager(z) and id(layer) not in spreads:
                spreads[id(layer)] = rms(z)
            return z if activation is None else activation(z)

        return measured

    with given_back(everything):
        for layer in everything[1:]:
            vars(layer)["call"] = noting(layer, layer.call)
            if isinstance(layer, kernel_start.KNOWN):
                vars(layer)["activation"] = measuring(layer, layer.activation)
        outputs = model(x, training=True)
    kernels = [s for s in seen.values() if isinstance(s.layer, kernel_start.KNOWN)]
    heads = {id(s) for tensor in tf.nest.flatten(outputs) for s in _sources(tensor, seen)}
    heads = heads or {id(s) for s in kernels[-1:]}
    projections = _projections(everything)
    for entry in kernels:
        entry.before = spreads.get(id(entry.layer), math.nan)
        entry.aim = "head" if id(entry) in heads else _aim(entry, seen, projections)
    for entry in seen.values():
        entry.output = None
    return seen


def _sources(output: Any, seen: dict[int, LayerRole]) -> Iterator[LayerRole]:
    """Yields the layers with a kernel that computed the output, if need be before an activation."""
    for entry in seen.values():
        if entry.output is output and isinstance(entry.layer, kernel_start.KNOWN):
            yield entry
        elif entry.output is output and isinstance(entry.layer, ACTIVATION_LAYERS):
            for before in seen.values():
                known = isinstance(before.layer, kernel_start.KNOWN)
                if known and entry.layer in before.consumers:
                    yield before


def _projections(everything: Sequence[Any]) -> set[int]:
    """Returns the `id` of each layer in attention that computes queries, keys or values."""
    return {
        id(projection(layer))
        for layer in everything
        if isinstance(layer, PROJECTED_ATTENTION)
        for projection in (query_projection, key_projection, value_projection)
    }


def _aim(entry: LayerRole, seen: dict[int, LayerRole], projections: set[int]) -> str:
    """Returns the aim of a layer that is not the head of the model."""
    own = function(entry.layer)
    if own != "linear" or id(entry.layer) in projections:
        return own
    following = entry.consumers
    for _ in range(len(seen)):
        if not following or isinstance(following[0], layers.Add):
            return "branch"
        first = following[0]
        if isinstance(first, ACTIVATION_LAYERS):
            return function(first)
        # Pre-activations that are normalised next need no scaling.
        if first.weights or id(first) not in seen:
            break
        following = seen[id(first)].consumers
    return "linear"


def function(layer: Any) -> str:
    """Returns the name of a layer's activation function, in lower case."""
    activation = getattr(layer, "activation", None)
    if activation is None:
        return type(layer).__name__.lower() if isinstance(layer, ACTIVATION_LAYERS) else "linear"
    return str(getattr(activation, "__name__", type(activation).__name__)).lower()


def eager(structure: Any) -> bool:
    """Returns whether the first tensor in a structure holds numbers rather than being symbolic."""
    tensors = [t for t in tf.nest.flatten(structure) if tf.is_tensor(t)]
    return bool(tensors) and holds_numbers(tensors[0])


def rms(tensor: Any) -> float:
    """Returns the root mean square of a tensor; NaN if it is not finite."""
    value = math.sqrt(float(tf.reduce_mean(tf.math.square(tf.cast(tensor, tf.float64)))))
    return value if math.isfinite(value) else math.nan
