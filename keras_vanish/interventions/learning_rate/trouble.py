"""Finds signs that the learning rate is too large."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from keras_vanish.diagnosis.loss_trend import PROGRESS
from keras_vanish.interventions.learning_rate.state import KEPT, RateState
from keras_vanish.interventions.observation import Observation

if TYPE_CHECKING:
    from keras_vanish.interventions.learning_rate.control import LearningRateControl

#: A run that oscillates because of its learning rate has update ratios above this value.
_LARGE = 0.001

#: The smallest factor of one cut.
_LEAST = 1e-4

#: The number of updates that show whether most of them are clipped.
CLIPPED_UPDATES = 20

#: The loss has come down if its best level has fallen by this share.
_DOWN = 0.05

#: The loss has moved away from its best level if it exceeds it by this share.
_APART = 0.25

#: Updates below this share of `aim` are too small to unsettle a run.
_STILL = 0.01


def see(policy: LearningRateControl, state: RateState, observation: Observation) -> RateState:
    """Returns the state after one more observation."""
    log, steps = observation.log, observation.steps_since(state.step)
    base = log.rate / state.factor
    rising = not base <= state.base * (1 + 1e-6)
    judged = state.updates >= CLIPPED_UPDATES
    trend = state.trend.after(log.losses)
    won = (trend.first - trend.recent) / abs(trend.first) if trend.first else math.nan
    starved = (
        state.raisable
        and observation.learned is False
        and observation.diagnosis is not None
        and observation.diagnosis.verdict == observation.verdict == "healthy"
        and max(observation.update_ratios, default=math.inf) < policy.tiny
        and won < 0.01
        and 0 < base < math.inf
        and not rising
    )
    ratio, low, still = observation.update_ratio, state.low, state.still + steps
    if not trend.best > low - _DOWN * abs(low):
        low, still = trend.best, 0
    return replace(
        state,
        ratios=(*state.ratios, ratio)[-KEPT:] if ratio == ratio else state.ratios,
        low=low,
        still=still,
        trend=trend,
        step=observation.step,
        since=state.since + steps,
        quiet=state.quiet + steps,
        updates=len(log.norms) + (0 if judged else state.updates),
        clipped=log.clipped + (0 if judged else state.clipped),
        base=base,
        starved=state.starved + steps if starved else 0,
        looks=state.looks + 1 if starved else 0,
    )


def trouble_of(
    policy: LearningRateControl, state: RateState, observation: Observation
) -> tuple[float, str] | None:
    """Returns the factor of a cut and the reason for it; None without trouble."""
    trend, ratio = state.trend, observation.unclipped_ratio
    if thrown(observation):
        # The updates before the trouble show better how much too large the rate is, unless a cut
        # based on them did not help.
        known = ratio if math.isnan(state.ratio) or state.cuts else state.ratio
        count = sum(value >= 1 for value in observation.update_ratios)
        return _share(policy, known, observation), (
            f"one update changed the weights of {count} layers by more than they are; "
            f"the median change is {ratio:.2g} times the weights"
        )
    if observation.saved_by_clipping and math.isnan(state.ratio):
        return _share(policy, ratio, observation), (
            "had it not been clipped, one of the first updates would have been "
            f"{ratio:.2g} times as large as the weights (median of the layers)"
        )
    if trend.diverged:
        return policy.cut, (
            f"the loss diverges: it is {trend.recent:.3g}, after {trend.best:.3g} at best "
            f"and {trend.first:.3g} at first"
        )
    if trend.oscillating and ratio > _LARGE:
        return policy.cut, (
            f"the loss goes up and down from step to step, around {trend.recent:.3g}, "
            f"and was {trend.first:.3g} at first"
        )
    most = state.updates >= CLIPPED_UPDATES and 2 * state.clipped > state.updates
    # If updates are small after clipping, the run may rely on clipping all the time.
    large = observation.update_ratio > observation.right_ratio(policy.aim)
    if most and large and not trend.recent < trend.first:
        return _share(policy, ratio, observation), (
            f"{state.clipped} of {state.updates} updates had to be clipped, are "
            f"{observation.update_ratio:.2g} times the weights nevertheless (median of the "
            "layers), and the loss is not falling"
        )
    return None


def worse(policy: LearningRateControl, state: RateState) -> tuple[float, str] | None:
    """Returns a factor of 1 and a reason if the loss has risen during a trial; otherwise None."""
    trend, level = state.trend, state.level
    if not state.on_trial:
        return None
    most = max(level, trend.first)
    if state.factor > 1:
        most = level + 0.1 * abs(trend.first)
    elif state.since >= policy.cool_down:
        # A larger rate may raise the loss at first and bring it further down later.
        most = level
    if not trend.recent > most:
        return None
    return 1.0, (
        f"the loss rose from {level:.3g} to {trend.recent:.3g} after the rate had been raised"
    )


def unsettled(policy: LearningRateControl, state: RateState) -> tuple[float, str] | None:
    """Returns a factor and a reason if updates keep a lowered run from settling; otherwise None."""
    if (state.raisable and not state.renewed) or state.still < 2 * policy.cool_down:
        return None
    trend, ratio = state.trend, state.usual_ratio
    apart = trend.fallen > PROGRESS and trend.recent > trend.best + _APART * abs(trend.best)
    if ratio > policy.aim or (apart and ratio > _STILL * policy.aim):
        return policy.cut, (
            f"the loss has not come down for {state.still} steps; it is {trend.recent:.3g}, "
            f"after {trend.best:.3g} at best, with updates of {ratio:.2g} times the weights"
        )
    return None


def _share(policy: LearningRateControl, ratio: float, observation: Observation) -> float:
    """Returns the factor that brings the update ratio to the right one, within its bounds."""
    return min(policy.cut, max(observation.right_ratio(policy.aim) / ratio, _LEAST))


def thrown(observation: Observation) -> bool:
    """Returns whether updates as large as the weights are more than one unusual batch."""
    agreed = observation.diagnosis is not None and observation.diagnosis.decisive
    return observation.thrown and (agreed or observation.verdict == "exploding")


def is_calm(observation: Observation) -> bool:
    """Returns whether nothing explodes and no step was skipped."""
    sick = ("exploding", "nonfinite")
    return (
        observation.diagnosis is not None
        and observation.diagnosis.verdict not in sick
        and observation.verdict not in sick
        and observation.log.skipped == 0
    )
