"""What a resumed run takes up: its history, and what its policies had learned.

The history is in the event files. The rest is in a small file beside them. That file is replaced
as a whole, so a killed process leaves the old one or the new one.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keras_vanish.diagnosis import Diagnosis
from keras_vanish.interventions import Intervention
from keras_vanish.interventions.saved_states import parsed
from keras_vanish.logs import file_system
from keras_vanish.logs import interventions_log as journal
from keras_vanish.logs.events import read
from keras_vanish.logs.run_folders import has_readings

NAME = "state.json"
VERSION = 1

# No file of ours is longer, in bytes.
_LONGEST = 2**20


@dataclass(frozen=True)
class State:
    """The content of the file.

    Attributes:
        since: When the run began, in seconds since 1970. Older events belong to another run.
        earlier: How many lines of the log of interventions belong to another run.
        policies: What the policies know, as `saved_states.plain` makes it.
    """

    since: float
    earlier: int = 0
    policies: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """The bytes of the file."""
        fields = {"version": VERSION, **vars(self)}
        return json.dumps(fields, allow_nan=False, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Past:
    """The past of a run that is resumed.

    Attributes:
        state: Its state. Without a file, everything in the folder belongs to the run.
        history: Its diagnoses, oldest first.
        interventions: What was done to it, oldest first.
    """

    state: State
    history: list[Diagnosis]
    interventions: list[Intervention]


def find(directory: str, optimizer: str = "") -> Past | None:
    """Reads the past of the run in a folder; None if the folder holds no readings.

    Args:
        directory: The run's folder.
        optimizer: The name of the optimizer, which its diagnoses carry.

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
    return Past(state, history, journal.read_interventions(directory)[state.earlier :])


def begun(directory: str, now: float) -> State:
    """Makes the state of a run that begins in a folder.

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
