"""The log of interventions: lines of JSON beside a run's event files."""

from __future__ import annotations

import os
from collections.abc import Sequence

from keras_vanish.interventions import Intervention
from keras_vanish.logs.file_system import append as append_to
from keras_vanish.logs.file_system import is_file, opened, write_whole

#: One JSON object a line, oldest first.
NAME = "interventions.jsonl"


def append(directory: str, interventions: Sequence[Intervention]) -> None:
    """Adds interventions to the log of a run.

    Args:
        directory: The run's folder; it exists.
        interventions: What was done, oldest first.

    Raises:
        OSError: If they cannot be written.
    """
    path = os.path.join(directory, NAME)
    lines = "".join(f"{intervention.to_json()}\n" for intervention in interventions)
    # A lone surrogate in a name is no UTF-8.
    data = lines.encode("utf-8", "backslashreplace")
    try:
        if is_file(path) and _torn(path):
            # A killed process left it: what follows would be lost in the same line.
            before = _read(path)
            write_whole(path, before[: before.rfind(b"\n") + 1])
        append_to(path, data)
    except OSError as error:
        raise OSError(f"Cannot write to {NAME}: {error}. Received: {directory!r}.") from error


def read_interventions(directory: str) -> list[Intervention]:
    """Reads what was done to a run, oldest first; nothing if there is no log.

    A killed process may leave a last line without an end. It is passed over.

    Args:
        directory: The run's folder.

    Raises:
        OSError: If it cannot be read.
        ValueError: If another line is no valid intervention.
    """
    path = os.path.join(directory, NAME)
    if not is_file(path):
        return []
    return [_parsed(line, path) for line in _read(path).split(b"\n")[:-1]]


def length(directory: str) -> int:
    """The number of lines in the log of a run."""
    path = os.path.join(directory, NAME)
    return _read(path).count(b"\n") if is_file(path) else 0


def _torn(path: str) -> bool:
    """Whether the last line has no end."""
    with opened(path) as file:
        file.seek(0, os.SEEK_END)
        size = file.tell()
        file.seek(max(0, size - 1))
        return bool(file.read(1) not in (b"", b"\n"))


def _read(path: str) -> bytes:
    with opened(path) as file:
        data: bytes = file.read()
    return data


def _parsed(line: bytes, path: str) -> Intervention:
    try:
        return Intervention.from_json(line.decode("utf-8"))
    except ValueError as error:
        raise ValueError(
            f"The journal cannot be read: {error} Received: {path}. Remove the line, or the file."
        ) from error
