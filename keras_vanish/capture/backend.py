"""The seam: everything that the package asks of the framework that Keras trains with.

A backend stands in a folder of its own beside this file. `session.py` installs it on a model,
`run.py` reads what it recorded, and `rescue` acts through it. Nothing else knows that there is one.
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

#: The backends of Keras that are supported, and the module of each: it has a `BACKEND`.
BACKENDS = {"tensorflow": "keras_vanish.capture.tensorflow.backend"}


def load(name: str) -> Backend:
    """The backend of this name.

    Args:
        name: As `keras.backend.backend()` gives it.

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
    """What a fit is going to be watched for.

    Attributes:
        every: Updates from one reading to the next; None where only `Recording.arm` asks for one.
        probe: Whether the activations are measured too.
        steps: How many train steps the fit takes; None if that is not known.
    """

    every: int | None
    probe: bool
    steps: int | None


@dataclass(frozen=True)
class GuardSettings:
    """How clipping is built into the train step.

    Attributes:
        enforces: Whether gradients are clipped; otherwise the guard only counts.
        smallest_norm: The least norm that a unit's weights count as, where each unit is clipped
            by itself; None where the global norm is clipped.
    """

    enforces: bool
    smallest_norm: float | None


@dataclass(frozen=True)
class Controls:
    """What the flags ask to have built into the train step.

    Attributes:
        guard: How gradients are clipped; None where they are left alone.
        rate: Whether the learning rate can be multiplied by a factor.
        losses: Whether the loss of every step is noted.
    """

    guard: GuardSettings | None = None
    rate: bool = False
    losses: bool = False


class GuardLog(Protocol):
    """What the guard did since it was last read."""

    @property
    def norms(self) -> npt.NDArray[np.float32]:
        """The global norm of the gradient before clipping, one an update; shape `[updates]`."""

    @property
    def clipped(self) -> int:
        """How many updates were clipped, or would have been."""

    @property
    def skipped(self) -> int:
        """How many steps were skipped because their gradient was not finite."""


class Guard(Protocol):
    """Clips gradients within the train step, and skips those that are not finite."""

    def limit(self, fires_above: float, clips_to: float, reach: float) -> None:
        """Sets the limits from the next step on. An infinite limit never fires.

        Args:
            fires_above: A gradient with a norm, or a unit with a ratio, at or above it is clipped.
            clips_to: The norm that it is clipped to.
            reach: The product of learning rate and norm at which an update is cut to a tenth.
        """

    def read(self) -> GuardLog:
        """What happened since the last call; waits for the device."""


class RateFactor(Protocol):
    """Multiplies the learning rate within the train step."""

    @property
    def value(self) -> float:
        """The factor; 1 at first."""

    def assign(self, factor: float) -> None:
        """Sets the factor from the next step on."""


class LossLog(Protocol):
    """Notes the loss of every train step."""

    def read(self) -> npt.NDArray[np.float32]:
        """The losses since the last call, oldest first, shape `[steps]`; waits for the device."""


class StepControls(Protocol):
    """What acts within every train step. A part that nobody asked for is None."""

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
    """What is recorded of one optimizer's updates."""

    @property
    def optimizer(self) -> Any:
        """The Keras optimizer."""

    @property
    def traced(self) -> bool:
        """Whether a train step was seen to apply the optimizer."""

    @property
    def layers(self) -> Sequence[LayerInfo]:
        """The layers in the order in which data flows; empty before a step was traced."""

    @property
    def awaited(self) -> bool:
        """Whether the host is going to read again without being told to."""

    def arm(self) -> None:
        """Makes the next update a recorded one."""

    def updates(self) -> int:
        """How many updates the optimizer has applied; waits for the device."""

    def count(self, steps: int) -> bool:
        """Counts train steps that the host started. Returns whether it is time to `read`."""

    def read(self) -> list[Captured]:
        """What was recorded since the last call, oldest first; waits for the device."""


class FitHooks(Protocol):
    """Whom an installation tells about the calls of the train function."""

    def before_call(self, batches: Any) -> Any:
        """Gives the iterator that the call takes its batches from.

        Args:
            batches: The iterator that Keras called the train function with.

        Raises:
            StopIteration: If the data have come to their end.
        """

    def after_call(self) -> None:
        """A call has ended well."""

    def after_data(self) -> None:
        """A call has met the end of the data, perhaps after some steps."""

    def removed(self) -> None:
        """The model has its own train function back."""


class Watched(Protocol):
    """What is built around a train step."""

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
        """What acts within every step."""

    @property
    def steps_per_call(self) -> int:
        """How many train steps one call of the train function takes."""

    @property
    def gives_batches(self) -> bool:
        """Whether `FitHooks.before_call` is called with the batches of each step."""


class Installation(Watched, Protocol):
    """What is built around the train step of `fit`. The next `fit` of the model uses it again."""

    def install(self, hooks: FitHooks) -> None:
        """Takes the place of the model's train function for the `fit` that begins."""

    def remove(self) -> None:
        """Gives the model its own train function back, and tells `FitHooks.removed`."""


class Loop(Watched, Protocol):
    """What is built around the train step of a custom training loop with one optimizer."""

    def open(self) -> contextlib.AbstractContextManager[None]:
        """Within this context, the train step is watched."""


class Snapshot(Protocol):
    """A copy of a model's weights, statistics and seeds, and of its optimizer's slots.

    The optimizer's count of steps and its learning rate are not in it.
    """

    def restore(self) -> None:
        """Gives every variable the value that it had."""

    def finite(self) -> bool:
        """Whether the copy holds neither NaN nor Inf; waits for the device."""


class Backend(Protocol):
    """What a framework must be able to do for the package."""

    # Before a fit: whether and how far the model can be watched.

    def optimizers_of(self, model: Any) -> dict[str, Any]:
        """The optimizers that the model's train step may apply, by the attribute that holds each.

        The optimizer that the model was compiled with comes first.
        """

    def refusal(self, model: Any) -> str | None:
        """Why a fit of this model cannot be monitored; None where it can."""

    def limitations(
        self, model: Any, optimizers: Mapping[str, Any], flags: bool, probe: bool
    ) -> Iterator[tuple[str, str]]:
        """What is left out of a fit that is monitored: pairs of a subject and a sentence.

        Args:
            model: The Keras model.
            optimizers: Its optimizers, as `optimizers_of` gives them.
            flags: Whether any flag `auto_*` is on.
            probe: Whether the activations are to be measured.
        """

    def has_one_rate(self, optimizers: Mapping[str, Any]) -> bool:
        """Whether one learning rate rules: of one optimizer that is not made of several."""

    def can_control(self, model: Any, optimizers: Mapping[str, Any]) -> bool:
        """Whether flags can act within the steps of this model."""

    def is_chief(self, model: Any) -> bool:
        """Whether this process is the one that writes what all processes read."""

    # A fit or a loop.

    def installation(
        self, model: Any, optimizers: Mapping[str, Any], plan: Plan, controls: Controls
    ) -> Installation:
        """Builds what watches the model's train step. `Installation.install` puts it in place."""

    def loop(self, model: Any, optimizer: Any, every: int, controls: Controls) -> Loop:
        """Builds what watches a custom loop in which the optimizer is applied."""

    def release(self, model: Any) -> None:
        """Removes what a `fit` left on the model that ended with an exception.

        Raises:
            RuntimeError: If another monitor takes part in the `fit` that begins.
        """

    # The state of a training: read, kept, restored, assigned.

    def learning_rate(self, optimizer: Any) -> float:
        """The optimizer's own learning rate at this step."""

    def momentum(self, optimizer: Any) -> float:
        """The share of each update that the next one repeats, in [0, 1)."""

    def correct_momentum(self, optimizer: Any, share: float) -> None:
        """Multiplies what is left of earlier updates, after the learning rate was multiplied.

        Reference:
            Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017,
            section 3.
        """

    def build_optimizer(self, model: Any, optimizer: Any) -> None:
        """Makes the optimizer's slots if it has none yet, as its first step would."""

    def snapshot(self, model: Any, optimizer: Any) -> Snapshot:
        """A copy of the training's state as it is now."""

    def assigning(self, model: Any) -> contextlib.AbstractContextManager[None]:
        """Within this context, the host may read the model's variables and assign to them."""

    def weights_norm(self, model: Any) -> Callable[[], float]:
        """A function that gives the Euclidean norm of all trainable weights as they are then."""
