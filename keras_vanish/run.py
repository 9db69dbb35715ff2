"""The run of one optimizer, from its recorded updates to its event files."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras_vanish.capture.backend import Recording
from keras_vanish.diagnosis import (
    AGREEING_READINGS,
    Diagnosis,
    LearningProgress,
    Verdict,
    diagnose,
    steadied,
    verdict_of,
)
from keras_vanish.interventions import Intervention
from keras_vanish.logs import file_system
from keras_vanish.logs import state as resume
from keras_vanish.logs.event_writer import EventWriter
from keras_vanish.logs.histograms import Histograms
from keras_vanish.logs.run_folders import RUN
from keras_vanish.records.captured import Captured
from keras_vanish.records.layers import layout
from keras_vanish.records.rows import from_rows


class Run:
    """The run of one optimizer: its step axis, its progress and verdict, its event files.

    A run outlives a `fit`. The next `fit` continues after the last reading.

    Args:
        log_dir: The monitor's directory of event files; None writes none.
        histograms: Whether to write a histogram of each variable's gradient.
        warn: Called with a subject and a message when something fails and training goes on.

    Attributes:
        name: The name of the run, and its folder within `log_dir`. It is empty for the only
            optimizer, and None before `settle`.
        verdict: The run's verdict so far.
        progress: The evidence on whether the run has learned anything.
        last: The last diagnosis; None before the first.
    """

    def __init__(
        self, log_dir: str | None, histograms: bool, warn: Callable[[str, str], None]
    ) -> None:
        self.name: str | None = None
        self._log_dir = log_dir
        self._with_histograms = histograms
        self._warn = warn
        self._recording: Recording | None = None
        self._writer: EventWriter | None = None
        self._updates = 0
        self._state: resume.State | None = None
        self._saved: resume.State | None = None
        self._settled = False
        self._forget()

    def _forget(self) -> None:
        self.verdict: Verdict = "unknown"
        self.progress = LearningProgress()
        self._recent: list[Diagnosis] = []
        self._offset = 0

    @property
    def last(self) -> Diagnosis | None:
        """The last diagnosis; None before the first."""
        return self._recent[-1] if self._recent else None

    @property
    def recording(self) -> Recording:
        """The recording of the optimizer in this `fit`."""
        assert self._recording is not None
        return self._recording

    def attach(self, recording: Recording) -> None:
        """Uses another recording from now on. `settle` follows if it is a new one."""
        if recording is not self._recording:
            self._recording, self._settled = recording, False

    @property
    def settled(self) -> bool:
        """Whether the run has its name in this `fit`."""
        return self._settled

    def settle(self, name: str) -> None:
        """Names the run. A run that gets another name starts again."""
        if self.name not in (None, name):
            self.close()
            self._forget()
            self._state = self._saved = None
        self.name, self._settled = name, True
        self._continue()

    def begin_fit(self) -> int:
        """Prepares for the first step of a `fit`. Returns the number of earlier updates."""
        self._updates = self.recording.updates()
        if self._settled:
            self._continue()
        return self._updates

    def _continue(self) -> None:
        """Sets the step axis.

        The axis continues after the last reading, even if the model was compiled again and its
        optimizer counts from 0.
        """
        self._offset = 0 if self.last is None else max(0, self.last.step + 1 - self._updates)

    def resume(self) -> resume.Past | None:
        """Takes up the run of an earlier process in the same folder, and returns its past or None.

        A run is taken up if the optimizer has been used before, this run has no reading yet, and
        the folder holds readings. If they cannot be read, the run starts again with a warning.
        """
        directory = self._directory
        if directory is None or self._state is not None:
            return None
        self._state, past = resume.begun(directory, time.time()), None
        if self._updates > 0 and self.last is None:
            try:
                past = resume.find(directory, self.name or "")
            except Exception as error:
                self._warn(
                    "resume",
                    f"GradientMonitor could not take up the run in {directory!r}, and begins "
                    f"anew: {error} Training goes on.",
                )
        if past is None:
            return None
        self._state = past.state
        for diagnosis in past.history:
            self.progress = self.progress.after(diagnosis.reading)
        self._recent = past.history[-AGREEING_READINGS:]
        self.verdict = verdict_of(past.history)
        self._continue()
        return past

    def save(self, policies: Mapping[str, Any]) -> None:
        """Writes the state that a later process needs to continue the run.

        Args:
            policies: The states of the policies.
        """
        if self._directory is None or self._state is None:
            return
        path = os.path.join(self._directory, resume.NAME)
        state = dataclasses.replace(self._state, policies=policies)
        if state != self._saved:
            try:
                file_system.write_whole(path, state.to_json())
                self._saved = state
            except Exception as error:
                self._not_written(error)

    def step(self, update: int) -> int:
        """Returns the place of an update on the run's step axis.

        Args:
            update: The number of the update in this `fit`'s optimizer.
        """
        return self._offset + update

    def diagnosed(self, captured: Captured) -> Diagnosis:
        """Diagnoses the next recorded update, and returns the diagnosis."""
        reading = from_rows(
            step=self.step(captured.update),
            wall_time=time.time(),
            layers=captured.layers,
            floats=captured.floats,
            counts=captured.counts,
            probed=captured.probed,
        )
        self.progress = self.progress.after(reading)
        diagnosis = diagnose(reading, self.progress, self.name or "")
        self._recent = [*self._recent, diagnosis][-AGREEING_READINGS:]
        self.verdict = steadied(self.verdict, self._recent)
        return diagnosis

    def write(self, diagnosis: Diagnosis, captured: Captured, numbers: dict[str, float]) -> None:
        """Writes a diagnosed update to the event file.

        Args:
            diagnosis: The diagnosis of the update.
            captured: The update.
            numbers: Further scalars of the step, by tag.
        """
        histograms = _histograms(captured) if self._with_histograms else None
        self._written(lambda writer: writer.write(diagnosis, histograms, self.verdict, numbers))

    def write_interventions(self, done: Sequence[Intervention]) -> None:
        """Writes the interventions of one step."""
        self._written(lambda writer: writer.write_interventions(done))

    def _written(self, write: Callable[[EventWriter], None]) -> None:
        if self._log_dir is None:
            return
        try:
            if self._writer is None:
                self._writer = EventWriter(os.path.join(self._log_dir, self.name or ""))
            write(self._writer)
        except Exception as error:
            self._not_written(error)

    def _not_written(self, error: Exception) -> None:
        # The folder may have been removed, and the state with it.
        self._saved = None
        self._warn(
            "writing",
            f"GradientMonitor could not write to log_dir={self._log_dir!r}: {error!r}. "
            "Training goes on; readings stay in monitor.history.",
        )

    @property
    def _directory(self) -> str | None:
        if self._log_dir is None:
            return None
        return os.path.join(self._log_dir, self.name or "", RUN)

    def move(self, log_dir: str) -> None:
        """Writes to another directory from now on, if event files are written at all."""
        if self._log_dir is not None:
            self.close()
            self._log_dir, self._state, self._saved = log_dir, None, None

    def __getstate__(self) -> dict[str, Any]:
        # A copy takes part in another fit, so it drops everything that belongs to this one.
        return {**vars(self), "_recording": None, "_writer": None, "_settled": False}

    def close(self) -> None:
        """Closes the event file. Later writes begin a new one."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(Exception):
                writer.close()


def _histograms(captured: Captured) -> Histograms:
    laid = layout(tuple(captured.layers))
    counts = captured.counts[laid.indices]
    return Histograms(laid.layers, laid.variables, laid.sizes, counts)
