"""The constants of a graph."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import tensorflow as tf

from keras_vanish.capture.tensorflow.statistics.packing import Packing
from keras_vanish.capture.tensorflow.statistics.sampling import histogram_stride


def test_constants_are_made_once_a_graph() -> None:
    shapes = [(64, 64)] * 20
    packing = Packing(shapes, [tf.float32] * 20, histogram_stride)

    @tf.function
    def sample(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        return packing.pack(tensors)

    graph = sample.get_concrete_function([tf.ones(shape) for shape in shapes]).graph
    assert sum(operation.type == "Const" for operation in graph.get_operations()) < 20


def test_constants_go_with_their_graph() -> None:
    packing = Packing([(64, 64)], [tf.float32], histogram_stride)

    def graph() -> weakref.ref[Any]:
        sample = tf.function(lambda x: packing.pack([x]))
        return weakref.ref(sample.get_concrete_function(tf.ones((64, 64))).graph)

    graphs = [graph() for _ in range(3)]
    gc.collect()
    assert not any(graph() for graph in graphs)
