"""When the learning rate is lowered, restored and raised."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from statistics import median

from keras_vanish.diagnosis.loss_trend import PROGRESS, LossTrend
from keras_vanish.interventions.checks import check_number, check_whole
from keras_vanish.interventions.intervention import Action, Intervention
from keras_vanish.interventions.observation import Observation

#: A run that oscillates because of its learning rate changes its weights by more than this.
_LARGE = 0.001

#: What the factor is multiplied by at once, at least.
_LEAST = 1e-4

#: How many updates tell whether the guard clips most of them.
_CLIPPED_UPDATES = 20

#: A cut below this share is checked at the next look; it was too much where updates are below
#: this share of what it aimed at.
_MUCH = 0.1

#: How many of the last update ratios are kept, and how many of them tell what is usual.
_KEPT, _ENOUGH = 5, 3

#: The loss has come down where its best level has, by this share.
_DOWN = 0.05

#: The loss is at its best where it lies above that by no more than this share of it ...
_AT_BEST = 0.1

#: ... and apart from it above this one.
_APART = 0.25

#: Looking at the input saves this share of the loss: a larger rate has nothing to gain.
_DONE = 0.99

#: Updates may be doubled below this share of what is right.
_SMALL = 0.5

#: Updates below this share of it throw no run about.
_STILL = 0.01

#: What a lowered rate is multiplied by in a trial; and after one that failed.
_STEP, _SMALL_STEP = 2.0, math.sqrt(2.0)


@dataclass(frozen=True)
class RateState:
    """What `LearningRateControl` keeps from look to look.

    Attributes:
        factor: What the learning rate is multiplied by.
        trend: Where the loss is going.
        step: Of the look before.
        since: Steps since the factor changed.
        quiet: Steps since there was trouble, or the factor changed.
        cuts: How often it was lowered with no calm between.
        failed: Whether a larger rate was tried and failed, or the last one was too large.
        before: The factor before the last restoring or raising, while that is on probation.
        level: The loss then.
        updates: Updates since the guard's clipping was last judged.
        clipped: How many of those it clipped.
        base: The learning rate without the factor.
        starved: For how many steps the run has been starved evenly.
        looks: For how many looks.
        ratio: The median update ratio at the last look without trouble; NaN before one.
        raisable: Whether the rate may be raised: it never had to be lowered.
        renewed: Whether the weights are not those that the rate was chosen for.
        unchecked: Whether it was lowered by much and no update has been seen since.
        ratios: The last median update ratios since the factor changed.
        low: The best level of the loss since then, but for small steps.
        still: For how many steps that has not come down.
    """

    factor: float = 1.0
    trend: LossTrend = field(default_factory=LossTrend)
    step: int = 0
    since: float = math.inf
    quiet: int = 0
    cuts: int = 0
    failed: bool = False
    before: float = math.nan
    level: float = math.nan
    updates: int = 0
    clipped: int = 0
    base: float = math.nan
    starved: int = 0
    looks: int = 0
    ratio: float = math.nan
    raisable: bool = True
    renewed: bool = False
    unchecked: bool = False
    ratios: tuple[float, ...] = ()
    low: float = math.inf
    still: int = 0

    @property
    def on_trial(self) -> bool:
        """Whether a larger factor is on probation."""
        return not math.isnan(self.before)

    @property
    def usual_ratio(self) -> float:
        """The usual median update ratio since the factor changed; NaN where it is not known."""
        return median(self.ratios) if len(self.ratios) >= _ENOUGH else math.nan


@dataclass(frozen=True)
class LearningRateControl:
    """Multiplies the learning rate by a factor, 1 at first, whatever else sets the rate.

    It is lowered, and then left alone for `cool_down` steps (twice as many each time
    that this did not help):

    - at once where an update is as large as the weights, or the first one would have been had
      the guard not clipped it: so far that the median update ratio becomes `aim`;
    - as far where the guard clips most of the steps, what it lets through is still above
      `aim`, and the loss does not fall;
    - to `cut` of what it is where the loss diverges, and where it oscillates and nothing is
      learned;
    - in a run that was lowered before, taken back or given new weights, to `cut` of what it is
      where the loss has not come down for twice `cool_down` steps, while updates are above
      `aim`, or the loss lies a quarter above its best.

    A cut to less than a tenth is checked at the next look, and corrected if updates are far below
    `aim` then: the batch that called for it was an odd one.

    After `cool_down` steps without trouble a lowered rate is doubled on trial, up to 1, where
    updates are usually below half of `aim`, the loss is at its best, and there is something to
    be learned yet. A trial has failed if trouble comes back in as many steps, or the loss is
    higher at their end: then the rate is taken back, with `auto_rollback` the weights too, and
    the next, smaller step is tried after `calm` steps.

    The factor is raised above 1, by ten at most, where the run is starved evenly: healthy by
    depth, all update ratios below `tiny`, nothing learned, the loss no lower, and no warm-up
    going on. If trouble comes back within `calm` steps, or the loss rises, that is taken back
    for good.

    `aim` is that of a momentum up to 0.9. Above, it is less, by `10 * (1 - momentum)`: what one
    gradient does adds up to `1 / (1 - momentum)` of its first update.

    Attributes:
        aim: The median update ratio that is right for a run.
        cut: What the rate is multiplied by where no figure tells by how much to lower it.
        cool_down: Steps after a change in which it is not lowered further.
        calm: Steps without trouble before it is restored or raised.
        tiny: A run whose update ratios are all below this is starved.
        lowest: The factor is never below this.
        highest: The factor is never above this; 1: the rate is never raised.
    """

    aim: float = 0.01
    cut: float = 0.5
    cool_down: int = 50
    calm: int = 200
    tiny: float = 1e-5
    lowest: float = 1e-6
    highest: float = 1000.0

    def __post_init__(self) -> None:
        check_number("aim", self.aim, above=0.0, below=1.0)
        check_number("cut", self.cut, above=0.0, below=1.0)
        check_whole("cool_down", self.cool_down, least=1)
        check_whole("calm", self.calm, least=1)
        check_number("tiny", self.tiny, above=0.0, below=1.0)
        check_number("lowest", self.lowest, above=0.0, below=1.0)
        check_number("highest", self.highest, above=0.0)
        if self.highest < 1:
            raise ValueError(
                f"highest must be at least 1, the factor that changes nothing. Received: "
                f"highest={self.highest!r}."
            )

    def begin(self) -> RateState:
        """The state before the first step."""
        return RateState()

    def forget(self, state: RateState) -> RateState:
        """The state after the run was taken back to an earlier one: the factor stays."""
        anew = _counted_anew(state)
        return replace(anew, trend=state.trend.restored(), before=math.nan, level=math.nan)

    def renewed(self, state: RateState) -> RateState:
        """The state after the run was given new weights: the rate was chosen for others."""
        return replace(self.forget(state), renewed=True)

    def lowered(self, state: RateState, share: float) -> RateState:
        """The state after the run was taken back, and the rate lowered with it.

        Args:
            state: The state before.
            share: What the rate was multiplied by.
        """
        factor = max(self.lowest, state.factor * share)
        return replace(
            self.forget(state),
            factor=factor,
            failed=state.failed or state.on_trial,
            raisable=False,
            unchecked=share < _MUCH,
        )

    def decide(
        self, state: RateState, observation: Observation
    ) -> tuple[RateState, Intervention | None]:
        """The next state, and what is done to the rate, if anything.

        Args:
            state: What `begin` or the look before gave.
            observation: What was seen since.
        """
        state = self._seen(state, observation)
        trouble = self._trouble(state, observation)
        if trouble is None:
            trouble = self._worse(state)
        if trouble is None:
            trouble = self._unsettled(state)
            if trouble is not None:
                state = replace(state, failed=True)
        if trouble is not None:
            share, reason = trouble
            if state.on_trial:
                factor = min(state.before, max(self.lowest, state.factor * share))
                state = replace(state, failed=True)
                return self._change(state, observation, factor, "take_back_rate", reason)
            factor = max(self.lowest, state.factor * share)
            large = _thrown(observation) or observation.saved_by_clipping
            wait = self.cool_down * (1 if large else 2 ** max(0, state.cuts - 1))
            if state.since < wait or factor >= state.factor:
                return replace(state, quiet=0, starved=0, looks=0), None
            state = replace(state, cuts=state.cuts + 1)
            return self._change(state, observation, factor, "lower_rate", reason)
        if 0 < observation.unclipped_ratio < math.inf:
            state = replace(state, ratio=observation.unclipped_ratio)
        if not _calm(observation):
            return state, None
        if state.unchecked:
            state = replace(state, unchecked=False)
            # Units that are lost get no gradient, however large the rate.
            if (
                0 < observation.update_ratio < _MUCH * observation.right_ratio(self.aim)
                and not observation.lost
            ):
                return self._correct(state, observation)
        probation = self.calm if state.factor > 1 else self.cool_down
        if state.quiet >= probation and state.on_trial:
            state = replace(state, before=math.nan, level=math.nan, failed=False)
        if state.quiet >= self.calm:
            state = replace(state, cuts=0)
        if state.factor < 1:
            return self._restored(state, observation)
        if state.starved >= self.calm and state.looks >= 3 and state.factor < self.highest:
            largest = max(observation.update_ratios)
            share = min(10.0, self.aim / 10 / largest if largest else math.inf)
            factor = min(state.factor * share, self.highest)
            reason = (
                f"no update is larger than {largest:.1e} of a layer's weights, nothing was "
                f"learned in {state.starved} steps, and gradients reach every layer"
            )
            state = replace(state, before=state.factor, level=state.trend.recent)
            return self._change(state, observation, factor, "raise_rate", reason)
        return state, None

    def _restored(
        self, state: RateState, observation: Observation
    ) -> tuple[RateState, Intervention | None]:
        """Tries a larger rate, where updates are small and the loss is at its best."""
        trend, ratio = state.trend, state.usual_ratio
        blind = trend.count == 0  # As in a custom training loop.
        wait = self.calm if state.failed or blind else self.cool_down
        small = ratio < _SMALL * observation.right_ratio(self.aim)
        at_best = blind or trend.recent <= trend.best + _AT_BEST * abs(trend.best)
        if (
            state.quiet < wait
            or not small
            or not at_best
            or observation.share > _DONE
            or observation.lost
        ):
            return state, None
        step = _SMALL_STEP if state.failed else _STEP
        reason = (
            f"no trouble for {state.quiet} steps, updates were only {ratio:.2g} times the weights"
        )
        if not blind:
            reason += f", and the loss is at its best, {trend.recent:.3g}"
        state = replace(state, before=state.factor, level=trend.recent)
        return self._change(
            state, observation, min(1.0, step * state.factor), "restore_rate", reason
        )

    def _correct(
        self, state: RateState, observation: Observation
    ) -> tuple[RateState, Intervention]:
        """Takes back what a cut was too much: the batch that called for it was an odd one."""
        ratio = observation.update_ratio
        factor = min(1.0, state.factor * observation.right_ratio(self.aim) / (2 * ratio))
        reason = f"it was lowered too far: updates are {ratio:.2g} times the weights now"
        return self._change(state, observation, factor, "restore_rate", reason)

    def _seen(self, state: RateState, observation: Observation) -> RateState:
        log, steps = observation.log, observation.steps_since(state.step)
        base = log.rate / state.factor
        rising = not base <= state.base * (1 + 1e-6)
        judged = state.updates >= _CLIPPED_UPDATES
        trend = state.trend.after(log.losses)
        won = (trend.first - trend.recent) / abs(trend.first) if trend.first else math.nan
        starved = (
            state.raisable
            and observation.learned is False
            and observation.diagnosis is not None
            and observation.diagnosis.verdict == observation.verdict == "healthy"
            and max(observation.update_ratios, default=math.inf) < self.tiny
            and won < 0.01
            and 0 < base < math.inf
            and not rising
        )
        ratio, low, still = observation.update_ratio, state.low, state.still + steps
        if not trend.best > low - _DOWN * abs(low):
            low, still = trend.best, 0
        return replace(
            state,
            ratios=(*state.ratios, ratio)[-_KEPT:] if ratio == ratio else state.ratios,
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

    def _trouble(self, state: RateState, observation: Observation) -> tuple[float, str] | None:
        """What to multiply the factor by, and why; None without trouble."""
        trend, ratio = state.trend, observation.unclipped_ratio
        if _thrown(observation):
            # What the updates were before the trouble tells better by how much they are too
            # large, unless that did not help.
            known = ratio if math.isnan(state.ratio) or state.cuts else state.ratio
            count = sum(value >= 1 for value in observation.update_ratios)
            return self._share(known, observation), (
                f"one update changed the weights of {count} layers by more than they are; "
                f"the median change is {ratio:.2g} times the weights"
            )
        if observation.saved_by_clipping and math.isnan(state.ratio):
            return self._share(ratio, observation), (
                "had it not been clipped, one of the first updates would have been "
                f"{ratio:.2g} times as large as the weights (median of the layers)"
            )
        if trend.diverged:
            return self.cut, (
                f"the loss diverges: it is {trend.recent:.3g}, after {trend.best:.3g} at best "
                f"and {trend.first:.3g} at first"
            )
        if trend.oscillating and ratio > _LARGE:
            return self.cut, (
                f"the loss goes up and down from step to step, around {trend.recent:.3g}, "
                f"and was {trend.first:.3g} at first"
            )
        most = state.updates >= _CLIPPED_UPDATES and 2 * state.clipped > state.updates
        # Where they are small after it, clipping may be how this run is trained.
        large = observation.update_ratio > observation.right_ratio(self.aim)
        if most and large and not trend.recent < trend.first:
            return self._share(ratio, observation), (
                f"{state.clipped} of {state.updates} updates had to be clipped, are "
                f"{observation.update_ratio:.2g} times the weights nevertheless (median of the "
                "layers), and the loss is not falling"
            )
        return None

    def _worse(self, state: RateState) -> tuple[float, str] | None:
        """Whether the loss has risen since the factor was raised, while that is on probation."""
        trend, level = state.trend, state.level
        if not state.on_trial:
            return None
        most = max(level, trend.first)
        if state.factor > 1:
            most = level + 0.1 * abs(trend.first)
        elif state.since >= self.cool_down:
            # At first a larger rate may throw the loss up, and bring it further down then.
            most = level
        if not trend.recent > most:
            return None
        return 1.0, (
            f"the loss rose from {level:.3g} to {trend.recent:.3g} after the rate had been raised"
        )

    def _unsettled(self, state: RateState) -> tuple[float, str] | None:
        """Whether a run that was lowered before stays where it is, thrown about by its updates."""
        if (state.raisable and not state.renewed) or state.still < 2 * self.cool_down:
            return None
        trend, ratio = state.trend, state.usual_ratio
        apart = trend.fallen > PROGRESS and trend.recent > trend.best + _APART * abs(trend.best)
        if ratio > self.aim or (apart and ratio > _STILL * self.aim):
            return self.cut, (
                f"the loss has not come down for {state.still} steps; it is {trend.recent:.3g}, "
                f"after {trend.best:.3g} at best, with updates of {ratio:.2g} times the weights"
            )
        return None

    def _share(self, ratio: float, observation: Observation) -> float:
        return min(self.cut, max(observation.right_ratio(self.aim) / ratio, _LEAST))

    def _change(
        self, state: RateState, observation: Observation, factor: float, action: Action, reason: str
    ) -> tuple[RateState, Intervention]:
        down = factor < state.factor
        intervention = Intervention(
            step=observation.step,
            action=action,
            reason=reason,
            before={"factor": state.factor, "learning_rate": state.base * state.factor},
            after={"factor": factor, "learning_rate": state.base * factor},
        )
        state = replace(
            _counted_anew(state),
            factor=factor,
            # What was seen of the loss at the old rate does not count at the new one.
            trend=state.trend.restored(),
            raisable=state.raisable and not down,
            unchecked=factor < _MUCH * state.factor,
        )
        if down:
            state = replace(state, before=math.nan, level=math.nan)
        return state, intervention


def _counted_anew(state: RateState) -> RateState:
    return replace(
        state,
        since=0,
        quiet=0,
        updates=0,
        clipped=0,
        starved=0,
        looks=0,
        ratios=(),
        low=math.inf,
        still=0,
    )


def _thrown(observation: Observation) -> bool:
    agreed = observation.diagnosis is not None and observation.diagnosis.decisive
    return observation.thrown and (agreed or observation.verdict == "exploding")


def _calm(observation: Observation) -> bool:
    sick = ("exploding", "nonfinite")
    return (
        observation.diagnosis is not None
        and observation.diagnosis.verdict not in sick
        and observation.verdict not in sick
        and observation.log.skipped == 0
    )
