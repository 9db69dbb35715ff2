"""What a monitor keeps over all of its fits."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras_vanish.diagnosis import Diagnosis, Verdict, worst_of
from keras_vanish.interventions.intervention import Intervention
from keras_vanish.logs import state
from keras_vanish.records.captured import Captured
from keras_vanish.run import Run


class History:
    """The runs of a monitor's optimizers, their diagnoses, and what was done to them.

    Args:
        log_dir: The directory of the event files, or None to write none.
        histograms: Whether to write a histogram of each variable's gradient.
        on_diagnosis: Called with each diagnosis, or None. An exception in it becomes a warning.

    Attributes:
        diagnoses: Each diagnosis, oldest first.
        interventions: What the flags did, oldest first.
        on_diagnosis: The function given above.
    """

    def __init__(
        self,
        log_dir: str | None,
        histograms: bool,
        on_diagnosis: Callable[[Diagnosis], Any] | None,
    ) -> None:
        self.diagnoses: list[Diagnosis] = []
        self.interventions: list[Intervention] = []
        self.on_diagnosis = on_diagnosis
        self._log_dir = log_dir
        self._histograms = histograms
        # By what keeps them apart over all fits: the attribute, and "" for the compiled one.
        self._runs: dict[str, Run] = {}
        self._warned: set[str] = set()

    @property
    def verdict(self) -> Verdict:
        """The verdict so far; of several optimizers' verdicts the worst."""
        return worst_of(self.verdicts.values())

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdict so far on each optimizer that was read, by the name of its run."""
        runs = [run for run in self._runs.values() if run.last is not None]
        return {run.name or "": run.verdict for run in runs}

    def run(self, key: str, writes: bool) -> Run:
        """The run that is known by a key; a new one if there is none.

        Args:
            key: The attribute that holds the optimizer; empty for the compiled one.
            writes: Whether a new run writes event files, if there is a directory for them.
        """
        if key not in self._runs:
            log_dir = self._log_dir if writes else None
            self._runs[key] = Run(log_dir, self._histograms, self.warn)
        return self._runs[key]

    def is_main(self, run: Run) -> bool:
        """Whether it is the run of the compiled optimizer."""
        return run is self._runs.get("")

    def take_up(self, past: state.Past) -> None:
        """Takes in what an earlier process left of a run."""
        everything = [*past.history, *self.diagnoses]
        self.diagnoses[:] = sorted(everything, key=lambda diagnosis: diagnosis.reading.wall_time)
        self.interventions[:0] = past.interventions

    def diagnosed(self, run: Run, captured: Captured) -> Diagnosis:
        """Diagnoses a recorded update of a run."""
        diagnosis = run.diagnosed(captured)
        self.diagnoses.append(diagnosis)
        return diagnosis

    def write(
        self, run: Run, diagnosis: Diagnosis, captured: Captured, numbers: Mapping[str, float]
    ) -> None:
        """Writes a diagnosed update to the run's event file, and tells the user of it.

        Args:
            run: The run.
            diagnosis: What `diagnosed` gave.
            captured: The update.
            numbers: More scalars of the step, by tag.
        """
        run.write(diagnosis, captured, dict(numbers))
        if self.on_diagnosis is not None:
            try:
                self.on_diagnosis(diagnosis)
            except Exception as error:
                self.warn("on_diagnosis", f"on_diagnosis raised {error!r}. Training goes on.")

    def note(self, run: Run, done: Sequence[Intervention]) -> None:
        """Notes, prints and writes what was done to a run at one step."""
        for intervention in done:
            self.interventions.append(intervention)
            with contextlib.suppress(OSError, ValueError):  # A terminal that is closed.
                print(f"\nGradientMonitor: {intervention.sentence()}", flush=True)
        if done:
            run.write_interventions(done)

    def warn(self, about: str, message: str) -> None:
        """Warns of something, once."""
        if about not in self._warned:
            self._warned.add(about)
            warnings.warn(message, stacklevel=3)

    def close(self) -> None:
        """Closes the event files; what is written next begins new ones."""
        for run in self._runs.values():
            run.close()

    def move(self, log_dir: str) -> None:
        """Writes to another directory from now on, if it writes."""
        self._log_dir = log_dir
        for run in self._runs.values():
            run.move(log_dir)
