"""Attributes that are replaced for a while, and then given back.

Past `__setattr__`, in which Keras tracks what is set: so through `vars`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

_MISSING = object()


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Within this context, `owner` has an attribute of its own with this value.

    Args:
        owner: Any object with a `__dict__`.
        name: The attribute's name; it may be that of a method.
        value: What it is.
    """
    attributes = vars(owner)
    found = attributes.get(name, _MISSING)
    attributes[name] = value
    try:
        yield
    finally:
        if found is _MISSING:
            del attributes[name]
        else:
            attributes[name] = found


@contextlib.contextmanager
def given_back(layers: Sequence[Any]) -> Iterator[None]:
    """After this context, layers have the attributes and the losses that they had before.

    Args:
        layers: Keras layers, whose `vars` may be written to meanwhile.
    """
    before = [(layer, dict(vars(layer))) for layer in layers]
    losses = [(own, own.copy()) for layer in layers for own in (layer._losses, layer._loss_ids)]
    try:
        yield
    finally:
        for own, content in losses:
            own.clear()
            own.update(content) if isinstance(own, set) else own.extend(content)
        for layer, attributes in before:
            now = vars(layer)
            for key in now.keys() - attributes.keys():
                del now[key]
            now.update({k: v for k, v in attributes.items() if now.get(k, now) is not v})
