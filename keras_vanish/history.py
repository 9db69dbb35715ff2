"""The diagnoses and interventions of a monitor over all of its fits."""

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
    """The runs of a monitor's optimizers, with their diagnoses and interventions.

    Args:
        log_dir: The directory of the event files; None writes none.
        histograms: Whether to write a histogram of each variable's gradient.
        on_diagnosis: A function that is called with each diagnosis, or None. An exception in it
            becomes a warning.

    Attributes:
        log_dir: The directory given above; a run that is made later writes to it.
        histograms: The choice given above, for runs that are made later.
        diagnoses: Each diagnosis, oldest first.
        interventions: Each intervention, oldest first.
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
        self.log_dir = log_dir
        self.histograms = histograms
        # The runs by the attribute of their optimizer, with "" for the compiled one.
        self._runs: dict[str, Run] = {}
        self._warned: set[str] = set()

    @property
    def verdict(self) -> Verdict:
        """The verdict so far; the worst one if there are several optimizers."""
        return worst_of(self.verdicts.values())

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdict so far on each optimizer that was read, by the name of its run."""
        runs = [run for run in self._runs.values() if run.last is not None]
        return {run.name or "": run.verdict for run in runs}

    def run(self, key: str, writes: bool) -> Run:
        """Returns the run with this key. A missing run is created.

        Args:
            key: The attribute that holds the optimizer; empty for the compiled one.
            writes: Whether a new run writes event files, if `log_dir` is given.
        """
        if key not in self._runs:
            log_dir = self.log_dir if writes else None
            self._runs[key] = Run(log_dir, self.histograms, self.warn)
        return self._runs[key]

    def is_main(self, run: Run) -> bool:
        """Returns whether a run is that of the compiled optimizer."""
        return run is self._runs.get("")

    def take_up(self, past: state.Past) -> None:
        """Adds the diagnoses and interventions of an earlier process."""
        everything = [*past.history, *self.diagnoses]
        self.diagnoses[:] = sorted(everything, key=lambda diagnosis: diagnosis.reading.wall_time)
        self.interventions[:0] = past.interventions

    def diagnosed(self, run: Run, captured: Captured) -> Diagnosis:
        """Diagnoses a recorded update of a run, and returns the diagnosis."""
        diagnosis = run.diagnosed(captured)
        self.diagnoses.append(diagnosis)
        return diagnosis

    def write(
        self, run: Run, diagnosis: Diagnosis, captured: Captured, numbers: Mapping[str, float]
    ) -> None:
        """Writes a diagnosed update to the run's event file, and calls `on_diagnosis`.

        Args:
            run: The run.
            diagnosis: The diagnosis of the update, from `diagnosed`.
            captured: The update.
            numbers: Further scalars of the step, by tag.
        """
        run.write(diagnosis, captured, dict(numbers))
        if self.on_diagnosis is not None:
            try:
                self.on_diagnosis(diagnosis)
            except Exception as error:
                self.warn("on_diagnosis", f"on_diagnosis raised {error!r}. Training goes on.")

    def note(self, run: Run, done: Sequence[Intervention]) -> None:
        """Keeps, prints and writes the interventions in a run at one step."""
        for intervention in done:
            self.interventions.append(intervention)
            with contextlib.suppress(OSError, ValueError):  # The terminal may be closed.
                print(f"\nGradientMonitor: {intervention.sentence()}", flush=True)
        if done:
            run.write_interventions(done)

    def warn(self, about: str, message: str) -> None:
        """Warns about a subject, once.

        Args:
            about: The subject. Only the first warning about it is shown.
            message: The text of the warning.
        """
        if about not in self._warned:
            self._warned.add(about)
            warnings.warn(message, stacklevel=3)

    def close(self) -> None:
        """Closes the event files. Later writes begin new ones."""
        for run in self._runs.values():
            run.close()

    def move(self, log_dir: str) -> None:
        """Writes to another directory from now on, if event files are written at all."""
        self.log_dir = log_dir
        for run in self._runs.values():
            run.move(log_dir)
