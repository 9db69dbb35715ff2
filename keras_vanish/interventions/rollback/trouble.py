"""Finds reasons to take a run back, and tells which of its states are good."""

from __future__ import annotations

import math
from dataclasses import replace

from keras_vanish.diagnosis.loss_trend import NONFINITE, LossTrend
from keras_vanish.interventions.observation import Observation
from keras_vanish.interventions.rollback.state import RollbackState

#: The run is in trouble after this many steps without an update. A loss scaler finds its scale in
#: fewer.
_STALLED = 40

#: The run is in trouble if gradients explode for this many steps while the loss lies well above its
#: first level, or while the model no longer uses its input.
_WORSE = 50

#: The loss is near its best if it lies above it by at most this share of its progress.
_NEAR = 0.25

#: The same share if units are dead.
_NEAR_DEAD = 0.1


def see(state: RollbackState, observation: Observation) -> RollbackState:
    """Returns the state after one more observation."""
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
    """Returns the reason to take the run back; empty if there is none."""
    trend = state.trend
    # The same trouble soon after a rollback means that the restored state is not the cause.
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
    # At the first observation, going back costs little.
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
    """Returns whether an exploding run no longer uses its input, although it had learned to."""
    return (
        observation.verdict == "exploding"
        and observation.learned is True
        and observation.knows_nothing
    )


def _ruined(state: RollbackState, observation: Observation) -> bool:
    """Returns whether training killed or saturated units, and the loss is bad."""
    if not observation.lost or observation.lost == state.born or observation.verdict != "vanishing":
        return False
    # Dead units can learn nothing any more, so a smaller loss of progress is enough.
    share = _NEAR_DEAD if observation.lost == "dead" else _NEAR
    # If the first losses were large, a constant prediction already lies far below them.
    return observation.knows_nothing or not state.trend.fallen > _NEAR or _far(state.trend, share)


def _far(trend: LossTrend, share: float = _NEAR) -> bool:
    return trend.recent > trend.best + share * abs(trend.first - trend.best)


def _high(trend: LossTrend) -> bool:
    return trend.recent > trend.first + _NEAR * abs(trend.first)


def is_good(state: RollbackState, observation: Observation) -> bool:
    """Returns whether the present state of the run is worth going back to."""
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
    # An unknown loss does not count against the state.
    return not (trend.far_run or trend.back_run or (_far(trend) and trend.fallen > _NEAR))
