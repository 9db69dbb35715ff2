"""The wrappers around a model's train step, in `fit` and in a custom loop."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from typing import Any

from keras_vanish.capture.backend import FitHooks, Plan
from keras_vanish.capture.tensorflow.activations.probe import Probe
from keras_vanish.capture.tensorflow.capture import Capture
from keras_vanish.capture.tensorflow.control.step_controls import StepControls
from keras_vanish.capture.tensorflow.optimizers import COMPILED
from keras_vanish.capture.tensorflow.strategies import several_processes
from keras_vanish.capture.tensorflow.tap import unwrapped
from keras_vanish.capture.tensorflow.train_function import Step, TrainFunction

#: A shorter fit uses a single function for all steps, unless XLA compiles it. Tracing a second
#: function takes seconds, which a short run does not win back.
SHORT_RUN = 1000


class Installation:
    """A model's train function with its optimizers tapped.

    Args:
        model: A compiled Keras model.
        optimizers: The model's optimizers, by the attribute that holds each.
        plan: The plan for watching the fit.
        controls: The controls inside every step.

    Attributes:
        recordings: The recording of each optimizer, by attribute.
        main: The attribute of the optimizer that the model was compiled with, or of the only one.
            It is empty if the model holds several others.
        controls: The controls inside every step.
        steps_per_call: The number of train steps in one call of the train function.
        gives_batches: True, because the hooks receive the batches of each step.
    """

    gives_batches = True

    def __init__(
        self, model: Any, optimizers: Mapping[str, Any], plan: Plan, controls: StepControls
    ) -> None:
        self._model = model
        self._hooks: FitHooks | None = None
        self.controls = controls
        self.main = _main(model, optimizers)
        xla = bool(model.jit_compile) and not model.run_eagerly
        steps = self.steps_per_call = model.steps_per_execution or 1
        alone = len(optimizers) == 1
        probes = plan.probe and alone and not several_processes(model.distribute_strategy)
        # At every step, XLA copies all inputs of a `tf.cond`. Without XLA, the optimizer cannot
        # work in place on tensors that a `tf.cond` reads. So if the host can choose between two
        # functions, the model's own function runs on steps that are not recorded.
        every_step = plan.every == 1
        chooses = xla and (every_step or steps == 1)
        chooses = chooses or (not model.run_eagerly and _is_long(plan))
        always = every_step or (chooses and steps == 1)
        self.recordings = {
            attribute: Capture(
                model,
                optimizer,
                plan.every,
                # A train function with several steps records several updates before it returns.
                slots=1 + steps // (plan.every or steps),
                xla=xla,
                always=always,
                chooses=chooses,
                probe=Probe(model, xla=xla) if probes else None,
                step_controls=controls,
            )
            for attribute, optimizer in optimizers.items()
        }
        self._has_other = chooses and not controls.empty
        self._function = TrainFunction(model, self)

    def install(self, hooks: FitHooks) -> None:
        """Replaces the model's train function for the `fit` that begins.

        Args:
            hooks: The hooks to call around each call of the train function.
        """
        self._hooks = hooks
        self._function.install()

    def remove(self) -> None:
        """Restores the model's own train function."""
        self._function.remove()

    # Called by `TrainFunction`.

    def wrap(self, step: Step) -> Step:
        """Returns the train step with every optimizer tapped."""
        captures = self.recordings.values()
        return functools.reduce(lambda wrapped, capture: capture.wrap(wrapped), captures, step)

    def wrap_other(self, step: Step) -> Step | None:
        """Returns the train step that applies the controls without recording.

        None means that the model's own step does.
        """
        (capture, *_) = self.recordings.values()
        return capture.wrap_unread(step) if self._has_other else None

    def wanted(self) -> bool:
        """Returns whether the next call must run the recording step."""
        return any(capture.wanted() for capture in self.recordings.values())

    def before_call(self, batches: Any) -> Any:
        """Returns the iterator of the next call."""
        return batches if self._hooks is None else self._hooks.before_call(batches)

    def after_call(self) -> None:
        """Passes on that a call succeeded."""
        if self._hooks is not None:
            self._hooks.after_call()

    def after_data(self) -> None:
        """Passes on that a call reached the end of the data."""
        if self._hooks is not None:
            self._hooks.after_data()

    def removed(self) -> None:
        """Passes on that the model has its own train function again, and releases the hooks."""
        hooks, self._hooks = self._hooks, None
        if hooks is not None:
            hooks.removed()


class Loop:
    """A custom training loop in which one optimizer is tapped.

    Args:
        model: The Keras model.
        optimizer: The Keras optimizer that the loop applies.
        every: The number of updates between two readings.
        controls: The controls inside every step.

    Attributes:
        recordings: The recording of the optimizer, under the attribute of a compiled one.
        main: That attribute.
        controls: The controls inside every step.
        steps_per_call: 1, because each call of `GradientMonitor.step` stands for one train step.
        gives_batches: False, because the loop does not pass on its batches.
    """

    main = COMPILED
    steps_per_call = 1
    gives_batches = False

    def __init__(self, model: Any, optimizer: Any, every: int, controls: StepControls) -> None:
        self.controls = controls
        self._capture = Capture(model, optimizer, every, slots=2, step_controls=controls)
        self.recordings = {COMPILED: self._capture}

    def open(self) -> contextlib.AbstractContextManager[None]:
        """Returns a context in which the optimizer's updates are recorded."""
        return self._capture.open()


def _main(model: Any, optimizers: Mapping[str, Any]) -> str:
    if len(optimizers) == 1:
        return next(iter(optimizers))
    compiled = unwrapped(model.optimizer)
    names = [name for name, optimizer in optimizers.items() if unwrapped(optimizer) is compiled]
    return names[0] if names else ""


def _is_long(plan: Plan) -> bool:
    return plan.steps is None or plan.steps >= SHORT_RUN
