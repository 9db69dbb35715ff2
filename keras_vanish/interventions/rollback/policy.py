"""When a good state is kept, and when the run is taken back to it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace

from keras_vanish.interventions.checks import check_number, check_whole
from keras_vanish.interventions.intervention import Intervention
from keras_vanish.interventions.observation import Observation
from keras_vanish.interventions.rollback.state import Decision, RollbackState
from keras_vanish.interventions.rollback.trouble import is_good, see, trouble_of

#: What the learning rate is multiplied by, at least.
LOWEST = 1e-6


@dataclass(frozen=True)
class Rollback:
    """Takes the run back to its last good state on NaN or divergence, and lowers the rate.

    A state is good where the loss is finite and near its best and nothing explodes. The run is
    taken back to one

    - where weights are NaN or infinite, or one update was four times as large as they are
      (the very first one: as large);
    - where several losses or gradients in a row are not finite: single bad batches are
      skipped and no more;
    - where units died or were saturated by training, and little is learned;
    - where the loss diverges: it stays at twice its first level, or loses more than half of
      what it had won;
    - where gradients explode, and the loss stays a quarter above its first level, or looking at
      the input saves nothing of it any more.

    Where no finite loss follows a restoring, the data are to blame rather than the state: four
    times as many steps must be bad before the next.

    Attributes:
        copies: How many good states are kept.
        attempts: How often the run is taken back before training is stopped.
        folder: Where to write the last good state too; None: in memory only.
        every: Steps between two kept states, at least.
        cut: What the learning rate is multiplied by when the run is taken back; its square the
            second time in a row, and so on.
        aim: The median update ratio that it is lowered to at once where updates were larger.
        rearm: After so many steps without restoring, all attempts are given back.
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
        """The state before the first step.

        Args:
            born: What is wrong with the units then: nothing (empty) where they were just given new
                weights. None: the first look tells, at the first step of a `fit`.
        """
        return RollbackState(born=born)

    def forget(self, state: RollbackState) -> RollbackState:
        """The state after another policy took the run back to an earlier one."""
        return replace(state, trend=state.trend.restored())

    def returned(self, state: RollbackState) -> RollbackState:
        """The state after the run was given its first weights back.

        Less is enough to act on a run that begins than on one that goes on: so the next look is
        not the first one.
        """
        return replace(state, looks=1)

    def decide(
        self, state: RollbackState, observation: Observation
    ) -> tuple[RollbackState, Decision]:
        """The next state, and what to do.

        Args:
            state: What `begin` or the look before gave.
            observation: What was seen since.
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
            # NaN is not larger than anything.
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
        # Each time in a row by more. What the updates were before the trouble tells better by
        # how much they are too large than what they are in the middle of it.
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
