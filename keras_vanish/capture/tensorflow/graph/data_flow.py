"""Finds the order of the data flow through a model's variables from its forward pass.

One layer follows another if its operations consume the results of the other. So the order is also
right for subclassed models, in which layers are created in any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def data_flow_ranks(graph: Any, handles: Sequence[Any]) -> list[float]:
    """Ranks variables by their distance from the output of a traced forward pass.

    A layer's operations consume its variables. One layer is upstream of another if a chain of
    operations leads from it to the other. The rank of a variable is minus the length of the longest
    such chain that starts at it. So parallel branches are aligned at the loss, where
    back-propagation begins. Ties keep the order of first use.

    Args:
        graph: The `FuncGraph` in which the forward pass was traced.
        handles: The resource handle of each variable, as captured by the graph.

    Returns:
        One rank for each variable, smallest at the input. Variables that the graph does not use
        come last.
    """
    inside = {id(outer): inner for outer, inner in graph.captures}
    placeholder: dict[int, int] = {}
    for index, handle in enumerate(handles):
        inner = inside.get(id(handle))
        if inner is not None:
            placeholder.setdefault(id(inner), index)
    operations = [o for o in graph.get_operations() if not _initialises(o)]
    first_use: dict[int, int] = {}
    for position, operation in enumerate(operations):
        for tensor in operation.inputs:
            if id(tensor) in placeholder:
                first_use.setdefault(placeholder[id(tensor)], position)
    # Gradients and updates are traced after the forward pass, so they never read a variable first.
    last = max(first_use.values(), default=-1)
    downstream = _edges(operations[: last + 2], placeholder)

    distance: dict[int, int] = {}
    for index in sorted(first_use, key=lambda i: -first_use[i]):
        later = [i for i in downstream.get(index, ()) if first_use[i] > first_use[index]]
        distance[index] = max((distance[i] + 1 for i in later), default=0)
    total = len(operations) + 1
    return [
        -distance[i] + first_use[i] / total if i in first_use else 1.0 for i in range(len(handles))
    ]


def _initialises(operation: Any) -> bool:
    """Returns whether an operation initialises a variable that was created during tracing."""
    if operation.type in ("If", "StatelessIf"):
        operation = operation.inputs[0].op
    return bool(operation.type == "VarIsInitializedOp")


def _edges(operations: Sequence[Any], placeholder: Mapping[int, int]) -> dict[int, set[int]]:
    """Returns, for each variable, the variables whose operations consume its results."""
    nothing: frozenset[int] = frozenset()
    # The origin of each tensor: the nearest variables upstream, and whether it depends on the data
    # rather than on weights and constants alone.
    made: dict[int, tuple[frozenset[int], bool]] = {}
    edges: dict[int, set[int]] = {}
    for operation in operations:
        weights, nearest, data = nothing, nothing, False
        inputs = list(operation.inputs)
        for tensor in inputs:
            if id(tensor) in placeholder:
                weights |= {placeholder[id(tensor)]}
                continue
            behind, of_data = made.get(id(tensor), (nothing, False))
            if of_data:
                nearest |= behind
                data = True
            else:
                weights |= behind
        if data and weights:
            for index in nearest - weights:
                edges.setdefault(index, set()).update(weights - nearest)
            nearest = weights
        if not inputs and operation.type in ("Placeholder", "IteratorGetNext"):
            data = operation.outputs[0].dtype.name != "resource"
        outcome = (nearest if data else weights, data)
        for tensor in operation.outputs:
            made[id(tensor)] = outcome
    return edges
