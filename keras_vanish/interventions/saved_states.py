"""Converts the states of policies to JSON, and back from a file that is not trusted."""

from __future__ import annotations

import dataclasses
import math
import reprlib
import types
import typing
from collections.abc import Mapping
from typing import Any

#: The longest list and the largest count that a valid file can hold.
_MOST, _LARGEST = 2**16, 2**53

#: Counts that serve as exponents, and the largest value that they may have.
_TIMES = ("barren", "cuts", "done", "restores")
_MOST_TIMES = 1000


def plain(value: Any) -> Any:
    """Returns a policy's state as JSON values.

    A dataclass becomes a dict, a tuple a list. NaN and infinities become strings.
    """
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
    """Returns the value of type `kind` from which `plain` made `value`.

    Args:
        kind: A dataclass, a type such as `float`, or an annotation such as `tuple[float, ...]`.
        value: A value from a file; it is not trusted.
        name: The name that error messages use.

    Raises:
        ValueError: If `value` does not describe a value of type `kind`.
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
