"""The layers of a model, in the order in which data flows through them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from keras import layers

from keras_vanish.capture.tensorflow.graph.data_flow import data_flow_ranks
from keras_vanish.capture.tensorflow.layers import layers_of
from keras_vanish.records.layers import LayerInfo


def trace(function: Callable[..., Any], *inputs: tf.Tensor) -> Any:
    """The graph of a forward pass."""
    specs = [tf.TensorSpec(x.shape, x.dtype) for x in inputs]
    return tf.function(function).get_concrete_function(*specs).graph


def infos(model: Any, *inputs: tf.Tensor, one_list: bool = False) -> list[LayerInfo]:
    """The layers of a model that is called on `inputs`."""

    def forward(*x: tf.Tensor) -> Any:
        return model(list(x) if one_list else x[0], training=True)

    forward(*inputs)
    variables = model.trainable_variables
    graph = trace(forward, *inputs)
    return layers_of(model, variables, data_flow_ranks(graph, [v.value.handle for v in variables]))


def names(model: Any, *inputs: tf.Tensor, one_list: bool = False) -> list[str]:
    return [info.name for info in infos(model, *inputs, one_list=one_list)]


def dense(name: str, units: int = 4) -> Any:
    return layers.Dense(units, name=name)
