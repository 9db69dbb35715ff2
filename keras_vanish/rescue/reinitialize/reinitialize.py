"""Finds new weights for a network that cannot learn, from one batch of its inputs.

In one forward pass, each layer sets its own weights from its inputs, and then computes its output
with them. So later layers see the inputs that they will see in training (Mishkin & Matas 2016, "All
you need is a good init").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vanish.capture.tensorflow.activations.layer_outputs import PROJECTED_ATTENTION
from keras_vanish.capture.tensorflow.attributes import replaced
from keras_vanish.capture.tensorflow.layer_state import given_back
from keras_vanish.capture.tensorflow.layers import layer_paths
from keras_vanish.capture.tensorflow.private_names import (
    flattened,
    has_layers,
    key_projection,
    query_projection,
)
from keras_vanish.rescue.reinitialize import kernels as kernel_start
from keras_vanish.rescue.reinitialize import recurrent_cells as recurrent_start
from keras_vanish.rescue.reinitialize.layer_roles import LayerRole, eager, follow, rms

layers = keras.layers


@dataclass(frozen=True)
class Touched:
    """A layer that received new weights.

    Attributes:
        name: The name that `keras_vanish.capture.tensorflow.layers.layer_paths` gives the layer.
        aim: The purpose of the new weights, such as `sigmoid` or `head`.
        before: The RMS of its pre-activations over the batch with the old weights in all layers;
            for a recurrent layer, the RMS of its outputs. NaN if not finite or unknown.
        after: The same with the new weights in all layers.
    """

    name: str
    aim: str
    before: float
    after: float


@dataclass(frozen=True)
class Reinitialized:
    """The result of `reinitialize`.

    Attributes:
        touched: The layers with new weights, in the order of the forward pass.
        left_alone: The reason for each layer that has weights and kept them, by name.
        whole: Whether every layer with a kernel received new weights. Frozen, protected and unknown
            layers keep theirs.
        variables: The `id` of each variable that was assigned.
    """

    touched: tuple[Touched, ...]
    left_alone: dict[str, str]
    whole: bool
    variables: frozenset[int] = field(default=frozenset(), repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the layers that received new weights."""
        return tuple(layer.name for layer in self.touched)


def reinitialize(model: Any, x: Any, protect: Collection[Any] = (), seed: int = 0) -> Reinitialized:
    """Sets the weights of a model in place, so that gradients reach every layer.

    Args:
        model: A built Keras model.
        x: One batch of inputs, as `model.fit` passes them to the model.
        protect: Layers, or names of layers, that keep all their weights, including those of layers
            inside.
        seed: The seed of the random draws.

    Returns:
        The layers that received new weights, and those that kept theirs.

    Raises:
        ValueError: If the model is not built, `protect` is a string, or `protect` names a layer
            that the model does not have.
    """
    if not model.built:
        raise ValueError(
            f"A model can be re-initialised once it is built. Received: model={model!r}, which "
            "is not. Call it on a batch first."
        )
    guarded = _guarded(model, protect)
    x = tf.nest.map_structure(tf.convert_to_tensor, x)
    values = [(variable, variable.numpy()) for variable in model.variables]
    assigned: frozenset[int] = frozenset()
    try:
        seen = follow(model, x)
        for variable, value in values:  # The pass may have changed some, such as seeds.
            variable.assign(value)
        adjusting = _Adjusting(model, guarded, seen, seed)
        adjusting.run(x)
        assigned = frozenset(adjusting.variables)
    finally:
        for variable, value in values:
            if id(variable) not in assigned:
                variable.assign(value)
    return adjusting.result()


def _guarded(model: Any, protect: Collection[Any]) -> frozenset[int]:
    """Returns the `id` of each protected layer and of each layer inside one."""
    if isinstance(protect, str):
        raise ValueError(
            f"`protect` is a collection of layers or of their names. Received: {protect!r}. "
            "Put it into a tuple."
        )
    paths = layer_paths(model)
    everything = list(flattened(model, include_self=False))
    found: set[int] = set()
    for wanted in protect:
        if isinstance(wanted, str):
            matching = [layer for layer in everything if paths.get(id(layer)) == wanted]
        else:
            matching = [layer for layer in everything if layer is wanted]
        if not matching:
            known = sorted({paths[id(layer)] for layer in everything if layer.variables})
            raise ValueError(
                "`protect` names a layer that the model does not have. Received: "
                f"{wanted!r}. Its layers are {known}."
            )
        for layer in matching:
            found.update(id(inner) for inner in flattened(layer))
    return frozenset(found)


class _Adjusting:
    """The forward pass in which the layers set their weights.

    Attributes:
        variables: The `id` of each variable that was assigned.
    """

    def __init__(
        self, model: Any, guarded: frozenset[int], seen: Mapping[int, LayerRole], seed: int
    ) -> None:
        self.variables: set[int] = set()
        self._model, self._guarded, self._seen, self._seed = model, guarded, seen, seed
        self._layers = list(flattened(model))
        paths = layer_paths(model)
        self._names = {id(layer): paths.get(id(layer), layer.name) for layer in self._layers}
        self._done: set[int] = set()
        self._touched: list[Touched] = []
        self._left_alone: dict[str, str] = {}
        branches = sum(entry.aim == "branch" for entry in seen.values())
        # Together, all branches add about the spread of the tensor to which they are added.
        self._share = 1 / math.sqrt(max(1, branches))
        self._attention = {
            id(key_projection(layer)): layer
            for layer in self._layers
            if isinstance(layer, PROJECTED_ATTENTION)
        }

    def run(self, x: Any) -> None:
        """Runs the forward pass on a batch of inputs."""
        with given_back(self._layers):
            for layer in self._layers[1:]:
                call = layer.call
                if isinstance(layer, kernel_start.KNOWN):
                    vars(layer)["call"] = self._first_set(layer, call, self._set)
                elif isinstance(layer, layers.RNN):
                    vars(layer)["call"] = self._first_set(layer, call, self._set_recurrent)
                elif isinstance(layer, layers.TimeDistributed):
                    vars(layer)["call"] = _at_once(layer, call)
            self._model(x, training=True)

    def result(self) -> Reinitialized:
        """Returns the layers that received new weights, and those that kept theirs."""
        reasons = dict(self._left_alone)
        touched = {layer.name for layer in self._touched}
        for layer in self._layers[1:]:
            name = self._names[id(layer)]
            if layer.variables and not has_layers(layer) and name not in touched:
                known = isinstance(layer, kernel_start.KNOWN) or recurrent_start.known(layer)
                why = "the forward pass did not reach it" if known else "not a layer with a kernel"
                reasons.setdefault(name, why)
        whole = not self._left_alone
        return Reinitialized(tuple(self._touched), reasons, whole, frozenset(self.variables))

    def _first_set(
        self, layer: Any, call: Callable[..., Any], set_weights: Callable[..., None]
    ) -> Callable[..., Any]:
        """Returns a call that sets the layer's weights first, once."""

        def calling(*args: Any, **kwargs: Any) -> Any:
            if id(layer) not in self._done and eager((args, kwargs)):
                self._done.add(id(layer))
                set_weights(layer, call, args, kwargs)
            return call(*args, **kwargs)

        return calling

    def _set(self, layer: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> None:
        def compute() -> Any:
            with replaced(layer, "activation", _identity):
                return call(*args, **kwargs)

        entry = self._seen.get(id(layer))
        aim = entry.aim if entry is not None else "linear"
        kernels = kernel_start.kernels_of(layer)
        reason = self._reason(layer, kernels)
        if not reason and kernel_start.starts_at_zero(layer):
            reason = "it starts at zero by intention"
        if reason:
            self._left_alone[self._names[id(layer)]] = reason
            return
        share = self._share if aim == "branch" else 1.0
        like = self._query_of(layer)
        moves = bool(self._touched)
        kernel_start.start(layer, compute, aim, share, self._random(), like, moves)
        self._touch(layer, aim, [*kernels, layer.bias], rms(compute()))

    def _query_of(self, layer: Any) -> Any:
        """Returns the query kernel if the layer computes keys of self-attention; otherwise None.

        With equal kernels, a token attends to itself first, and tokens stay distinct (Trockman &
        Kolter 2023).
        """
        attention = self._attention.get(id(layer))
        if attention is None:
            return None
        query = kernel_start.kernels_of(query_projection(attention))[0]
        same = tuple(query.shape) == tuple(kernel_start.kernels_of(layer)[0].shape)
        return query if same else None

    def _set_recurrent(self, layer: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> None:
        sequences = kwargs.get("sequences", args[0] if args else None)
        steps = int(sequences.shape[1])
        touched: list[Any] = []
        # Only the loop computes the inputs of the second of several stacked cells.
        for number, cell in enumerate(getattr(layer.cell, "cells", [layer.cell])):
            if not recurrent_start.known(cell):
                reason = "its kind of cell is not known"
            else:
                weights = recurrent_start.weights(cell)
                reason = self._reason(layer, weights) or self._reason(cell, weights)
            if reason:
                self._left_alone[self._names[id(cell)]] = reason
                continue
            given = sequences if number == 0 else None
            recurrent_start.start(cell, given, steps, self._random())
            touched += weights
        if touched:
            outputs = call(*args, **kwargs)
            self._touch(layer, "recurrent", touched, rms(tf.nest.flatten(outputs)[0]))

    def _reason(self, layer: Any, kernels: Sequence[Any]) -> str:
        """Returns why a layer keeps its weights; empty if it does not."""
        if id(layer) in self._guarded:
            return "protected"
        if not layer.trainable or not all(v.trainable for v in kernels):
            return "frozen"
        if not all(tf.as_dtype(v.dtype).is_floating for v in kernels):
            return "its kernel does not hold floating-point numbers"
        return ""

    def _random(self) -> np.random.Generator:
        return np.random.default_rng([self._seed, len(self._touched)])

    def _touch(self, layer: Any, aim: str, variables: Sequence[Any], after: float) -> None:
        self.variables.update(id(v) for v in variables if v is not None)
        entry = self._seen.get(id(layer))
        before = entry.before if entry is not None else math.nan
        self._touched.append(Touched(self._names[id(layer)], aim, before, after))


def _at_once(layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a call of `TimeDistributed` that first gives its layer all time steps at once."""

    def calling(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if eager(inputs):
            layer.layer(tf.reshape(inputs, [-1, *inputs.shape[2:]]))
        return call(inputs, *args, **kwargs)

    return calling


def _identity(z: Any) -> Any:
    return z
