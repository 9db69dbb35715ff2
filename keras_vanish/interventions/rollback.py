"""When a good state is kept, and when the run is taken back to it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace

from keras_vanish.diagnosis.loss_trend import NONFINITE, LossTrend
from keras_vanish.interventions.checks import check_number, check_whole
from keras_vanish.interventions.intervention import Intervention
from keras_vanish.interventions.observation import Observation

#: For how many train steps no update may be applied: a loss scaler finds its scale in fewer.
_STALLED = 40

#: What the learning rate is multiplied by, at least.
LOWEST = 1e-6

#: For how many steps gradients must explode, and the loss lie well above its first level or all
#: that was learned be lost.
_WORSE = 50

#: The loss is near its best where it lies above it by no more than this share of its progress.
_NEAR = 0.25

#: The same, where units are dead.
_NEAR_DEAD = 0.1


@dataclass(frozen=True)
class Decision:
    """What to do after a look, in this order.

    Attributes:
        restore: Take the run back to the last good state.
        stop: Stop the training.
        keep: This is a good state: copy it.
        factor: What to multiply the learning rate by, after restoring.
        intervention: The record of it; None where nothing was done but keeping.
    """

    keep: bool = False
    restore: bool = False
    stop: bool = False
    factor: float = 1.0
    intervention: Intervention | None = None


@dataclass(frozen=True)
class RollbackState:
    """What `Rollback` keeps from look to look.

    Attributes:
        trend: Where the loss is going.
        restores: How often the run was taken back, since the last long calm.
        step: Of the look before.
        since: Steps since the run was taken back.
        barren: How often in a row it was taken back and no finite loss came after.
        kept: Steps since a state was kept.
        skipped: How many of the last updates in a row were skipped.
        stalled: For how many steps no update was applied.
        stopped: Whether the training was stopped.
        ratio: The largest median update ratio at looks without trouble since the run was taken
            back; NaN before one.
        born: What was wrong with the units at the first reading; None before it.
        looks: How many looks there were.
        worse: For how many steps gradients have exploded, with the loss well above its first level.
        forgotten: For how many steps they have, and nothing is known any more of what was learned.
    """

    trend: LossTrend = field(default_factory=LossTrend)
    restores: int = 0
    step: int = 0
    since: int = 0
    barren: int = 0
    kept: float = math.inf
    skipped: int = 0
    stalled: int = 0
    stopped: bool = False
    ratio: float = math.nan
    born: str | None = None
    looks: int = 0
    worse: int = 0
    forgotten: int = 0


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

    def decide(
        self, state: RollbackState, observation: Observation
    ) -> tuple[RollbackState, Decision]:
        """The next state, and what to do.

        Args:
            state: What `begin` or the look before gave.
            observation: What was seen since.
        """
        state = _seen(state, observation)
        if state.stopped:
            return state, Decision()
        reason = _trouble(state, observation)
        if reason:
            return self._restore(state, observation, reason)
        if state.since >= self.rearm:
            state = replace(state, restores=0)
        if 0 < observation.unclipped_ratio < math.inf:
            # NaN is not larger than anything.
            larger = not state.ratio >= observation.unclipped_ratio
            state = replace(state, ratio=observation.unclipped_ratio if larger else state.ratio)
        if state.kept >= self.every and _good(state, observation):
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


def _seen(state: RollbackState, observation: Observation) -> RollbackState:
    log, steps = observation.log, observation.steps_since(state.step)
    finite = any(map(math.isfinite, log.losses or log.norms))
    skipped = state.skipped
    for norm in log.norms:
        skipped = 0 if math.isfinite(norm) else skipped + 1
    trend = state.trend.after(log.losses)
    return replace(
        state,
        trend=trend,
        since=state.since + steps,
        barren=0 if finite else state.barren,
        step=observation.step,
        kept=state.kept + steps,
        skipped=skipped,
        stalled=state.stalled + steps if log.stalled else 0,
        looks=state.looks + 1,
        worse=state.worse + steps if observation.verdict == "exploding" and _high(trend) else 0,
        forgotten=state.forgotten + steps if _forgets(observation) else 0,
        born=observation.lost
        if state.born is None and observation.diagnosis is not None
        else state.born,
    )


def _trouble(state: RollbackState, observation: Observation) -> str:
    """Why the run must be taken back; empty if it need not."""
    trend = state.trend
    # Soon after a restoring the same again means that the restored state is not the cause.
    wanted = NONFINITE * 4**state.barren
    if trend.nonfinite_run >= wanted:
        return f"the last {trend.nonfinite_run} losses are NaN or infinite"
    if state.skipped >= wanted:
        return f"the gradients of the last {state.skipped} updates are NaN or infinite"
    if state.stalled >= _STALLED * 4**state.barren:
        return f"no update was applied for {state.stalled} steps"
    if (
        observation.diagnosis is not None
        and observation.diagnosis.cause == "variables"
        and not state.barren
    ):
        lost = observation.diagnosis.blame
        return f"the weights of {len(lost)} layers are NaN or infinite, first {lost[0]}"
    # Going back costs little at the first look.
    decisive = observation.diagnosis is not None and observation.diagnosis.decisive
    if observation.thrown and (decisive or state.looks == 1):
        return (
            f"one update was {observation.update_ratio:.2g} times as large as the weights "
            "(median of the layers)"
        )
    if observation.saved_by_clipping and state.looks == 1:
        return (
            "had it not been clipped, the update would have been "
            f"{observation.unclipped_ratio:.2g} times as large as the weights (median of the "
            "layers)"
        )
    if _ruined(state, observation):
        assert observation.diagnosis is not None
        return f"training itself led to this: {observation.diagnosis.sentence()}"
    if trend.diverged:
        return (
            f"the loss diverges: it is {trend.recent:.3g}, after {trend.best:.3g} at best and "
            f"{trend.first:.3g} at first"
        )
    if state.worse >= _WORSE:
        return (
            f"gradients have exploded for {state.worse} steps, and the loss is "
            f"{trend.recent:.3g}, after {trend.first:.3g} at first"
        )
    if state.forgotten >= _WORSE:
        return (
            f"gradients have exploded for {state.forgotten} steps, and of what was learned of the "
            "input nothing is left"
        )
    return ""


def _forgets(observation: Observation) -> bool:
    """Whether the run had learned of its input, and explodes and knows nothing of it."""
    return (
        observation.verdict == "exploding"
        and observation.learned is True
        and observation.knows_nothing
    )


def _ruined(state: RollbackState, observation: Observation) -> bool:
    """Whether units died or were saturated by training, and the loss is bad."""
    if not observation.lost or observation.lost == state.born or observation.verdict != "vanishing":
        return False
    # Through dead units nothing can be learned any more, so less must have been lost.
    share = _NEAR_DEAD if observation.lost == "dead" else _NEAR
    # Where the first losses were large, that of a constant prediction is far below them.
    return observation.knows_nothing or not state.trend.fallen > _NEAR or _far(state.trend, share)


def _far(trend: LossTrend, share: float = _NEAR) -> bool:
    return trend.recent > trend.best + share * abs(trend.first - trend.best)


def _high(trend: LossTrend) -> bool:
    return trend.recent > trend.first + _NEAR * abs(trend.first)


def _good(state: RollbackState, observation: Observation) -> bool:
    trend, log = state.trend, observation.log
    if (
        observation.diagnosis is None
        or observation.thrown
        or (observation.lost and observation.lost != state.born)
    ):
        return False
    if "nonfinite" in (observation.verdict, observation.diagnosis.verdict):
        return False
    if observation.verdict == "exploding" and (_high(trend) or _forgets(observation)):
        return False
    if log.stalled or log.skipped or not all(map(math.isfinite, (*log.losses, *log.norms))):
        return False
    # Where little is known of the loss, nothing is known against it.
    return not (trend.far_run or trend.back_run or (_far(trend) and trend.fallen > _NEAR))
