"""One `fit` or one custom loop, from its first step to its end.

At a recorded step, a session reads the results of the train step, diagnoses them, shows them to the
policies, and writes everything. At other steps it only counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras_vanish.capture.backend import Backend, Controls, Installation, Loop, Plan, Watched
from keras_vanish.diagnosis import Diagnosis, worst
from keras_vanish.history import History
from keras_vanish.interventions.intervention import Intervention
from keras_vanish.limitations import limitations
from keras_vanish.records.captured import Captured
from keras_vanish.rescue.rescue import Rescue
from keras_vanish.rescue.training import Training
from keras_vanish.run import Run


class Session:
    """Watches one training. The callback tells it about each call, each epoch and the end.

    Args:
        backend: The framework that trains the model.
        model: The Keras model.
        optimizers: The model's optimizers, by the attribute that holds each.
        watched: The wrapper around the train step.
        history: Keeps the diagnoses and interventions.
        rescue: Carries out the decisions of the flags.
        every: The number of updates between two readings; None for one reading an epoch.

    Attributes:
        runs: The run of each optimizer, by the attribute that holds the optimizer.
        epoch_steps: The number of train steps of the last epoch; None before its end.
    """

    def __init__(
        self,
        backend: Backend,
        model: Any,
        optimizers: Mapping[str, Any],
        watched: Watched,
        history: History,
        rescue: Rescue,
        every: int | None,
    ) -> None:
        self._backend = backend
        self._model = model
        self._optimizers = optimizers
        self._watched = watched
        self._history = history
        self._rescue = rescue
        self._every = every
        self._acts = may_act(backend, model, optimizers, rescue)
        self._begun = False
        self._steps = 0
        self.epoch_steps: int | None = None
        self.runs: dict[str, Run] = {}
        for attribute, recording in watched.recordings.items():
            key = "" if attribute == watched.main else attribute
            run = self.runs[attribute] = history.run(key, writes=backend.is_chief(model))
            run.attach(recording)
        if len(optimizers) == 1:
            for run in self.runs.values():
                run.settle("")
        if every is not None:
            self._arm()

    # Called by the Keras hooks.

    def begin_epoch(self, steps: int | None) -> None:
        """Begins an epoch.

        Args:
            steps: The number of train steps of the epoch; None if unknown.
        """
        self._steps = 0
        if self._every is None and steps is None and self.epoch_steps is None:
            self._arm()

    def begin_batch(self, batch: int, steps: int | None) -> None:
        """Begins a call of the train function.

        Args:
            batch: The number of the call's first train step within the epoch.
            steps: The number of train steps of the epoch; None if unknown.
        """
        steps = steps if steps is not None else self.epoch_steps
        if self._every is not None or steps is None:
            return
        if batch < steps <= batch + self._watched.steps_per_call:
            self._arm()

    def end_epoch(self) -> None:
        """Ends an epoch. Warns once if no gradient has been seen."""
        self.epoch_steps = self._steps
        if not self._traced():
            kinds = [type(optimizer).__name__ for optimizer in self._optimizers.values()]
            self._history.warn(
                "untapped",
                "GradientMonitor saw no gradient: the train step does not call apply or "
                "apply_gradients of the optimizer that the model was compiled with, nor of "
                "another that the model holds. "
                f"Received: {type(self._model).__name__}, {', '.join(kinds)}.",
            )

    def scores(self) -> tuple[float, float]:
        """Returns the last vanishing and exploding scores; NaN if unknown.

        With several optimizers, each score is the worst of all.
        """
        last = [run.last for run in self.runs.values() if run.last is not None]
        return (
            worst(*(diagnosis.vanishing_score for diagnosis in last)),
            worst(*(diagnosis.exploding_score for diagnosis in last)),
        )

    # Called by the train function.

    def begin_steps(self) -> None:
        """Reads the state from which the first step starts. Further calls do nothing.

        This happens as late as possible, because another callback may restore a model when the
        training begins.
        """
        if self._begun:
            return
        self._begun = True
        updates = [run.begin_fit() for run in self.runs.values()]
        for run in self.runs.values():
            if run.settled:
                self._resume(run)
        if self._acts:
            (run,) = self.runs.values()
            training = Training(
                backend=self._backend,
                model=self._model,
                optimizer=run.recording.optimizer,
                controls=self._watched.controls,
                updates=updates[0],
                gives_batches=self._watched.gives_batches,
            )
            self._rescue.enter(training)

    def before_call(self, batches: Any) -> Any:
        """Returns the iterator for a call. Planned new weights are computed from its first batch.

        Args:
            batches: The iterator with which Keras called the train function.
        """
        self.begin_steps()
        if not self._acts:
            return batches
        batches, done = self._rescue.before(batches, self._watched.steps_per_call)
        self._note(done)
        return batches

    def after_call(self) -> None:
        """Counts the steps of a call, and reads the recorded steps when they are due."""
        steps = self._watched.steps_per_call
        self._steps += steps
        counted = [(run, run.recording.count(steps)) for run in self.runs.values()]
        self._read([run for run, due in counted if due])

    def after_data(self) -> None:
        """Reads the steps that were recorded before the data ended."""
        # In Keras 3.4, the last call of an epoch fails after the last of its steps.
        if self._watched.steps_per_call > 1:
            self._read([run for run in self.runs.values() if run.recording.awaited])

    def removed(self) -> None:
        """Ends the session."""
        self._rescue.leave()
        self._history.close()

    # Warnings, readings and interventions.

    def warn_if_untraced(self) -> None:
        """Warns if a custom loop never applied its optimizer."""
        if not self._traced():
            (optimizer,) = self._optimizers.values()
            self._history.warn(
                "untapped",
                "GradientMonitor saw no gradient: optimizer.apply was not called within "
                "the block, or its tf.function was traced before it. Received: "
                f"{type(optimizer).__name__}. Call the train step for the first time "
                "within the block.",
            )

    def warn_of_limitations(self, probe: bool) -> None:
        """Warns about requests that this training does not support.

        Args:
            probe: Whether the user wants activations to be measured.
        """
        found = limitations(
            self._backend,
            self._model,
            self._optimizers,
            flags=self._rescue.asked,
            probe=probe,
            gives_batches=self._watched.gives_batches,
        )
        for about, message in found:
            self._history.warn(about, message)

    def _arm(self) -> None:
        for run in self.runs.values():
            run.recording.arm()

    def _traced(self) -> list[str]:
        return [name for name, run in self.runs.items() if run.recording.traced]

    def _settle(self) -> None:
        """Names the runs of the optimizers that the train step applies."""
        traced = self._traced()
        for attribute in traced:
            run = self.runs[attribute]
            if not run.settled:
                # Most models use the compiled optimizer only. Its run needs no name.
                alone = self._history.is_main(run) and len(traced) == 1
                run.settle("" if alone else attribute)
                self._resume(run)

    def _resume(self, run: Run) -> None:
        past = run.resume()
        if past is None:
            return
        self._history.take_up(past)
        if self._acts and past.state.policies:
            try:
                self._rescue.resume(past.state.policies)
            except ValueError as error:
                self._history.warn(
                    "resume",
                    "GradientMonitor could not take up what the flags knew of the run, and "
                    f"begins anew: {error}. Training goes on.",
                )

    def _read(self, runs: Sequence[Run]) -> None:
        if not runs:
            return
        try:
            self._settle()
            found = [(run, captured) for run in runs for captured in run.recording.read()]
            found.sort(key=lambda pair: pair[1].update)
            self._record(runs, found)
        except Exception as error:
            self._history.warn(
                "reading",
                f"GradientMonitor could not read what was recorded: {error!r}. Training goes on.",
            )

    def _record(self, runs: Sequence[Run], found: Sequence[tuple[Run, Captured]]) -> None:
        history = self._history
        for run, captured in found[:-1]:
            history.write(run, history.diagnosed(run, captured), captured, {})
        # The policies and their numbers belong to the last update.
        last = None if not found else history.diagnosed(*found[-1])
        done, numbers = self._look(runs[0], last)
        if last is not None:
            history.write(found[-1][0], last, found[-1][1], numbers)
        self._note(done)
        written = runs if done else [run for run, _ in found]
        for run in dict.fromkeys(written):
            run.save(self._rescue.state() if self._acts else {})

    def _look(
        self, run: Run, diagnosis: Diagnosis | None
    ) -> tuple[list[Intervention], dict[str, float]]:
        if not self._acts:
            return [], {}
        updates = run.recording.updates()
        return self._rescue.look(
            step=run.step(max(0, updates - 1)),
            updates=updates,
            diagnosis=diagnosis,
            verdict=run.verdict,
            learned=run.progress.learned,
        )

    def _note(self, done: Sequence[Intervention]) -> None:
        if done:
            (run,) = self.runs.values()
            self._history.note(run, done)


def may_act(backend: Backend, model: Any, optimizers: Mapping[str, Any], rescue: Rescue) -> bool:
    """Returns whether a flag is on and can act in a training with these optimizers.

    Args:
        backend: The framework that trains the model.
        model: The Keras model.
        optimizers: The model's optimizers, by the attribute that holds each.
        rescue: Knows which flags are on.
    """
    return rescue.asked and backend.can_control(model, optimizers)


def _controls(
    backend: Backend, model: Any, optimizers: Mapping[str, Any], rescue: Rescue
) -> Controls:
    return rescue.controls() if may_act(backend, model, optimizers, rescue) else Controls()


def installation_for(
    backend: Backend, model: Any, optimizers: Mapping[str, Any], plan: Plan, rescue: Rescue
) -> Installation:
    """Returns the installation that watches a `fit`.

    Args:
        backend: The framework that trains the model.
        model: The Keras model.
        optimizers: The model's optimizers, by the attribute that holds each.
        plan: The plan for watching the `fit`.
        rescue: Knows which controls the flags need.
    """
    controls = _controls(backend, model, optimizers, rescue)
    return backend.installation(model, optimizers, plan, controls)


def loop_for(backend: Backend, model: Any, optimizer: Any, every: int, rescue: Rescue) -> Loop:
    """Returns the wrapper that watches a custom loop.

    Args:
        backend: The framework that trains the model.
        model: The Keras model.
        optimizer: The Keras optimizer that the loop applies.
        every: The number of updates between two readings.
        rescue: Knows which controls the flags need.
    """
    controls = _controls(backend, model, {"optimizer": optimizer}, rescue)
    return backend.loop(model, optimizer, every, controls)
