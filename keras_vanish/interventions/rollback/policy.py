"""Decides when to keep a good state, and when to take the run back to it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace

from keras_vanish.interventions.checks import check_number, check_whole
from keras_vanish.interventions.intervention import Intervention
from keras_vanish.interventions.observation import Observation
from keras_vanish.interventions.rollback.state import Decision, RollbackState
from keras_vanish.interventions.rollback.trouble import is_good, see, trouble_of

#: The smallest factor that one rollback applies to the learning rate.
LOWEST = 1e-6


@dataclass(frozen=True)
class Rollback:
    """Restores the last good state after NaN or divergence, and lowers the learning rate.

    A state is good if its losses and weights are finite, the loss is near its best, training has
    not killed or saturated units, and no explosion has raised the loss. The run goes back to such a
    state if

    - weights are NaN or infinite, or one update was four times as large as the weights (at the
      first observation: as large as the weights, or would have been without clipping);
    - five losses or gradients in a row are not finite; fewer bad batches are only skipped;
    - no update was applied for 40 steps;
    - training has killed or saturated units, and the run has learned little;
    - the loss diverges: it stays at twice its first level, or loses more than half of its progress;
    - gradients explode for 50 steps, while the loss stays a quarter above its first level or the
      model no longer uses its input.

    If no finite loss follows a rollback, the data are probably to blame. The next rollback then
    needs four times as many bad steps.

    ```python
    from keras_vanish.interventions import Rollback

    GradientMonitor("logs", auto_rollback=Rollback(copies=3, folder="good_states"))
    ```

    Attributes:
        copies: The number of good states that are kept.
        attempts: The number of rollbacks after which further trouble stops the training.
        folder: A folder to which the weights of the last good state are also written. None keeps
            states in memory only.
        every: The fewest steps between two kept states.
        cut: The factor on the learning rate at a rollback: `cut` the first time, `cut**2` the
            second time in a row, and so on.
        aim: The median update ratio that suits the run. If updates were larger, the rate is lowered
            so far that they reach it.
        rearm: The number of steps without a rollback after which all attempts are available again.

    Raises:
        ValueError: If a field has a wrong type or is out of range.
    """

    copies: int = 2
    attempts: int = 5
    folder: str | os.PathLike[str] | None = None
    every: int = 100
    cut: float = 0.5
    aim: float = 0.01
    rearm: int = 1000

    def __post_init__(self) -> None:
        check_whole("copies", self.copies, least=1)
        check_whole("attempts", self.attempts, least=1)
        check_whole("every", self.every, least=1)
        check_number("cut", self.cut, above=0.0, below=1.0)
        check_number("aim", self.aim, above=0.0, below=1.0)
        check_whole("rearm", self.rearm, least=1)
        if self.folder is not None and not isinstance(self.folder, (str, os.PathLike)):
            raise ValueError(f"folder must be a path or None. Received: folder={self.folder!r}.")

    def begin(self, born: str | None = None) -> RollbackState:
        """Returns the state before the first step.

        Args:
            born: How units are lost at that time (see `Observation.lost`). It is empty if the run
                has just received new weights. None leaves it to the first diagnosis.
        """
        return RollbackState(born=born)

    def forget(self, state: RollbackState) -> RollbackState:
        """Returns the state after another policy took the run back to an earlier state."""
        return replace(state, trend=state.trend.restored())

    def returned(self, state: RollbackState) -> RollbackState:
        """Returns the state after the run received its first weights back.

        The policy acts on less evidence at the first observation of a run. The next observation is
        not the first one.
        """
        return replace(state, looks=1)

    def decide(
        self, state: RollbackState, observation: Observation
    ) -> tuple[RollbackState, Decision]:
        """Returns the next state and the decision.

        Args:
            state: The state that `begin` or the previous call returned.
            observation: The run since the previous call.
        """
        state = see(state, observation)
        if state.stopped:
            return state, Decision()
        reason = trouble_of(state, observation)
        if reason:
            return self._restore(state, observation, reason)
        if state.since >= self.rearm:
            state = replace(state, restores=0)
        if 0 < observation.unclipped_ratio < math.inf:
            # `larger` is also True if `state.ratio` is NaN.
            larger = not state.ratio >= observation.unclipped_ratio
            state = replace(state, ratio=observation.unclipped_ratio if larger else state.ratio)
        if state.kept >= self.every and is_good(state, observation):
            return replace(state, kept=0), Decision(keep=True)
        return state, Decision()

    def _restore(
        self, state: RollbackState, observation: Observation, reason: str
    ) -> tuple[RollbackState, Decision]:
        rate = observation.log.rate
        if state.restores >= self.attempts:
            intervention = Intervention(
                step=observation.step,
                action="stop",
                reason=(
                    f"{reason}; the run was taken back {state.restores} times already, each "
                    "time with a lower learning rate, and that did not help. See the advice in "
                    "monitor.summary()"
                ),
                before={"restores": state.restores, "learning_rate": rate},
                after={"restores": state.restores, "learning_rate": rate},
            )
            return replace(state, stopped=True), Decision(stop=True, intervention=intervention)
        # Each rollback in a row cuts more. The updates before the trouble show better than those
        # during it how much too large the rate is.
        factor = self.cut ** (state.restores + 1)
        ratio = state.ratio
        if math.isnan(ratio) and (observation.thrown or observation.saved_by_clipping):
            ratio = observation.unclipped_ratio
        aim = observation.right_ratio(self.aim)
        if ratio * factor > aim:
            factor = max(aim / ratio, LOWEST)
        intervention = Intervention(
            step=observation.step,
            action="roll_back",
            reason=reason,
            before={"restores": state.restores, "learning_rate": rate},
            after={"restores": state.restores + 1, "learning_rate": rate * factor},
        )
        state = replace(
            state,
            trend=state.trend.restored(),
            ratio=ratio * factor,
            restores=state.restores + 1,
            since=0,
            barren=state.barren + 1,
            kept=0,
            skipped=0,
            stalled=0,
            worse=0,
            forgotten=0,
        )
        return state, Decision(restore=True, factor=factor, intervention=intervention)
