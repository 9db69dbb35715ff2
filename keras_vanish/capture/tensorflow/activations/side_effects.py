"""Finds the state that a traced computation changes or draws from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keras_vanish.capture.tensorflow.private_names import operation_definition

# TensorFlow calls these operations stateful, because they read a state, control the flow or fail.
# They change nothing that lasts.
_HARMLESS = frozenset(
    {
        *("ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VarHandleOp"),
        *("VarIsInitializedOp", "VariableShape", "LookupTableFindV2", "LookupTableSizeV2"),
        *("StatefulPartitionedCall", "PartitionedCall", "Case", "If", "While"),
        *("Assert", "CheckNumerics", "CheckNumericsV2"),
        *("CudnnRNN", "CudnnRNNV2", "CudnnRNNV3", "CudnnRNNBackprop", "CudnnRNNBackpropV2"),
        "CudnnRNNBackpropV3",
    }
)


def refuse_side_effects(graph: Any) -> None:
    """Checks that a traced computation assigns to no variable and advances no random state.

    Args:
        graph: The `FuncGraph`. The functions that it calls are checked as well.

    Raises:
        ValueError: If the computation does so, or may do so.
    """
    for name in _operations(graph):
        definition = operation_definition(name)
        stateful = definition is not None and definition.is_stateful
        if stateful and name not in _HARMLESS and not name.startswith("TensorArray"):
            raise ValueError(
                "A layer changes more than Keras' own variables when it is called: running it "
                f"once more would change the training. Received: the operation {name}. Draw "
                "random numbers with keras.random and a SeedGenerator, and keep state in "
                "self.add_weight."
            )


def draws(graph: Any) -> bool:
    """Returns whether a traced computation draws random numbers from the state of an operation.

    Each function that is built from such a graph draws its own sequence, from the first number on.

    Args:
        graph: The `FuncGraph`. The functions that it calls are checked as well. The result is True
            if the graph is too large to be checked.
    """
    try:
        return any(map(_holds_seed, set(_operations(graph))))
    except ValueError:
        return True


def _holds_seed(name: str) -> bool:
    definition = operation_definition(name)
    # Only the dropout of cuDNN uses its seed, and Keras does not use that dropout.
    if definition is None or name.startswith("Cudnn"):
        return False
    return any(attribute.name == "seed2" for attribute in definition.attr)


def _operations(graph: Any) -> Iterator[str]:
    definition = graph.as_graph_def()
    for node in definition.node:
        yield node.op
    for function in definition.library.function:
        for node in function.node_def:
            yield node.op
