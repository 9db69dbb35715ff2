"""Reads tensors without changing how the operations that compute them are compiled.

XLA fuses the last elementwise operations of a gradient into the optimizer's update, where a
multiplication and an addition become one operation with one rounding. TensorFlow's own graph
optimizer reorders products whose factors differ in shape, such as the gradient of a normalisation
layer times the learning rate. Neither happens to a tensor that has another reader. So reading it
directly would change the last bit of the weights. The monitor therefore repeats those operations,
from inputs that are stored in any case. Under XLA, a barrier keeps the two computations apart.
Elsewhere, a branch of a `tf.cond` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_vanish.capture.tensorflow.private_names import xla_barrier

# Operations that XLA fuses into their consumers, and whose inputs are all data.
_ELEMENTWISE = frozenset(
    {
        "Abs",
        "Add",
        "AddN",
        "AddV2",
        "Cast",
        "Div",
        "DivNoNan",
        "Exp",
        "Identity",
        "Log",
        "Maximum",
        "Minimum",
        "Mul",
        "Neg",
        "Pow",
        "RealDiv",
        "Reciprocal",
        "Relu",
        "ReluGrad",
        "Rsqrt",
        "RsqrtGrad",
        "Select",
        "SelectV2",
        "Sigmoid",
        "SigmoidGrad",
        "Sign",
        "Sqrt",
        "SqrtGrad",
        "Square",
        "SquaredDifference",
        "Sub",
        "Tanh",
        "TanhGrad",
        "ZerosLike",
    }
)
# fmt: on

# XLA joins a product with a sum if the sum is its only reader. On CPUs it does so for vectors, on
# GPUs for all products.
_PRODUCTS = frozenset({"BatchMatMul", "BatchMatMulV2", "Einsum", "MatMul"})
_SUMS = frozenset({"Add", "AddN", "AddV2", "Sub"})

#: The name scope of operations that the monitor adds before it reads. The training has no such
#: operations, so the compiler joins nothing with them.
OURS = "keras_vanish"


def barred(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the same tensors behind a barrier across which XLA neither fuses nor shares."""
    return xla_barrier(tensors)


def ends_elementwise(tensor: Any) -> bool:
    """Returns whether `repeated` computes a tensor, or the values of `IndexedSlices`, again."""
    values = tensor.values if isinstance(tensor, tf.IndexedSlices) else tensor
    return values.op.type in _ELEMENTWISE


def repeated(tensors: Sequence[Any], barrier: bool = True) -> list[Any]:
    """Computes the values of tensors again.

    Args:
        tensors: Symbolic tensors or `IndexedSlices`.
        barrier: Whether XLA compiles the graph. If it does not, the caller must be within a branch
            of a `tf.cond`. Otherwise, TensorFlow merges the two computations again.

    Returns:
        One tensor for each of `tensors`, equal to it bit for bit.
    """
    graph = tf.compat.v1.get_default_graph()
    made: dict[int, tf.Tensor] = {}

    def here(tensor: tf.Tensor) -> Any:
        # Keras does not expect gradients of two graphs.
        return tensor if tensor.graph is graph else graph.capture(tensor)

    def visit(tensor: tf.Tensor) -> tf.Tensor:
        # The loop replaces recursion, because a chain may be longer than Python's stack allows.
        waiting = [(tensor, False)]
        while waiting:
            current, summed = waiting[-1]
            operation = current.op
            repeats = operation.type in _ELEMENTWISE or (summed and operation.type in _PRODUCTS)
            sums = barrier and operation.type in _SUMS and OURS not in operation.name
            sources = operation.inputs if repeats else ()
            unmade = [(source, sums) for source in sources if id(source) not in made]
            if unmade:
                waiting.extend(unmade)
                continue
            waiting.pop()
            if id(current) in made:
                continue
            if repeats:
                made[id(current)] = again(current)
            else:
                made[id(current)] = barred([current])[0] if barrier else here(current)
        return made[id(tensor)]

    def again(tensor: tf.Tensor) -> Any:
        operation = tensor.op
        definition = operation.node_def
        attributes = {
            name: value for name, value in definition.attr.items() if not name.startswith("_")
        }
        return graph.create_op(
            operation.type,
            [made[id(source)] for source in operation.inputs],
            dtypes=[output.dtype for output in operation.outputs],
            attrs=attributes,
        ).outputs[tensor.value_index]

    return [
        tf.IndexedSlices(visit(tensor.values), tensor.indices, tensor.dense_shape)
        if isinstance(tensor, tf.IndexedSlices)
        else visit(tensor)
        for tensor in tensors
    ]
