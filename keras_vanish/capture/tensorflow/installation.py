"""What is built around a model's train step, in `fit` and in a custom loop."""

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

#: A fit of fewer steps runs all of them as one function, unless XLA compiles it. Tracing another
#: function takes seconds, which a short run does not win back.
SHORT_RUN = 1000


class Installation:
    """The train function of a model with its optimizers tapped.

    Args:
        model: A compiled Keras model.
        optimizers: Its optimizers, by the attribute that holds each.
        plan: What the fit is watched for.
        controls: What acts within every step.

    Attributes:
        recordings: By attribute, what is recorded of each optimizer.
        main: The attribute of the optimizer that the model was compiled with, or of the only
            one; empty if the model holds several others.
        controls: What acts within every step.
        steps_per_call: How many train steps one call of the train function takes.
        gives_batches: True: the hooks are given the batches of each step.
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
        # XLA copies at every step whatever a `tf.cond` may read. Elsewhere the optimizer cannot
        # compute in the place of what it reads. So the model's own function runs on the steps
        # that are not recorded, if the host can choose between two functions.
        every_step = plan.every == 1
        chooses = xla and (every_step or steps == 1)
        chooses = chooses or (not model.run_eagerly and _is_long(plan))
        always = every_step or (chooses and steps == 1)
        self.recordings = {
            attribute: Capture(
                model,
                optimizer,
                plan.every,
                # A train function that runs several steps records several before it returns.
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
        """Takes the place of the model's train function for the `fit` that begins.

        Args:
            hooks: Who is told about the calls of the train function.
        """
        self._hooks = hooks
        self._function.install()

    def remove(self) -> None:
        """Gives the model its own train function back."""
        self._function.remove()

    # What `TrainFunction` asks for.

    def wrap(self, step: Step) -> Step:
        """The train step with every optimizer tapped."""
        captures = self.recordings.values()
        return functools.reduce(lambda wrapped, capture: capture.wrap(wrapped), captures, step)

    def wrap_other(self, step: Step) -> Step | None:
        """The train step that acts and records nothing; None where the model's own one does."""
        (capture, *_) = self.recordings.values()
        return capture.wrap_unread(step) if self._has_other else None

    def wanted(self) -> bool:
        """Whether the next call is to run the step that records."""
        return any(capture.wanted() for capture in self.recordings.values())

    def before_call(self, batches: Any) -> Any:
        """Gives the iterator of the next call."""
        return batches if self._hooks is None else self._hooks.before_call(batches)

    def after_call(self) -> None:
        """Tells that a call has ended well."""
        if self._hooks is not None:
            self._hooks.after_call()

    def after_data(self) -> None:
        """Tells that a call has met the end of the data."""
        if self._hooks is not None:
            self._hooks.after_data()

    def removed(self) -> None:
        """Tells that the model has its own train function back, and lets go of the hooks."""
        hooks, self._hooks = self._hooks, None
        if hooks is not None:
            hooks.removed()


class Loop:
    """A custom training loop in which one optimizer is tapped.

    Args:
        model: The Keras model.
        optimizer: The Keras optimizer that the loop applies.
        every: Updates from one reading to the next.
        controls: What acts within every step.

    Attributes:
        recordings: What is recorded of the optimizer, by the attribute of a compiled one.
        main: That attribute.
        controls: What acts within every step.
        steps_per_call: 1: each call of `GradientMonitor.step` stands for one train step.
        gives_batches: False: the loop keeps its batches to itself.
    """

    main = COMPILED
    steps_per_call = 1
    gives_batches = False

    def __init__(self, model: Any, optimizer: Any, every: int, controls: StepControls) -> None:
        self.controls = controls
        self._capture = Capture(model, optimizer, every, slots=2, step_controls=controls)
        self.recordings = {COMPILED: self._capture}

    def open(self) -> contextlib.AbstractContextManager[None]:
        """Within this context, what the optimizer applies is recorded."""
        return self._capture.open()


def _main(model: Any, optimizers: Mapping[str, Any]) -> str:
    if len(optimizers) == 1:
        return next(iter(optimizers))
    compiled = unwrapped(model.optimizer)
    names = [name for name, optimizer in optimizers.items() if unwrapped(optimizer) is compiled]
    return names[0] if names else ""


def _is_long(plan: Plan) -> bool:
    return plan.steps is None or plan.steps >= SHORT_RUN
