"""Readings to TensorBoard event files, and back.

One recorded step is one event: a killed process leaves it whole or not at all. Nothing
here needs TensorFlow; the writer uses its file systems (`gs://`, ...) where it is
installed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from tensorboard.compat import tf
from tensorboard.compat.proto.event_pb2 import Event, SourceMetadata

from keras_vanish.diagnosis import Diagnosis, diagnoses
from keras_vanish.interventions import Intervention
from keras_vanish.logs import file_system
from keras_vanish.logs import interventions_log as journal
from keras_vanish.logs.summaries import (
    Histograms,
    StepEvents,
    interventions_event,
    parsed_event,
    readings,
)
from keras_vanish.logs.tfrecord import frame, records
from keras_vanish.records.readings import Reading

__all__ = [
    "RUN",
    "EventWriter",
    "Histograms",
    "has_readings",
    "read",
    "runs",
]

#: The run's folder in the log directory. TensorBoard follows one live file a folder, so
#: it is not the one that the Keras callback writes to.
RUN = "gradients"

_WRITER = "keras_vanish"
_numbers = itertools.count()


class EventWriter:
    """Writes the recorded steps of a run to an event file of its own.

    The file is made at the first `write`. After an error the next `write` begins a new
    one: nothing is ever appended to a half-written record.

    Args:
        log_dir: The log directory; the run is its folder `gradients`.
    """

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        self._directory = os.path.join(os.fspath(log_dir), RUN)
        self._path = ""
        self._file: Any = None
        self._empty = True
        self._events = StepEvents()

    def write(
        self,
        diagnosis: Diagnosis,
        histograms: Histograms | None,
        verdict: str,
        numbers: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Writes one recorded step and flushes it.

        Args:
            diagnosis: The diagnosis of the step.
            histograms: The histograms of its gradients.
            verdict: The run's verdict so far.
            numbers: More scalars of the step, by tag.

        Raises:
            OSError: If it cannot be written, or if the file of the steps before has
                disappeared. This step is lost then; the next begins a new file.
            ValueError: If a histogram does not belong to the reading.
        """
        event = self._events.event(diagnosis, histograms, verdict, numbers)
        self._append(event, diagnosis.step)
        self._events.written()

    def write_interventions(self, interventions: Sequence[Intervention]) -> None:
        """Writes what was done to the run, as text, and in the journal beside the files.

        Args:
            interventions: What was done at one step.

        Raises:
            OSError: If it cannot be written.
        """
        self._append(interventions_event(interventions, time.time()), interventions[0].step)
        journal.append(self._directory, interventions)

    def _append(self, event: Event, step: int) -> None:
        try:
            if self._file is not None and not tf.io.gfile.exists(self._path):
                raise FileNotFoundError("it has disappeared since the last write")
            data = frame(event.SerializeToString())
            if self._file is None:
                data = self._open() + data
            self._file.write(data)
            self._file.flush()
            self._empty = False
        except (OSError, tf.errors.OpError) as error:
            path = self._path or self._directory
            self._abandon()
            raise OSError(
                f"Cannot write to the event file: {error}. Received: {path}. Step "
                f"{step} is not in it; the next recorded step begins a new file. Check "
                "that the folder may be written to and that the disk has space."
            ) from error

    def close(self) -> None:
        """Closes the file; a later `write` begins a new one.

        Raises:
            OSError: If the last bytes cannot be written.
        """
        file, path = self._file, self._path
        self._file, self._path = None, ""
        self._events = StepEvents()
        if file is not None:
            try:
                file.close()
            except tf.errors.OpError as error:
                raise OSError(f"Cannot close the event file {path}: {error}") from error

    def _open(self) -> bytes:
        """Opens a new file; returns what it begins with."""
        tf.io.gfile.makedirs(self._directory)
        now = time.time()
        host, process, number = socket.gethostname(), os.getpid(), next(_numbers)
        name = f"events.out.tfevents.{int(now):010d}.{host}.{process}.{number}"
        self._path = os.path.join(self._directory, name)
        self._file = tf.io.gfile.GFile(self._path, "wb")
        self._empty = True
        source = SourceMetadata(writer=_WRITER)
        version = Event(wall_time=now, file_version="brain.Event:2", source_metadata=source)
        return frame(version.SerializeToString())

    def _abandon(self) -> None:
        path, empty = self._path, self._empty
        with contextlib.suppress(OSError, tf.errors.OpError):
            self.close()
        if path and empty:
            # A full disk must not collect one useless file a step.
            with contextlib.suppress(OSError):
                file_system.remove(path)


def read(log_dir: str | os.PathLike[str]) -> list[Diagnosis]:
    """The history of a run, from its event files alone.

    Args:
        log_dir: The log directory, its folder `gradients`, or a folder above that holds
            this one run.

    Returns:
        One diagnosis a recorded step, ordered by step. Where a step was written twice,
        as by a resumed run, it is the later one.

    Raises:
        FileNotFoundError: If there is no such folder, or no run in it.
        ValueError: If there are several runs, or a file is damaged.
    """
    found = runs(log_dir)
    if len(found) > 1:
        raise ValueError(
            f"There are several runs in {os.fspath(log_dir)!r}. Received: {', '.join(found)}. "
            "Read one of these folders."
        )
    (directory,) = found.values()
    by_step: dict[int, Reading] = {}
    files = _event_files(directory, file_system.names(directory))
    for path in sorted(files, key=_creation):
        try:
            by_step.update((reading.step, reading) for reading in readings(records(path)))
        except ValueError as error:
            raise ValueError(
                f"The event file cannot be read: {error}. Received: {path}. If a newer "
                "keras-vanish wrote it, install that; if it is damaged, restore it from a copy "
                "or move it away to read the others."
            ) from error
    return diagnoses(by_step[step] for step in sorted(by_step))


def runs(log_dir: str | os.PathLike[str]) -> dict[str, str]:
    """The runs in a folder and below it.

    Args:
        log_dir: The folder.

    Returns:
        The folder that holds the event files, by the run's name: its path relative to
        `log_dir` without the last `gradients`; `.` for `log_dir` itself.

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
        if any(_is_ours(path) for path in _event_files(directory, names)):
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
        directory: The folder; it need not exist.

    Raises:
        OSError: If it cannot be read.
    """
    if not file_system.exists(directory):
        return False
    return any(map(_is_ours, _event_files(directory, file_system.names(directory))))


def _event_files(directory: str, names: Sequence[str]) -> Iterator[str]:
    paths = (os.path.join(directory, name) for name in names if "tfevents" in name)
    return filter(file_system.is_file, paths)


def _first_event(path: str) -> Event | None:
    """The first event; None where the file is damaged."""
    try:
        return parsed_event(next(records(path), b""))
    except ValueError:
        return None


def _is_ours(path: str) -> bool:
    first = _first_event(path)
    if first is None:
        # A damaged file must not pass unnoticed where the run is expected.
        return os.path.basename(os.path.dirname(path)) == RUN
    return str(first.source_metadata.writer) == _WRITER


def _creation(path: str) -> tuple[float, str]:
    first = _first_event(path)
    return (first.wall_time if first else 0.0, path)
