"""An attribute that is replaced for a while.

The value goes through `vars`, past `__setattr__`, in which Keras tracks what is set.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
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
