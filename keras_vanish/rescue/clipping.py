"""Applies a clipping policy to the train step, and reports the effect."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from keras_vanish.capture.backend import Guard, GuardLog, GuardSettings
from keras_vanish.interventions import ClippingPolicy, Intervention, Observation
from keras_vanish.rescue.training import Training


class Clipping:
    """Sets the limits of the guard in the train step, and reports the guard's actions.

    Args:
        policy: The clipping policy.

    Attributes:
        policy: The clipping policy.
        state: The policy's state of the run.
        firing: Whether the guard clipped between the last two observations.
    """

    def __init__(self, policy: ClippingPolicy) -> None:
        self.policy = policy
        self.state: Any = policy.begin()
        self.firing = False
        self._guard: Guard | None = None
        self._norm: Callable[[], float] | None = None
        self._training: Training | None = None

    def settings(self, dry_run: bool) -> GuardSettings:
        """Returns the settings with which the guard is built into the train step.

        Args:
            dry_run: Whether the guard only counts and changes no gradient.
        """
        limits = self.policy.limits(self.policy.begin())
        return GuardSettings(enforces=not dry_run, smallest_norm=limits.smallest_norm)

    def enter(self, training: Training) -> None:
        """Starts to act on a training."""
        self._training, self._guard, self._norm = training, training.controls.guard, None

    def leave(self) -> None:
        """Releases the training."""
        self._training = self._guard = self._norm = None

    def read(self) -> GuardLog | None:
        """Returns the guard's actions since the last call; None if the step has no guard."""
        return None if self._guard is None else self._guard.read()

    def account(self, observation: Observation) -> Iterator[Intervention]:
        """Yields the interventions of the guard since the last observation.

        Each skip is one, and so is the first clipping after an observation without any.
        """
        log = observation.log
        if log.skipped:
            steps = max(log.skipped, len(log.norms))
            yield Intervention(
                step=observation.step,
                action="skip",
                reason=f"NaN or Inf in the gradient, in {log.skipped} of {steps} steps",
                after={"skipped": float(log.skipped)},
            )
        if log.clipped and not self.firing:
            largest = max((n for n in log.norms if math.isfinite(n)), default=math.nan)
            yield Intervention(
                step=observation.step,
                action="clip",
                reason=(
                    f"{log.clipped} of {len(log.norms)} updates were beyond the limit, with "
                    f"global norms up to {largest:.3g}"
                ),
                before={"global_norm": largest},
                after={"clipped": float(log.clipped)},
            )
        self.firing = bool(log.clipped)

    def see(self, norms: Iterable[float]) -> None:
        """Shows the policy the gradient norms since the last observation."""
        self.state = self.policy.after(self.state, norms)

    def renew(self) -> None:
        """Makes the policy start again, because the model has received other weights."""
        self.state = self.policy.begin()

    def set_limits(self) -> None:
        """Sets the limits of the guard from the next step on."""
        if self._guard is None or self._training is None:
            return
        limits, reach = self.policy.limits(self.state), math.inf
        if math.isfinite(limits.reach):
            if self._norm is None:
                self._norm = self._training.backend.weights_norm(self._training.model)
            norm = self._norm()
            reach = limits.reach * norm if 0 < norm < math.inf else math.inf
        self._guard.limit(limits.fires_above, limits.clips_to, reach)

    def __getstate__(self) -> dict[str, Any]:
        # A copy takes part in another fit, so it drops everything that belongs to this one.
        return {**vars(self), "_training": None, "_guard": None, "_norm": None}
