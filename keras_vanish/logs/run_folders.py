"""Where the event files of a run stand, and which files are ours."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from tensorboard.compat.proto.event_pb2 import Event

from keras_vanish.logs import file_system
from keras_vanish.logs.decoding import parsed_event
from keras_vanish.logs.tfrecord import records

#: The run's folder in the log directory. TensorBoard follows one live file a folder, so this is
#: another folder than the one that Keras's callback writes to.
RUN = "gradients"

#: The name under which event files say that this package wrote them.
WRITER = "keras_vanish"


def runs(log_dir: str | os.PathLike[str]) -> dict[str, str]:
    """Finds the runs in a folder and below it.

    Args:
        log_dir: The folder.

    Returns:
        The folder of the event files by the run's name. The name is the folder's path relative
        to `log_dir`, without the last `gradients`; `.` stands for `log_dir` itself.

    Raises:
        FileNotFoundError: If there is no such folder, or no run in it.
    """
    top = os.fspath(log_dir)
    if not file_system.exists(top):
        raise FileNotFoundError(
            f"There is no such folder. Received: {top!r}. Pass the log_dir of GradientMonitor."
        )
    found: dict[str, str] = {}
    for directory, names in file_system.folders(top):
        if any(_is_ours(path) for path in event_files(directory, names)):
            relative = os.path.relpath(directory, top)
            parent, last = os.path.split(relative)
            name = (parent or ".") if last == RUN else relative
            found[relative if name in found else name] = directory
    if not found:
        raise FileNotFoundError(
            "No run of GradientMonitor was found: no event file with gradients in the folder "
            f"or below it. Received: {top!r}. Pass the log_dir of GradientMonitor; nothing is "
            "written before the first recorded step."
        )
    return dict(sorted(found.items()))


def has_readings(directory: str) -> bool:
    """Whether a run's folder holds event files of this package.

    Args:
        directory: The folder, which need not exist.

    Raises:
        OSError: If the folder cannot be read.
    """
    if not file_system.exists(directory):
        return False
    return any(map(_is_ours, event_files(directory, file_system.names(directory))))


def event_files(directory: str, names: Sequence[str]) -> Iterator[str]:
    """The event files among the `names` in a folder."""
    paths = (os.path.join(directory, name) for name in names if "tfevents" in name)
    return filter(file_system.is_file, paths)


def _first_event(path: str) -> Event | None:
    """The first event of a file; None where the file is damaged."""
    try:
        return parsed_event(next(records(path), b""))
    except ValueError:
        return None


def _is_ours(path: str) -> bool:
    first = _first_event(path)
    if first is None:
        # A damaged file must not pass unnoticed where the run is expected.
        return os.path.basename(os.path.dirname(path)) == RUN
    return str(first.source_metadata.writer) == WRITER


def creation(path: str) -> tuple[float, str]:
    """By what event files are sorted: the time at which they were begun, and their path."""
    first = _first_event(path)
    return (first.wall_time if first else 0.0, path)
