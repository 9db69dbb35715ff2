"""What a learning rate that is too large does to a run, as far as it was seen."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from keras_vanish.diagnosis.loss_trend import PROGRESS
from keras_vanish.interventions.learning_rate.state import KEPT, RateState
from keras_vanish.interventions.observation import Observation

if TYPE_CHECKING:
    from keras_vanish.interventions.learning_rate.control import LearningRateControl

#: A run that oscillates because of its learning rate changes its weights by more than this.
_LARGE = 0.001

#: What the factor is multiplied by at once, at least.
_LEAST = 1e-4

#: How many updates tell whether the guard clips most of them.
CLIPPED_UPDATES = 20

#: The loss has come down where its best level has, by this share.
_DOWN = 0.05

#: ... and apart from it above this one.
_APART = 0.25

#: Updates below this share of it throw no run about.
_STILL = 0.01


def see(policy: LearningRateControl, state: RateState, observation: Observation) -> RateState:
    """The state with what was seen since the last look."""
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
    """What to multiply the factor by, and why; None without trouble."""
    trend, ratio = state.trend, observation.unclipped_ratio
    if thrown(observation):
        # What the updates were before the trouble tells better by how much they are too
        # large, unless that did not help.
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
    # Where they are small after it, clipping may be how this run is trained.
    large = observation.update_ratio > observation.right_ratio(policy.aim)
    if most and large and not trend.recent < trend.first:
        return _share(policy, ratio, observation), (
            f"{state.clipped} of {state.updates} updates had to be clipped, are "
            f"{observation.update_ratio:.2g} times the weights nevertheless (median of the "
            "layers), and the loss is not falling"
        )
    return None


def worse(policy: LearningRateControl, state: RateState) -> tuple[float, str] | None:
    """Whether the loss has risen since the factor was raised, while that is on probation."""
    trend, level = state.trend, state.level
    if not state.on_trial:
        return None
    most = max(level, trend.first)
    if state.factor > 1:
        most = level + 0.1 * abs(trend.first)
    elif state.since >= policy.cool_down:
        # At first a larger rate may throw the loss up, and bring it further down then.
        most = level
    if not trend.recent > most:
        return None
    return 1.0, (
        f"the loss rose from {level:.3g} to {trend.recent:.3g} after the rate had been raised"
    )


def unsettled(policy: LearningRateControl, state: RateState) -> tuple[float, str] | None:
    """Whether a run that was lowered before stays where it is, thrown about by its updates."""
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
    return min(policy.cut, max(observation.right_ratio(policy.aim) / ratio, _LEAST))


def thrown(observation: Observation) -> bool:
    """Whether updates as large as the weights are more than one odd batch."""
    agreed = observation.diagnosis is not None and observation.diagnosis.decisive
    return observation.thrown and (agreed or observation.verdict == "exploding")


def is_calm(observation: Observation) -> bool:
    """Whether nothing explodes and nothing was skipped."""
    sick = ("exploding", "nonfinite")
    return (
        observation.diagnosis is not None
        and observation.diagnosis.verdict not in sick
        and observation.verdict not in sick
        and observation.log.skipped == 0
    )
