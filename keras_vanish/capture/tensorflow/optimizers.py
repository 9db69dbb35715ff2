"""Finds the optimizers that a model's train step may apply."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from keras_vanish.capture.tensorflow.layers import layer_paths
from keras_vanish.capture.tensorflow.private_names import flattened, is_for_tracking
from keras_vanish.capture.tensorflow.tap import unwrapped

#: The attribute in which Keras keeps the optimizer that a model was compiled with.
COMPILED = "optimizer"

# Characters that no file name may contain on some system. Indices of lists and keys of dicts become
# parts of a name.
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")
_LONGEST = 100


def optimizers_of(model: Any) -> dict[str, Any]:
    """Returns the Keras optimizers among a model's attributes, each once, by a unique name.

    Keras's own train step only applies the compiled optimizer. A custom one may apply any optimizer
    that the model holds: in attributes, in lists and dicts, and in its layers and inner models that
    have weights to train.

    Args:
        model: A compiled Keras model.

    Returns:
        The optimizers by name, the compiled one first. A name consists of the layer's name and a
        dot if the layer is not the model, the attribute, and a dot with a key or an index if there
        is one: `d_optimizer`, `optimizers.0`, `generator.optimizer`. Every name is a valid folder
        name.
    """
    compiled = getattr(model, COMPILED, None)
    if type(model).train_step is keras.Model.train_step and "train_step" not in vars(model):
        return {} if compiled is None else {COMPILED: compiled}
    found = [] if compiled is None else [(COMPILED, compiled)]
    found += _of_layer(model)
    paths = layer_paths(model)
    for layer in flattened(model, include_self=False):
        if layer.trainable_variables:
            path = paths.get(id(layer), layer.name)
            found += [(f"{path}.{name}", optimizer) for name, optimizer in _of_layer(layer)]
    named: dict[int, tuple[str, Any]] = {}
    for name, optimizer in found:
        identity = id(unwrapped(optimizer))
        first = named.setdefault(identity, (name, optimizer))
        if first[0] == COMPILED != name:
            # The attribute that the user chose says more than `optimizer`.
            named[identity] = (name, first[1])
    result: dict[str, Any] = {}
    for name, optimizer in named.values():
        result[_distinct(name, result)] = optimizer
    return result


def have_one_rate(optimizers: Mapping[str, Any]) -> bool:
    """Returns whether there is a single optimizer with a learning rate of its own.

    A `keras.optimizers.MultiOptimizer` has none.
    """
    return len(optimizers) == 1 and all(hasattr(o, "learning_rate") for o in optimizers.values())


def _of_layer(layer: Any) -> Iterator[tuple[str, Any]]:
    attributes = {name: value for name, value in vars(layer).items() if not is_for_tracking(name)}
    names = sorted(attributes, key=lambda name: name.startswith("_"))
    for name in names:
        if isinstance(attributes[name], keras.optimizers.Optimizer):
            yield name, attributes[name]
    for name in names:
        if isinstance(attributes[name], (list, tuple, Mapping)):
            yield from _within(name, attributes[name])


def _within(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, keras.optimizers.Optimizer):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _within(f"{name}.{key}", item)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _within(f"{name}.{index}", item)


def _distinct(name: str, taken: Mapping[str, Any]) -> str:
    """Returns a name that differs from those taken, even on a system that ignores case."""
    name = _NOT_IN_NAMES.sub("_", name)[:_LONGEST].strip(".") or COMPILED
    lower = {other.lower() for other in taken}
    candidate, number = name, 0
    while candidate.lower() in lower:
        number += 1
        candidate = f"{name}_{number}"
    return candidate
