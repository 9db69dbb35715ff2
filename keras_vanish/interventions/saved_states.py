"""What a policy knows of a run, as JSON has it, and back from a file that is not trusted."""

from __future__ import annotations

import dataclasses
import math
import reprlib
import types
import typing
from collections.abc import Mapping
from typing import Any

#: No list in a file of ours is longer, and no count larger.
_MOST, _LARGEST = 2**16, 2**53

#: How often something was done: powers are raised to these.
_TIMES = ("barren", "cuts", "done", "restores")
_MOST_TIMES = 1000


def plain(value: Any) -> Any:
    """A policy's state as JSON has it: a dataclass becomes a dict, NaN and Inf strings."""
    if dataclasses.is_dataclass(value):
        return {
            entry.name: plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value


def parsed(kind: Any, value: Any, name: str = "state") -> Any:
    """The value of type `kind` of which `plain` made `value`.

    Args:
        kind: A dataclass, a type such as `float`, or one as annotations have it.
        value: What a file holds; it is not trusted.
        name: What errors call it.

    Raises:
        ValueError: If `plain` makes no such thing of such a type.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        others = [other for other in inner if other is not types.NoneType]
        return None if value is None else parsed(others[0], value, name)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        if isinstance(value, dict) and set(value) == set(hints):
            fields = {key: parsed(hints[key], entry, key) for key, entry in value.items()}
            return kind(**fields)  # type: ignore[operator]
    elif origin is tuple:
        if isinstance(value, list) and len(value) <= _MOST:
            return tuple(parsed(inner[0], entry, name) for entry in value)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        if isinstance(value, dict) and len(value) <= _MOST:
            return {_key(inner[0], key): parsed(inner[1], v, name) for key, v in value.items()}
    elif kind is float:
        if value in ("nan", "inf", "-inf"):
            return float(value)
        if type(value) is float or (type(value) is int and abs(value) <= _LARGEST):
            return float(value)
    elif kind is int:
        if type(value) is int and 0 <= value <= (_MOST_TIMES if name in _TIMES else _LARGEST):
            return value
    elif type(value) is kind:
        return value
    raise ValueError(f"{name}={reprlib.repr(value)} is not what it holds")


def _key(kind: type, key: str) -> Any:
    if kind is not int:
        return key
    number = int(key)
    if abs(number) > _MOST:
        raise ValueError(f"{number} is no key of it")
    return number
