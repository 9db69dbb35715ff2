"""A model's trainable variables, by layer, in the order in which data flows.

The order is read from the traced forward pass: which layer's output another
layer's operation consumes. It is therefore right for subclassed models, whatever
the order in which they created their layers.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class LayerInfo:
    """A layer with its trained variables.

    Attributes:
        name: What `model.summary()` calls it; `block/query` where it is nested.
        variables: The names of its variables, such as `kernel`.
        indices: Where each of them stands in the list of trained variables.
        sizes: The number of entries of each.
        units: Width of its output: the last axis of its largest variable.
    """

    name: str
    variables: tuple[str, ...]
    indices: tuple[int, ...]
    sizes: tuple[int, ...]
    units: int


class Layout(NamedTuple):
    """The variables of some layers, in the layers' order.

    Attributes:
        layers: The name of each variable's layer.
        variables: Its own name.
        sizes: How many entries it has.
        indices: Where it stands in the list of trained variables; int array of shape
            `[variables]`.
        starts: At which variable each layer begins; int array of shape `[layers]`.
    """

    layers: tuple[str, ...]
    variables: tuple[str, ...]
    sizes: tuple[int, ...]
    indices: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]


@functools.lru_cache(maxsize=8)
def layout(layers: tuple[LayerInfo, ...]) -> Layout:
    """How the variables of `layers` follow each other; kept, as it is asked for at each reading."""
    *starts, _ = itertools.accumulate((len(layer.indices) for layer in layers), initial=0)
    return Layout(
        layers=tuple(layer.name for layer in layers for _ in layer.variables),
        variables=tuple(name for layer in layers for name in layer.variables),
        sizes=tuple(size for layer in layers for size in layer.sizes),
        indices=np.array([index for layer in layers for index in layer.indices], np.int64),
        starts=np.array(starts, np.int64),
    )


def layers_of(model: Any, variables: Sequence[Any], ranks: Sequence[float]) -> list[LayerInfo]:
    """Groups trained variables by the layer that owns them.

    Args:
        model: The Keras model.
        variables: The variables that a train step updates, in its order.
        ranks: One number a variable, smaller nearer to the input: a layer stands
            where its earliest variable does. Equal ranks keep the given order.

    Returns:
        One entry a layer, input side first. Variables that no layer of the model
        owns are grouped by the path in their name.
    """
    owners: dict[int, str] = {}
    for identity, path in _owners(model, ()):
        owners.setdefault(identity, path)  # A shared layer stands where it is first found.
    grouped: dict[str, list[int]] = {}
    for index, variable in enumerate(variables):
        fallback = str(getattr(variable, "path", variable.name)).rpartition("/")[0]
        path = owners.get(id(variable), fallback or "variables")
        grouped.setdefault(path, []).append(index)
    order = sorted(grouped, key=lambda path: min(ranks[i] for i in grouped[path]))
    return [_layer(path, grouped[path], variables) for path in order]


def layer_paths(model: Any) -> dict[int, str]:
    """The `id` of each layer below `model`, and its name as `layers_of` gives it.

    A layer without variables is named likewise; a shared one as where it is first found.
    """
    paths: dict[int, str] = {}

    def visit(layer: Any, path: tuple[str, ...]) -> None:
        for child, below in _children_paths(layer, path):
            paths.setdefault(id(child), "/".join(below))
            visit(child, below)

    visit(model, ())
    return paths


def _layer(path: str, indices: Sequence[int], variables: Sequence[Any]) -> LayerInfo:
    shapes = [tuple(variables[i].shape) for i in indices]
    sizes = [_product(shape) for shape in shapes]
    largest = shapes[sizes.index(max(sizes))]
    names = [str(variables[i].name).rpartition("/")[2].partition(":")[0] for i in indices]
    return LayerInfo(
        name=path,
        variables=tuple(_distinct(names)),
        indices=tuple(indices),
        sizes=tuple(sizes),
        units=largest[-1] if largest else 1,
    )


def _product(shape: Iterable[int]) -> int:
    result = 1
    for axis in shape:
        result *= int(axis)
    return result


def _distinct(names: Sequence[str]) -> list[str]:
    """Names made distinct with a number, as Keras does: `cell`, `cell_1`."""
    given = set(names)
    numbers: dict[str, int] = {}
    result: list[str] = []
    for name in names:
        # Where a name was taken, so are the numbers that were tried for it.
        number = numbers.get(name, -1) + 1
        while number and f"{name}_{number}" in given:
            number += 1
        numbers[name] = number
        result.append(f"{name}_{number}" if number else name)
    return result


def _children(layer: Any) -> list[Any]:
    return list(layer._flatten_layers(include_self=False, recursive=False))


def _owners(layer: Any, path: tuple[str, ...]) -> Iterable[tuple[int, str]]:
    """Pairs of a variable's `id` and the path of the layer that owns it."""
    children = _children(layer)
    inherited = {id(v) for child in children for v in child.variables}
    own = [v for v in layer.variables if id(v) not in inherited]
    for variable in own:
        yield id(variable), "/".join(path) or layer.name
    for child, below in _children_paths(layer, path):
        yield from _owners(child, below)


def _children_paths(layer: Any, path: tuple[str, ...]) -> list[tuple[Any, tuple[str, ...]]]:
    """The layers directly below one, and the path of each."""
    children = _children(layer)
    weighty = [child for child in children if child.variables]
    # A recurrent layer's weights live in its cell, which no summary shows.
    hidden = len(weighty) == 1 and weighty[0] is getattr(layer, "cell", None)
    if hidden and path:
        return [(weighty[0], path)]
    names = _distinct([child.name for child in weighty])
    # What has no variables must not change the names of those that have some.
    rest = [child for child in children if not child.variables]
    names = _distinct([*names, *(child.name for child in rest)])
    return [(child, (*path, name)) for child, name in zip([*weighty, *rest], names)]


def data_flow_ranks(graph: Any, handles: Sequence[Any]) -> list[float]:
    """Orders variables by how far they are from the output of a traced forward pass.

    A layer's operations consume its variables. One layer is upstream of another if a
    chain of operations leads from it to the other. A variable's rank is minus the length
    of the longest such chain that starts at it, so that parallel branches are aligned
    at the loss, where back-propagation begins; ties keep the order of first use.

    Args:
        graph: The `FuncGraph` in which the forward pass was traced.
        handles: The resource handle of each variable, as captured by the graph.

    Returns:
        One rank a variable: smallest at the input. Variables that the graph does not
        use come last.
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
    # Gradients and updates are traced after the forward pass: they read no variable
    # for the first time.
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
    """Whether it belongs to a variable that was made while the graph was traced."""
    if operation.type in ("If", "StatelessIf"):
        operation = operation.inputs[0].op
    return bool(operation.type == "VarIsInitializedOp")


def _edges(operations: Sequence[Any], placeholder: Mapping[int, int]) -> dict[int, set[int]]:
    """For each variable the variables whose operations consume what it produced."""
    nothing: frozenset[int] = frozenset()
    # What a tensor is made of: the variables nearest upstream of it, and whether it
    # depends on the data or on weights and constants alone.
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
