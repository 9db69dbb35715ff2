"""What belongs to one optimizer's readings, from its capture to its event files."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence

from keras_vanish.capture.capture import Capture, Captured
from keras_vanish.diagnosis import AGREEING_READINGS, Diagnosis, Verdict, diagnose, steadied
from keras_vanish.events import EventWriter, Histograms
from keras_vanish.interventions import Intervention
from keras_vanish.reading import Probed, from_rows
from keras_vanish.scores import Course


class Track:
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
        self._updates_before = 0
        self._settled = False
        self._forget()

    def _forget(self) -> None:
        self.verdict: Verdict = "unknown"
        self.course = Course()
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
        self.name, self._settled = name, True

    def begin(self) -> int:
        """Sets the step axis for the `fit` that begins: how many updates there were before.

        The axis goes on where the last reading left it, also when the model was compiled anew
        and its optimizer begins at 0.
        """
        updates = self.capture.updates()
        self._offset = 0 if self.last is None else max(0, self.last.step + 1 - updates)
        return updates

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
            probed=_probed(captured),
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
            self._warn(
                "writing",
                f"GradientMonitor could not write to log_dir={self._log_dir!r}: {error!r}. "
                "Training goes on; readings stay in monitor.history.",
            )

    def close(self) -> None:
        """Closes the event file; what is written next begins a new one."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(Exception):
                writer.close()


def _probed(captured: Captured) -> Probed | None:
    found = captured.probed
    if found is None:
        return None
    losses = (found.loss, found.shuffled_loss)
    return Probed(*losses, found.names, found.activations, found.profiles)


def _histograms(captured: Captured) -> Histograms:
    layers = captured.layers
    return Histograms(
        layers=tuple(layer.name for layer in layers for _ in layer.variables),
        variables=tuple(name for layer in layers for name in layer.variables),
        sizes=tuple(size for layer in layers for size in layer.sizes),
        counts=captured.counts[[index for layer in layers for index in layer.indices]],
    )
