"""What belongs to one optimizer's readings, from its capture to its event files."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras_vanish.capture.tensorflow.capture import Capture, Captured
from keras_vanish.diagnosis.diagnosis import (
    AGREEING_READINGS,
    Diagnosis,
    Verdict,
    diagnose,
    steadied,
)
from keras_vanish.diagnosis.scores import LearningProgress
from keras_vanish.interventions import Intervention
from keras_vanish.logs import file_system
from keras_vanish.logs import state as resume
from keras_vanish.logs.events import RUN, EventWriter, Histograms, verdict_of
from keras_vanish.records.layers import layout
from keras_vanish.records.readings import from_rows


class Run:
    """The run of one optimizer: its step axis, its course and verdict, its event files.

    It outlives a `fit`: the next one goes on where the last reading left it.

    Args:
        log_dir: The monitor's directory of event files, or None to write none.
        histograms: Whether to write a histogram of each variable's gradient.
        warn: Called with a subject and a message for what goes wrong while training goes on.

    Attributes:
        name: What tells it from the run of another optimizer, and the folder within
            `log_dir`; empty for the only one. None before `settle`.
        verdict: The run's verdict so far.
        course: What is known of whether it has learned anything.
        last: The last diagnosis; None before the first.
    """

    def __init__(
        self, log_dir: str | None, histograms: bool, warn: Callable[[str, str], None]
    ) -> None:
        self.name: str | None = None
        self._log_dir = log_dir
        self._with_histograms = histograms
        self._warn = warn
        self._capture: Capture | None = None
        self._writer: EventWriter | None = None
        self._updates = 0
        self._state: resume.State | None = None
        self._saved: resume.State | None = None
        self._settled = False
        self._forget()

    def _forget(self) -> None:
        self.verdict: Verdict = "unknown"
        self.course = LearningProgress()
        self._recent: list[Diagnosis] = []
        self._offset = 0

    @property
    def last(self) -> Diagnosis | None:
        return self._recent[-1] if self._recent else None

    @property
    def capture(self) -> Capture:
        """What reads the optimizer in this `fit`."""
        assert self._capture is not None
        return self._capture

    def attach(self, capture: Capture) -> None:
        """Takes what reads the optimizer from now on; `settle` follows."""
        self._capture = capture
        self._settled = False

    @property
    def settled(self) -> bool:
        """Whether it is known what the run is called."""
        return self._settled

    def settle(self, name: str) -> None:
        """Names the run. Under another name than before, it begins anew."""
        if self.name not in (None, name):
            self.close()
            self._forget()
            self._state = self._saved = None
        self.name, self._settled = name, True
        self._continue()

    def begin(self) -> int:
        """Tells that the first step of a `fit` is next: how many updates there were before."""
        self._updates = self.capture.updates()
        if self._settled:
            self._continue()
        return self._updates

    def _continue(self) -> None:
        """Sets the step axis.

        It goes on where the last reading left it, also when the model was compiled anew and its
        optimizer begins at 0.
        """
        self._offset = 0 if self.last is None else max(0, self.last.step + 1 - self._updates)

    def resume(self) -> resume.Past | None:
        """Takes up the run that another process left, if this one goes on with it.

        It does where the optimizer has been at work before, this track has not, and the folder
        holds readings. Where they cannot be read the run begins anew, with a warning.
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
            self.course = self.course.after(diagnosis.reading)
        self._recent = past.history[-AGREEING_READINGS:]
        self.verdict = verdict_of(past.history)
        self._continue()
        return past

    def save(self, policies: Mapping[str, Any]) -> None:
        """Writes what a process needs that goes on with the run.

        Args:
            policies: What is known beside the readings.
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
        """Where the update with this number stands on the run's axis."""
        return self._offset + update

    def diagnosed(self, captured: Captured) -> Diagnosis:
        """Diagnoses an update, which follows those before."""
        reading = from_rows(
            step=self.step(captured.update),
            wall_time=time.time(),
            layers=captured.layers,
            floats=captured.floats,
            counts=captured.counts,
            probed=captured.probed,
        )
        self.course = self.course.after(reading)
        diagnosis = diagnose(reading, self.course, self.name or "")
        self._recent = [*self._recent, diagnosis][-AGREEING_READINGS:]
        self.verdict = steadied(self.verdict, self._recent)
        return diagnosis

    def write(self, diagnosis: Diagnosis, captured: Captured, numbers: dict[str, float]) -> None:
        """Writes a diagnosed update to the event file, with more scalars of the step by tag."""
        histograms = _histograms(captured) if self._with_histograms else None
        self._written(lambda writer: writer.write(diagnosis, histograms, self.verdict, numbers))

    def write_interventions(self, done: Sequence[Intervention]) -> None:
        """Writes what was done at one step."""
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
        """Writes to another directory from now on, if it writes."""
        if self._log_dir is not None:
            self.close()
            self._log_dir, self._state, self._saved = log_dir, None, None

    def __getstate__(self) -> dict[str, Any]:
        # What is bound to a fit stays with it: a copy takes part in another.
        return {**vars(self), "_capture": None, "_writer": None, "_settled": False}

    def close(self) -> None:
        """Closes the event file; what is written next begins a new one."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(Exception):
                writer.close()


def _histograms(captured: Captured) -> Histograms:
    laid = layout(tuple(captured.layers))
    counts = captured.counts[laid.indices]
    return Histograms(laid.layers, laid.variables, laid.sizes, counts)
