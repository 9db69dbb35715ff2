"""What a run needs that is taken up again: its history, and what its policies had learned.

The history is in the event files. The rest is in a small file beside them, which is replaced as
a whole: a killed process leaves the old one or the new one.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import reprlib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keras_vanish import file_system, journal
from keras_vanish.diagnosis import Diagnosis
from keras_vanish.events import has_readings, read
from keras_vanish.interventions import Intervention

NAME = "state.json"
VERSION = 1

#: No file of ours is longer, in bytes, no list in it, and no count.
_LONGEST, _MOST, _LARGEST = 2**20, 2**16, 2**53

#: How often something was done: powers are raised to these.
_TIMES = ("barren", "cuts", "done", "restores")
_MOST_TIMES = 1000


@dataclass(frozen=True)
class State:
    """What stands in the file.

    Attributes:
        since: When the run began, in seconds since 1970: older events are another run's.
        earlier: How many lines of the journal are another run's.
        policies: What the policies know, as `plain` makes it.
    """

    since: float
    earlier: int = 0
    policies: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """The content of the file."""
        fields = {"version": VERSION, **vars(self)}
        return json.dumps(fields, allow_nan=False, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Past:
    """A run that is taken up again.

    Attributes:
        state: Its state; where there is no file, of a run to which all belongs.
        history: Its diagnoses, oldest first.
        interventions: What was done to it, oldest first.
    """

    state: State
    history: list[Diagnosis]
    interventions: list[Intervention]


def find(directory: str, optimizer: str = "") -> Past | None:
    """The run whose event files a folder holds; None where it holds none.

    Args:
        directory: The run's folder.
        optimizer: What its diagnoses carry.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If one is damaged.
    """
    if not has_readings(directory):
        return None
    state = _read(os.path.join(directory, NAME)) or State(-math.inf)
    history = [
        dataclasses.replace(diagnosis, optimizer=optimizer)
        for diagnosis in read(directory)
        if diagnosis.reading.wall_time >= state.since
    ]
    return Past(state, history, journal.read_journal(directory)[state.earlier :])


def begun(directory: str, now: float) -> State:
    """The state of a run that begins in a folder.

    Args:
        directory: The run's folder, which need not exist.
        now: Seconds since 1970.
    """
    try:
        return State(now, journal.length(directory))
    except OSError:
        return State(now)  # Whoever writes to it will tell.


def _read(path: str) -> State | None:
    if not file_system.is_file(path):
        return None
    with file_system.opened(path) as file:
        data = file.read(_LONGEST + 1)
    try:
        if len(data) > _LONGEST:
            raise ValueError("it is too long")
        fields = json.loads(data)
        if not isinstance(fields, dict) or fields.pop("version", None) != VERSION:
            raise ValueError(f"it is not of version {VERSION}")
        policies = fields.pop("policies", None)
        if not isinstance(policies, dict):
            raise ValueError("policies is no dict")
        state = parsed(State, {**fields, "policies": {}})
        return dataclasses.replace(state, policies=policies)
    except (RecursionError, ValueError) as error:
        raise ValueError(
            f"The state of the run cannot be read: {error}. Received: {path}. Remove the file."
        ) from error


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
