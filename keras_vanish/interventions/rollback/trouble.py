"""Why a run must be taken back, and which of its states are good."""

from __future__ import annotations

import math
from dataclasses import replace

from keras_vanish.diagnosis.loss_trend import NONFINITE, LossTrend
from keras_vanish.interventions.observation import Observation
from keras_vanish.interventions.rollback.state import RollbackState

#: For how many train steps no update may be applied: a loss scaler finds its scale in fewer.
_STALLED = 40

#: For how many steps gradients must explode, and the loss lie well above its first level or all
#: that was learned be lost.
_WORSE = 50

#: The loss is near its best where it lies above it by no more than this share of its progress.
_NEAR = 0.25

#: The same, where units are dead.
_NEAR_DEAD = 0.1


def see(state: RollbackState, observation: Observation) -> RollbackState:
    """The state with what was seen since the last look."""
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


def trouble_of(state: RollbackState, observation: Observation) -> str:
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


def is_good(state: RollbackState, observation: Observation) -> bool:
    """Whether the state of the run is one to go back to."""
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
