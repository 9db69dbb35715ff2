"""Readings to TensorBoard event files.

One recorded step is one event: a killed process leaves all of it or nothing. Nothing here needs
TensorFlow, but remote file systems (`gs://`, ...) are TensorFlow's where it is installed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from tensorboard.compat import tf
from tensorboard.compat.proto.event_pb2 import Event, SourceMetadata

from keras_vanish.diagnosis import Diagnosis
from keras_vanish.interventions import Intervention
from keras_vanish.logs import file_system
from keras_vanish.logs.histograms import Histograms
from keras_vanish.logs.interventions_event import interventions_event
from keras_vanish.logs.interventions_log import append
from keras_vanish.logs.run_folders import RUN, WRITER
from keras_vanish.logs.step_events import StepEvents
from keras_vanish.logs.tfrecord import frame

_numbers = itertools.count()


class EventWriter:
    """Writes the recorded steps of a run to its own event file.

    The first `write` makes the file. After an error, the next `write` begins a new file: nothing
    is ever appended to a half-written record.

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
            OSError: If the step cannot be written, or if the file of earlier steps has
                disappeared. This step is lost then, and the next one begins a new file.
            ValueError: If a histogram does not belong to the reading.
        """
        event = self._events.event(diagnosis, histograms, verdict, numbers)
        self._append(event, diagnosis.step)
        self._events.written()

    def write_interventions(self, interventions: Sequence[Intervention]) -> None:
        """Writes what was done to the run, as an event and to the log of interventions.

        Args:
            interventions: What was done at one step.

        Raises:
            OSError: If one of the two cannot be written.
        """
        self._append(interventions_event(interventions, time.time()), interventions[0].step)
        append(self._directory, interventions)

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
        """Closes the file. A later `write` begins a new one.

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
        """Opens a new file and returns its first bytes."""
        tf.io.gfile.makedirs(self._directory)
        now = time.time()
        host, process, number = socket.gethostname(), os.getpid(), next(_numbers)
        name = f"events.out.tfevents.{int(now):010d}.{host}.{process}.{number}"
        self._path = os.path.join(self._directory, name)
        self._file = tf.io.gfile.GFile(self._path, "wb")
        self._empty = True
        source = SourceMetadata(writer=WRITER)
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
