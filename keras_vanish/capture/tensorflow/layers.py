"""Which layer owns which variable of a model, and the names of the layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from keras_vanish.capture.tensorflow.private_names import flattened
from keras_vanish.records.layers import LayerInfo


def layers_of(model: Any, variables: Sequence[Any], ranks: Sequence[float]) -> list[LayerInfo]:
    """Groups trained variables by the layer that owns them.

    Args:
        model: The Keras model.
        variables: The variables that a train step updates, in its order.
        ranks: One number a variable, smaller nearer to the input. The earliest variable of a layer
            decides where the layer stands. Equal ranks keep the given order.

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
    """Gives the name of each layer below `model`, by its `id`.

    The names are those of `layers_of`. Layers without variables have a name as well. A shared layer
    has the name of the place where it is first found.
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
    """Makes names distinct with a number, as Keras does: `cell`, `cell_1`."""
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
    return list(flattened(layer, include_self=False, recursive=False))


def _owners(layer: Any, path: tuple[str, ...]) -> Iterable[tuple[int, str]]:
    """Gives pairs of a variable's `id` and the path of the layer that owns the variable."""
    children = _children(layer)
    inherited = {id(v) for child in children for v in child.variables}
    own = [v for v in layer.variables if id(v) not in inherited]
    for variable in own:
        yield id(variable), "/".join(path) or layer.name
    for child, below in _children_paths(layer, path):
        yield from _owners(child, below)


def _children_paths(layer: Any, path: tuple[str, ...]) -> list[tuple[Any, tuple[str, ...]]]:
    """Gives the layers directly below a layer, and the path of each."""
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
