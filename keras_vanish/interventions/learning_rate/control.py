"""Decides when to lower, restore and raise the learning rate."""

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

#: A cut below this share is checked at the next observation. It was too deep if updates are then
#: below this share of the right ratio.
MUCH = 0.1

#: The loss is at its best if it exceeds its best level by at most this share.
_AT_BEST = 0.1

#: A model that saves this share of the loss by using its input gains nothing from a larger rate.
_DONE = 0.99

#: The rate may be doubled if updates are below this share of the right ratio.
_SMALL = 0.5

#: The factor of a trial, and of a trial after one that failed.
_STEP, _SMALL_STEP = 2.0, math.sqrt(2.0)


@dataclass(frozen=True)
class LearningRateControl(RatePolicy):
    """Multiplies the learning rate by a factor, which is 1 at first.

    The optimizer's own rate or schedule does not change. An update ratio is the size of an update
    divided by the size of the weights.

    The factor is lowered, at least down to `cut` times its value,

    - if an update is as large as the weights, or the first one would have been without clipping: at
      once, so far that the median update ratio reaches `aim`;
    - if most steps are clipped, the clipped updates still exceed `aim`, and the loss does not fall:
      equally far;
    - if the loss diverges, or oscillates without progress;
    - in a run that was lowered, taken back or given new weights before: if the loss has not come
      down for twice `cool_down` steps, while updates exceed `aim` or the loss lies a quarter above
      its best.

    After a change, the factor is not lowered for `cool_down` steps. This time doubles with each cut
    in a row. A cut to less than a tenth is checked at the next observation, and corrected if
    updates are then far below `aim`.

    A lowered factor is doubled on trial, up to 1, after `cool_down` steps without trouble. This
    needs updates that are usually below half of `aim`, a loss at its best, and something left to
    learn. The trial fails if trouble returns within `cool_down` steps, or if the loss is higher
    after them. The factor is then taken back, with `auto_rollback` the weights too. The next trial
    follows after `calm` steps and is smaller.

    The factor rises above 1, tenfold at most, if updates are too small to matter in every layer:
    gradients reach all layers, all update ratios are below `tiny`, nothing was learned, the loss
    has not fallen, and the rate is not warming up. If trouble returns within `calm` steps or the
    loss rises, this is taken back for good.

    `aim` suits a momentum of up to 0.9. Above that, it shrinks by `10 * (1 - momentum)`, because
    the total effect of one gradient is `1 / (1 - momentum)` times its first update.

    ```python
    from keras_vanish.interventions import LearningRateControl

    GradientMonitor("logs", auto_lr=LearningRateControl(highest=1.0))  # Never raises the rate.
    ```

    Attributes:
        aim: The median update ratio that suits a run.
        cut: The factor of a cut if no update ratio tells how far to lower the rate.
        cool_down: The number of steps after a change in which the rate is not lowered further.
        calm: The number of steps without trouble before the rate is raised, or tried again after a
            failed trial. It is also the wait if the loss is unknown, as in a custom loop.
        tiny: If all update ratios are below this value, updates are too small to matter.
        lowest: The smallest value of the factor.
        highest: The largest value of the factor. With 1, the rate is never raised.

    Raises:
        ValueError: If a field is out of range.
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
        """Returns the state before the first step."""
        return RateState()

    def factor(self, state: RateState) -> float:
        """Returns the factor on the learning rate."""
        return state.factor

    def on_trial(self, state: RateState) -> bool:
        """Returns whether a larger factor is on trial."""
        return state.on_trial

    def returned(self, state: RateState) -> RateState:
        """Returns the state after the run received its first weights back.

        The factor is 1 again. The known update ratio is kept, because the policy acts on less
        evidence while it is unknown.
        """
        return replace(self.begin(), ratio=state.ratio)

    def forget(self, state: RateState) -> RateState:
        """Returns the state after the run went back to an earlier one. The factor stays."""
        anew = counted_anew(state)
        return replace(anew, trend=state.trend.restored(), before=math.nan, level=math.nan)

    def renewed(self, state: RateState) -> RateState:
        """Returns the state after the run received new weights.

        The rate was not chosen for these weights.
        """
        return replace(self.forget(state), renewed=True)

    def lowered(self, state: RateState, share: float) -> RateState:
        """Returns the state after a rollback lowered the rate.

        Args:
            state: The state before.
            share: The factor that the rollback applied to the rate.
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
        """Returns the next state, and the change to the rate or None.

        Args:
            state: The state that `begin` or the previous call returned.
            observation: The run since the previous call.
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
            # Dead or saturated units get no gradient, however large the rate is.
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
        """Tries a larger rate if updates are small and the loss is at its best."""
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
        """Corrects a cut that was too deep because an unusual batch called for it."""
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
            # Losses at the old rate do not count at the new one.
            trend=state.trend.restored(),
            raisable=state.raisable and not down,
            unchecked=factor < MUCH * state.factor,
        )
        if down:
            state = replace(state, before=math.nan, level=math.nan)
        return state, intervention
