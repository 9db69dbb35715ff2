"""Computes a tensor a second time, so that reading it does not change how XLA compiles it.

XLA fuses the last elementwise operations of a gradient into the optimizer's update,
where a multiplication and an addition become one, rounded once. A tensor that something
else reads too is rounded and stored first: the weights of a monitored run would then
differ in the last bit. So the monitor repeats those operations, from inputs that XLA
stores in any case.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

# Operations that XLA fuses into what consumes them, and whose inputs are all data.
# fmt: off
_ELEMENTWISE = frozenset({
    "Abs", "Add", "AddN", "AddV2", "Cast", "Div", "DivNoNan", "Exp", "Identity", "Log",
    "Maximum", "Minimum", "Mul", "Neg", "Pow", "RealDiv", "Reciprocal", "Relu", "ReluGrad",
    "Rsqrt", "RsqrtGrad", "Select", "SelectV2", "Sigmoid", "SigmoidGrad", "Sign", "Sqrt",
    "SqrtGrad", "Square", "SquaredDifference", "Sub", "Tanh", "TanhGrad", "ZerosLike",
})
# fmt: on


def repeated(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The same values as `tensors`, computed again in the current graph.

    Args:
        tensors: Symbolic tensors of an enclosing graph, such as that around a `tf.cond`.

    Returns:
        One tensor for each, equal to it bit for bit.
    """
    graph = tf.compat.v1.get_default_graph()
    made: dict[int, tf.Tensor] = {}

    def visit(tensor: tf.Tensor) -> tf.Tensor:
        if id(tensor) not in made:
            made[id(tensor)] = again(tensor) if tensor.op.type in _ELEMENTWISE else tensor
        return made[id(tensor)]

    def again(tensor: tf.Tensor) -> Any:
        operation = tensor.op
        definition = operation.node_def
        attributes = {
            name: value for name, value in definition.attr.items() if not name.startswith("_")
        }
        return graph.create_op(
            operation.type,
            [visit(source) for source in operation.inputs],
            dtypes=[output.dtype for output in operation.outputs],
            attrs=attributes,
        ).outputs[tensor.value_index]

    return [visit(tensor) for tensor in tensors]
