"""When the learning rate is lowered, restored and raised."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from keras_vanish.interventions.checks import check_number, check_whole
from keras_vanish.interventions.intervention import Action, Intervention
from keras_vanish.interventions.learning_rate.state import RateState, counted_anew
from keras_vanish.interventions.learning_rate.trouble import (
    is_calm,
    see,
    thrown,
    trouble_of,
    unsettled,
    worse,
)
from keras_vanish.interventions.observation import Observation
from keras_vanish.interventions.policy import RatePolicy

#: A cut below this share is checked at the next look; it was too much where updates are below
#: this share of what it aimed at.
MUCH = 0.1

#: The loss is at its best where it lies above that by no more than this share of it ...
_AT_BEST = 0.1

#: Looking at the input saves this share of the loss: a larger rate has nothing to gain.
_DONE = 0.99

#: Updates may be doubled below this share of what is right.
_SMALL = 0.5

#: What a lowered rate is multiplied by in a trial; and after one that failed.
_STEP, _SMALL_STEP = 2.0, math.sqrt(2.0)


@dataclass(frozen=True)
class LearningRateControl(RatePolicy):
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

    def factor(self, state: RateState) -> float:
        """What the learning rate is multiplied by."""
        return state.factor

    def on_trial(self, state: RateState) -> bool:
        """Whether a larger factor is on probation."""
        return state.on_trial

    def returned(self, state: RateState) -> RateState:
        """The state after the run was given its first weights back: the rate is the user's again.

        Less is enough to act on a run that begins than on one that goes on, so the update ratio
        that is known is kept.
        """
        return replace(self.begin(), ratio=state.ratio)

    def forget(self, state: RateState) -> RateState:
        """The state after the run was taken back to an earlier one: the factor stays."""
        anew = counted_anew(state)
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
            unchecked=share < MUCH,
        )

    def decide(
        self, state: RateState, observation: Observation
    ) -> tuple[RateState, Intervention | None]:
        """The next state, and what is done to the rate, if anything.

        Args:
            state: What `begin` or the look before gave.
            observation: What was seen since.
        """
        state = see(self, state, observation)
        trouble = trouble_of(self, state, observation)
        if trouble is None:
            trouble = worse(self, state)
        if trouble is None:
            trouble = unsettled(self, state)
            if trouble is not None:
                state = replace(state, failed=True)
        if trouble is not None:
            share, reason = trouble
            if state.on_trial:
                factor = min(state.before, max(self.lowest, state.factor * share))
                state = replace(state, failed=True)
                return self._change(state, observation, factor, "take_back_rate", reason)
            factor = max(self.lowest, state.factor * share)
            large = thrown(observation) or observation.saved_by_clipping
            wait = self.cool_down * (1 if large else 2 ** max(0, state.cuts - 1))
            if state.since < wait or factor >= state.factor:
                return replace(state, quiet=0, starved=0, looks=0), None
            state = replace(state, cuts=state.cuts + 1)
            return self._change(state, observation, factor, "lower_rate", reason)
        if 0 < observation.unclipped_ratio < math.inf:
            state = replace(state, ratio=observation.unclipped_ratio)
        if not is_calm(observation):
            return state, None
        if state.unchecked:
            state = replace(state, unchecked=False)
            # Units that are lost get no gradient, however large the rate.
            if (
                0 < observation.update_ratio < MUCH * observation.right_ratio(self.aim)
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
            counted_anew(state),
            factor=factor,
            # What was seen of the loss at the old rate does not count at the new one.
            trend=state.trend.restored(),
            raisable=state.raisable and not down,
            unchecked=factor < MUCH * state.factor,
        )
        if down:
            state = replace(state, before=math.nan, level=math.nan)
        return state, intervention
