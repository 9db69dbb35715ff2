"""Collects the outputs of a model's layers in one forward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from keras_vanish.capture.tensorflow.activations import recurrent
from keras_vanish.capture.tensorflow.layer_state import given_back
from keras_vanish.capture.tensorflow.layers import layer_paths
from keras_vanish.capture.tensorflow.private_names import (
    compute_weights_explicitly,
    flattened,
    holds_numbers,
    key_axes,
    wrap_scores,
    wrap_softmax,
)

layers = keras.layers

ACTIVATION_LAYERS = (
    layers.Activation,
    layers.ELU,
    layers.LeakyReLU,
    layers.PReLU,
    layers.ReLU,
    layers.Softmax,
)
PROJECTED_ATTENTION = (layers.MultiHeadAttention, layers.GroupQueryAttention)
_ATTENTION = (*PROJECTED_ATTENTION, layers.Attention)  # AdditiveAttention is one, too.


@dataclass
class LayerOutput:
    """The outputs of one layer in its first call.

    Attributes:
        name: The name that `keras_vanish.capture.tensorflow.layers` gives the layer.
        layer: The Keras layer.
        outputs: The floating-point tensors that the layer returned.
        function: The layer's activation function; None without one.
        before: The input of the activation function.
        after: The output of the activation function.
        attention: The attention weights, a mask that broadcasts to them or None, and the number of
            axes of keys.
        through: A recurrent layer's pass over its sequences.
    """

    name: str
    layer: Any
    outputs: list[tf.Tensor] = field(default_factory=list)
    function: Any = None
    before: tf.Tensor | None = None
    after: tf.Tensor | None = None
    attention: tuple[tf.Tensor, Any, int] | None = None
    through: recurrent.Through | None = None


@contextlib.contextmanager
def intercepted(model: Any, tape: tf.GradientTape) -> Iterator[list[LayerOutput]]:
    """Returns a context in which a call of `model` fills a list with one entry for each layer.

    The list contains layers with weights of their own, activations, attention and recurrent layers.
    An attention or recurrent layer is a single entry, whatever layers it contains. A layer whose
    output only exists in the body of a loop is left out. After the context, every layer is as it
    was before.

    Args:
        model: A built Keras model.
        tape: Watches the outputs.
    """
    everything = [model, *flattened(model)]
    passed = _Pass(tape)
    with given_back(everything):
        for name, layer in _watched(model):
            passed.watch(name, layer)
        yield passed.seen


def _watched(model: Any) -> Iterator[tuple[str, Any]]:
    """Yields the name and the layer of each layer to watch."""
    paths = layer_paths(model)
    visited = {id(model)}

    def below(layer: Any) -> Iterator[tuple[str, Any]]:
        for child in flattened(layer, include_self=False, recursive=False):
            if id(child) in visited:
                continue
            visited.add(id(child))
            name = paths.get(id(child), child.name)
            if isinstance(child, (*_ATTENTION, layers.RNN)):
                yield name, child
                continue
            if isinstance(child, layers.TimeDistributed):
                # The wrapped layer runs in a loop.
                yield (paths[id(child.layer)] if _own_weights(child.layer) else name), child
                continue
            inside = child is getattr(layer, "activation", None)
            function = callable(getattr(child, "activation", None))
            if _own_weights(child) or (
                (isinstance(child, ACTIVATION_LAYERS) or function) and not inside
            ):
                yield name, child
            yield from below(child)

    return below(model)


def _own_weights(layer: Any) -> bool:
    children = flattened(layer, include_self=False, recursive=False)
    inherited = {id(weight) for child in children for weight in child.weights}
    return any(id(weight) not in inherited for weight in layer.weights)


class _Pass:
    """Replaces methods of layers by wrappers that record their inputs and outputs."""

    def __init__(self, tape: tf.GradientTape) -> None:
        self.seen: list[LayerOutput] = []
        self._tape = tape
        self._graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()

    def watch(self, name: str, layer: Any) -> None:
        """Replaces the methods of a layer that compute what `LayerOutput` holds."""
        seen = LayerOutput(name, layer)
        attributes = vars(layer)
        attributes["call"] = self._call(layer.call, seen)
        if recurrent.loops(layer):
            attributes["inner_loop"] = self._inner_loop(layer.inner_loop, seen)
        elif isinstance(layer, PROJECTED_ATTENTION):
            compute_weights_explicitly(layer)
            wrap_softmax(layer, lambda softmax: self._softmax(softmax, seen))
        elif isinstance(layer, layers.Attention):
            wrap_scores(layer, lambda apply_scores: self._scores(apply_scores, seen))
        elif callable(attributes.get("activation")):
            attributes["activation"] = self._activation(layer.activation, seen)
        elif isinstance(layer, ACTIVATION_LAYERS):
            seen.function = layer

    def _here(self, tensor: Any) -> bool:
        """Returns whether a value is a floating-point tensor outside of the model's loops."""
        if not tf.is_tensor(tensor) or not isinstance(tensor, tf.Tensor):
            return False
        graph = None if holds_numbers(tensor) else tensor.graph
        return graph is self._graph and bool(tensor.dtype.is_floating)

    def _call(self, call: Callable[..., Any], seen: LayerOutput) -> Callable[..., Any]:
        def noting(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            found = [tensor for tensor in tf.nest.flatten(outputs) if self._here(tensor)]
            if found and not seen.outputs:
                for tensor in found:
                    self._tape.watch(tensor)
                seen.outputs = found
                if seen.function is seen.layer:
                    seen.before = next(filter(self._here, (*args, *kwargs.values())), None)
                    seen.after = found[0]
                self.seen.append(seen)
            return outputs

        return noting

    def _activation(self, activation: Callable[..., Any], seen: LayerOutput) -> Callable[..., Any]:
        def noting(x: Any, *args: Any, **kwargs: Any) -> Any:
            if seen.before is None and self._here(x):
                # The loss may be computed from this input, without the output of the function.
                self._tape.watch(x)
                seen.before = x
                seen.after = activation(x, *args, **kwargs)
                return seen.after
            return activation(x, *args, **kwargs)

        seen.function = activation
        return noting

    def _inner_loop(self, inner_loop: Callable[..., Any], seen: LayerOutput) -> Callable[..., Any]:
        def noting(sequences: Any, initial_state: Any, mask: Any, training: Any = False) -> Any:
            known = None not in sequences.shape[2:]
            if seen.through is not None or not self._here(sequences) or not known:
                return inner_loop(
                    sequences=sequences, initial_state=initial_state, mask=mask, training=training
                )
            results, seen.through = recurrent.run(
                seen.layer, self._tape, sequences, initial_state, mask, training
            )
            return results

        return noting

    def _softmax(self, softmax: Callable[..., Any], seen: LayerOutput) -> Callable[..., Any]:
        def noting(scores: Any, attention_mask: Any = None) -> Any:
            weights = softmax(scores, attention_mask)
            if seen.attention is None and self._here(weights):
                axes = key_axes(seen.layer)
                mask = attention_mask
                if mask is not None:
                    for _ in range(weights.shape.rank - len(mask.shape)):
                        mask = tf.expand_dims(mask, -2 * axes - 1)
                seen.attention = (weights, mask, axes)
            return weights

        return noting

    def _scores(self, apply_scores: Callable[..., Any], seen: LayerOutput) -> Callable[..., Any]:
        def noting(scores: Any, value: Any, scores_mask: Any = None, training: Any = False) -> Any:
            if seen.attention is None and self._here(scores):
                mask, logits = scores_mask, tf.cast(scores, tf.float32)
                if mask is not None:
                    mask = tf.cast(mask, tf.bool)
                    mask = mask[:, tf.newaxis] if mask.shape.rank == 2 else mask
                    logits = tf.where(mask, logits, tf.float32.min / 2)
                # The weights that the layer returns have passed through its dropout.
                seen.attention = (tf.nn.softmax(logits), mask, 1)
            return apply_scores(scores, value, scores_mask=scores_mask, training=training)

        return noting
