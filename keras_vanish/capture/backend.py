"""The interface between this package and the framework that trains a Keras model.

Each backend has a folder beside this file. `session.py` installs it on a model, `run.py` reads its
recordings, and `rescue` acts through it. Nothing else depends on a backend.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from keras_vanish.records.captured import Captured
from keras_vanish.records.layers import LayerInfo

#: The supported backends of Keras, and the module of each. The module holds a `BACKEND`.
BACKENDS = {"tensorflow": "keras_vanish.capture.tensorflow.backend"}


def load(name: str) -> Backend:
    """Returns the backend with this name.

    Args:
        name: The name that `keras.backend.backend()` returns.

    Raises:
        RuntimeError: If the backend is not supported.
    """
    if name not in BACKENDS:
        raise RuntimeError(
            "GradientMonitor works in TensorFlow's train step only. Received: Keras "
            f"backend {name!r}. Set KERAS_BACKEND=tensorflow before Keras is imported."
        )
    backend: Backend = importlib.import_module(BACKENDS[name]).BACKEND
    return backend


@dataclass(frozen=True)
class Plan:
    """The plan for watching a `fit`.

    Attributes:
        every: The number of updates between two readings. With None, a reading needs a call of
            `Recording.arm`.
        probe: Whether activations are measured as well.
        steps: The number of train steps of the `fit`; None if unknown.
    """

    every: int | None
    probe: bool
    steps: int | None


@dataclass(frozen=True)
class GuardSettings:
    """The settings of the clipping that is built into the train step.

    Attributes:
        enforces: Whether gradients are clipped. Otherwise, the guard only counts.
        smallest_norm: The smallest weight norm that counts if each unit is clipped on its own. None
            clips the global norm.
    """

    enforces: bool
    smallest_norm: float | None


@dataclass(frozen=True)
class Controls:
    """The controls that the flags need inside the train step.

    Attributes:
        guard: The settings of clipping; None without clipping.
        rate: Whether the learning rate can be multiplied by a factor.
        losses: Whether the loss of every step is recorded.
    """

    guard: GuardSettings | None = None
    rate: bool = False
    losses: bool = False


class GuardLog(Protocol):
    """The guard's actions since the last read."""

    @property
    def norms(self) -> npt.NDArray[np.float32]:
        """The global norm of each update's gradient before clipping: float32, shape `[updates]`."""

    @property
    def clipped(self) -> int:
        """The number of updates that were clipped, or would have been in a dry run."""

    @property
    def skipped(self) -> int:
        """The number of steps that were skipped because their gradient was not finite."""


class Guard(Protocol):
    """Clips gradients inside the train step, and skips those that are not finite."""

    def limit(self, fires_above: float, clips_to: float, reach: float) -> None:
        """Sets the limits from the next step on. An infinite limit never fires.

        Args:
            fires_above: The limit on the global norm, or on each unit's ratio. A gradient at or
                above it is clipped.
            clips_to: The norm to which such a gradient is scaled.
            reach: The limit on the product of learning rate and global norm. An update at or above
                it is scaled to a tenth of this limit.
        """

    def read(self) -> GuardLog:
        """Returns the actions since the last call. Waits for the device."""


class RateFactor(Protocol):
    """Multiplies the learning rate inside the train step."""

    @property
    def value(self) -> float:
        """The factor. It is 1 at first."""

    def assign(self, factor: float) -> None:
        """Sets the factor from the next step on."""


class LossLog(Protocol):
    """Records the loss of every train step."""

    def read(self) -> npt.NDArray[np.float32]:
        """Returns the losses since the last call, oldest first: float32 of shape `[steps]`.

        Waits for the device.
        """


class StepControls(Protocol):
    """The controls inside every train step. A control that no flag needs is None."""

    @property
    def guard(self) -> Guard | None:
        """The clipping."""

    @property
    def factor(self) -> RateFactor | None:
        """The factor on the learning rate."""

    @property
    def losses(self) -> LossLog | None:
        """The log of losses."""


class Recording(Protocol):
    """The recorded updates of one optimizer."""

    @property
    def optimizer(self) -> Any:
        """The Keras optimizer."""

    @property
    def traced(self) -> bool:
        """Whether a train step has been seen to apply the optimizer."""

    @property
    def layers(self) -> Sequence[LayerInfo]:
        """The layers in the order of the data flow; empty before a step was traced."""

    @property
    def awaited(self) -> bool:
        """Whether the host is going to read again without another call of `arm`."""

    def arm(self) -> None:
        """Makes the next update a recorded one."""

    def updates(self) -> int:
        """Returns the number of updates that the optimizer has applied. Waits for the device."""

    def count(self, steps: int) -> bool:
        """Counts train steps that the host started. Returns whether it is time to `read`.

        Args:
            steps: The number of these steps.
        """

    def read(self) -> list[Captured]:
        """Returns the updates that were recorded since the last call, oldest first.

        Waits for the device.
        """


class FitHooks(Protocol):
    """The hooks that an installation calls around each call of the train function."""

    def before_call(self, batches: Any) -> Any:
        """Returns the iterator from which the call takes its batches.

        Args:
            batches: The iterator with which Keras called the train function.

        Raises:
            StopIteration: If the data have ended.
        """

    def after_call(self) -> None:
        """Is called after a call that succeeded."""

    def after_data(self) -> None:
        """Is called when a call reaches the end of the data, perhaps after some steps."""

    def removed(self) -> None:
        """Is called when the model has its own train function again."""


class Watched(Protocol):
    """A wrapper around a train step."""

    @property
    def recordings(self) -> Mapping[str, Recording]:
        """The recording of each optimizer, by the attribute that holds the optimizer."""

    @property
    def main(self) -> str:
        """The attribute of the only optimizer, or of the one that the model was compiled with.

        It is empty if the train step applies several others.
        """

    @property
    def controls(self) -> StepControls:
        """The controls inside every step."""

    @property
    def steps_per_call(self) -> int:
        """The number of train steps in one call of the train function."""

    @property
    def gives_batches(self) -> bool:
        """Whether `FitHooks.before_call` is called with the batches of each step."""


class Installation(Watched, Protocol):
    """The wrapper around the train step of `fit`. Later fits of the model reuse it."""

    def install(self, hooks: FitHooks) -> None:
        """Replaces the model's train function for the `fit` that begins.

        Args:
            hooks: The hooks to call around each call of the train function.
        """

    def remove(self) -> None:
        """Restores the model's own train function, and calls `FitHooks.removed`."""


class Loop(Watched, Protocol):
    """The wrapper around the train step of a custom training loop with one optimizer."""

    def open(self) -> contextlib.AbstractContextManager[None]:
        """Returns a context in which the train step is watched."""


class Snapshot(Protocol):
    """A copy of a model's weights, statistics and seeds, and of its optimizer's slots.

    It does not contain the optimizer's step count and learning rate.
    """

    def restore(self) -> None:
        """Gives every variable its value in the copy."""

    def finite(self) -> bool:
        """Returns whether the copy contains neither NaN nor Inf. Waits for the device."""


class Backend(Protocol):
    """The capabilities that the package needs from a framework."""

    # Before a fit: can the model be watched, and with which limitations?

    def optimizers_of(self, model: Any) -> dict[str, Any]:
        """Returns the optimizers that the model's train step may apply, by their attributes.

        The optimizer that the model was compiled with comes first.
        """

    def refusal(self, model: Any) -> str | None:
        """Returns why a fit of this model cannot be monitored; None if it can."""

    def limitations(
        self, model: Any, optimizers: Mapping[str, Any], flags: bool, probe: bool
    ) -> Iterator[tuple[str, str]]:
        """Yields what is not monitored in a fit of this model: pairs of a subject and a sentence.

        Args:
            model: The Keras model.
            optimizers: The model's optimizers, as `optimizers_of` returns them.
            flags: Whether any flag `auto_*` is on.
            probe: Whether the activations are to be measured.
        """

    def has_one_rate(self, optimizers: Mapping[str, Any]) -> bool:
        """Returns whether there is a single optimizer with a learning rate of its own.

        Args:
            optimizers: The optimizers, as `optimizers_of` returns them.
        """

    def can_control(self, model: Any, optimizers: Mapping[str, Any]) -> bool:
        """Returns whether the flags can act inside the steps of this model.

        Args:
            model: The Keras model.
            optimizers: The model's optimizers, as `optimizers_of` returns them.
        """

    def is_chief(self, model: Any) -> bool:
        """Returns whether this process writes the files that all processes share."""

    # Watching a fit or a loop.

    def installation(
        self, model: Any, optimizers: Mapping[str, Any], plan: Plan, controls: Controls
    ) -> Installation:
        """Builds the wrapper around the model's train step. `Installation.install` activates it.

        Args:
            model: The compiled Keras model.
            optimizers: The model's optimizers, as `optimizers_of` returns them.
            plan: The plan for watching the fit.
            controls: The controls that the flags need.
        """

    def loop(self, model: Any, optimizer: Any, every: int, controls: Controls) -> Loop:
        """Builds the wrapper for a custom loop that applies the optimizer.

        Args:
            model: The Keras model.
            optimizer: The Keras optimizer that the loop applies.
            every: The number of updates between two readings.
            controls: The controls that the flags need.
        """

    def release(self, model: Any) -> None:
        """Removes the leftovers of a `fit` that ended with an exception.

        Raises:
            RuntimeError: If another monitor takes part in the `fit` that begins.
        """

    # Reading and changing the state of a training.

    def learning_rate(self, optimizer: Any) -> float:
        """Returns the optimizer's own learning rate at this step."""

    def momentum(self, optimizer: Any) -> float:
        """Returns the share of each update that the next one repeats, in [0, 1)."""

    def correct_momentum(self, optimizer: Any, share: float) -> None:
        """Multiplies the optimizer's velocity after a change of the learning rate.

        Args:
            optimizer: The Keras optimizer.
            share: The factor by which the learning rate changed.

        Reference:
            Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017,
            section 3.
        """

    def build_optimizer(self, model: Any, optimizer: Any) -> None:
        """Creates the optimizer's slots, as its first step would. Existing slots stay.

        Args:
            model: The built Keras model.
            optimizer: The optimizer that trains it.
        """

    def snapshot(self, model: Any, optimizer: Any) -> Snapshot:
        """Returns a copy of the present state of a training.

        Args:
            model: The built Keras model.
            optimizer: The optimizer that trains it.
        """

    def assigning(self, model: Any) -> contextlib.AbstractContextManager[None]:
        """Returns a context in which the host may read and assign the model's variables."""

    def weights_norm(self, model: Any) -> Callable[[], float]:
        """Returns a function that computes the Euclidean norm of all trainable weights.

        Each call uses the weights of that moment.
        """
