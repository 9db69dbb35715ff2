"""Which layer of a model is given what another one computed, seen in one forward pass."""

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
    """What one layer did in the forward pass.

    Attributes:
        layer: The Keras layer.
        aim: What its pre-activations are for: the name of the activation function that
            follows; "head" where the model's output does, "branch" where nothing is seen to
            follow or it is added to something else. Empty if it has no kernel.
        before: RMS of its pre-activations, or of a recurrent layer's outputs.
        output: Its first output.
        consumers: The layers that were given it, the innermost first.
    """

    layer: Any
    aim: str = ""
    before: float = math.nan
    output: Any = None
    consumers: list[Any] = field(default_factory=list)


def follow(model: Any, x: Any) -> dict[int, LayerRole]:
    """Sees one forward pass as in training.

    Args:
        model: A Keras model that is built.
        x: A batch of its inputs.

    Returns:
        What was seen of each layer that was reached outside of compiled functions, by its
        `id`, in the order in which their calls ended.
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
                # It holds the tensor: an `id` is that of one as long as it lives.
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
    """Layers with a kernel that computed it, but for an activation."""
    for entry in seen.values():
        if entry.output is output and isinstance(entry.layer, kernel_start.KNOWN):
            yield entry
        elif entry.output is output and isinstance(entry.layer, ACTIVATION_LAYERS):
            for before in seen.values():
                known = isinstance(before.layer, kernel_start.KNOWN)
                if known and entry.layer in before.consumers:
                    yield before


def _projections(everything: Sequence[Any]) -> set[int]:
    """`id` of the layers within attention that compute queries, keys and values."""
    return {
        id(projection(layer))
        for layer in everything
        if isinstance(layer, PROJECTED_ATTENTION)
        for projection in (query_projection, key_projection, value_projection)
    }


def _aim(entry: LayerRole, seen: dict[int, LayerRole], projections: set[int]) -> str:
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
        # What is normalised need not be scaled, and is not changed.
        if first.weights or id(first) not in seen:
            break
        following = seen[id(first)].consumers
    return "linear"


def function(layer: Any) -> str:
    """Name of a layer's activation function."""
    activation = getattr(layer, "activation", None)
    if activation is None:
        return type(layer).__name__.lower() if isinstance(layer, ACTIVATION_LAYERS) else "linear"
    return str(getattr(activation, "__name__", type(activation).__name__)).lower()


def eager(structure: Any) -> bool:
    """Whether the first of the tensors holds numbers, and is not traced."""
    tensors = [t for t in tf.nest.flatten(structure) if tf.is_tensor(t)]
    return bool(tensors) and holds_numbers(tensors[0])


def rms(tensor: Any) -> float:
    """NaN where it is not finite."""
    value = math.sqrt(float(tf.reduce_mean(tf.math.square(tf.cast(tensor, tf.float64)))))
    return value if math.isfinite(value) else math.nan
