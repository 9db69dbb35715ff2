"""The policy of `auto_init`: it re-initialises a run that has not begun to learn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from keras_vanish.diagnosis import THRESHOLD, Diagnosis, LearningProgress, worst
from keras_vanish.diagnosis.loss_trend import LossTrend
from keras_vanish.diagnosis.profiles import activation_profile, growth_by
from keras_vanish.interventions.checks import check_whole
from keras_vanish.interventions.intervention import Intervention
from keras_vanish.interventions.observation import Observation

#: A run has begun to learn once its smoothed loss has fallen by more than this share of its first
#: level.
BEGUN = 0.05

#: If gradients grow towards the input, outputs are far too large. A few samples then dominate the
#: loss, and the share that the input saves is mostly chance. Only a mean share of two readings
#: above this value counts as learning there.
_SURELY = 0.5

#: The number of losses from the first one on that must all be NaN or infinite.
_NONFINITE = 3

#: The number of steps from the first one on in which no update is applied. A loss scaler finds its
#: scale in fewer steps.
_STALLED = 40

#: The fewest observations, and the fewest steps, between two attempts.
_LOOKS, _STEPS = 5, 200


@dataclass(frozen=True)
class ReinitializationState:
    """The state that `Reinitialization` keeps between two observations.

    Attributes:
        trend: The trend of the loss.
        done: The number of re-initialisations so far.
        step: The step of the previous observation.
        looks: The number of observations since the last re-initialisation, or since the beginning.
        since: The number of steps in the same time.
        losses: The number of losses in the same time, finite or not.
        stalled: The number of steps in the same time before the first update; 0 after it.
        applied: Whether an update was applied in the same time.
        grown: Whether gradients grew towards the input in the first reading of that time; None
            before that reading.
        refused: Whether a refusal was reported.
        returned: Whether the run received its first weights back.
        course: What the run has learned in the same time.
        born: How units were lost in the first reading of that time (see `Observation.lost`); None
            before that reading.
        ruined: The number of observations in a row in which units are lost in another way than
            that.
    """

    trend: LossTrend = field(default_factory=LossTrend)
    done: int = 0
    step: int = 0
    looks: int = 0
    since: int = 0
    losses: int = 0
    stalled: int = 0
    applied: bool = False
    grown: bool | None = None
    refused: bool = False
    returned: bool = False
    course: LearningProgress = field(default_factory=LearningProgress)
    born: str | None = None
    ruined: int = 0


@dataclass(frozen=True)
class Reinitialization:
    """Gives new weights to a run that vanishes or explodes before it has learned anything.

    A run has begun to learn once it saves 5% of the loss by using its input, as the probe measures
    it. If that is unknown, it has begun once the smoothed loss has fallen by 5%. From then on the
    policy refuses to re-initialise, and says so once.

    If the last attempt does not help within 200 steps and five observations, the run gets its first
    weights back.

    ```python
    from keras_vanish.interventions import Reinitialization

    GradientMonitor("logs", auto_init=Reinitialization(protect=["embedding"]))
    ```

    Attributes:
        protect: Layers, or names of layers, that keep their weights.
        attempts: The largest number of re-initialisations in one run.

    Raises:
        ValueError: If a field has a wrong type or is out of range.
    """

    protect: Sequence[Any] = ()
    attempts: int = 2

    def __post_init__(self) -> None:
        check_whole("attempts", self.attempts, least=1)
        if isinstance(self.protect, str) or not isinstance(self.protect, Sequence):
            raise ValueError(
                "protect must be a list of layers or of their names. "
                f"Received: protect={self.protect!r}. Write protect=[...]."
            )
        object.__setattr__(self, "protect", tuple(self.protect))
        for layer in self.protect:
            if not isinstance(layer, str) and not isinstance(getattr(layer, "name", None), str):
                raise ValueError(
                    "protect must hold layers or their names. "
                    f"Received: {layer!r} in protect. Give model.get_layer(...) or a name."
                )

    def begin(self) -> ReinitializationState:
        """Returns the state before the first step."""
        return ReinitializationState()

    def decide(
        self, state: ReinitializationState, observation: Observation
    ) -> tuple[ReinitializationState, Intervention | None]:
        """Returns the next state, and the planned intervention or None.

        Args:
            state: The state that `begin` or the previous call returned.
            observation: The run since the previous call.
        """
        state = _seen(state, observation)
        reason = _sick(state, observation)
        if not reason or state.returned:
            return state, None
        begun = _begun(state, observation)
        figures = {
            "vanishing_score": math.nan,
            "exploding_score": math.nan,
            "loss": state.trend.recent,
        }
        if observation.diagnosis is not None:
            figures["vanishing_score"] = observation.diagnosis.vanishing_score
            figures["exploding_score"] = observation.diagnosis.exploding_score
        if begun:
            # While `learned` is unknown, the policy waits: the answer may come soon.
            if (
                state.refused
                or state.done
                or (observation.learned is None and state.looks < _LOOKS)
            ):
                return state, None
            refusal = Intervention(
                observation.step, "refuse_reinitialization", f"{reason} But {begun}.", figures
            )
            return replace(state, refused=True), refusal
        soon = state.looks < _LOOKS or state.since < _STEPS
        if state.done and soon:
            return state, None
        if state.done >= self.attempts:
            act = Intervention(
                observation.step,
                "take_back_weights",
                f"{reason} With the new ones, nothing was learned in {state.since} steps.",
                figures,
            )
            return replace(state, returned=True), act
        act = Intervention(
            observation.step, "reinitialize", f"{reason} Nothing has been learned yet.", figures
        )
        return ReinitializationState(done=state.done + 1, step=observation.step), act


def _seen(state: ReinitializationState, observation: Observation) -> ReinitializationState:
    """Returns the state after one more observation."""
    log, grown = observation.log, state.grown
    if grown is None and observation.diagnosis is not None:
        grown = _grown(observation.diagnosis)
    applied = state.applied or not log.stalled
    course, steps = state.course, observation.steps_since(state.step)
    if observation.diagnosis is not None:
        course = course.after(observation.diagnosis.reading)
    born = state.born
    if born is None and observation.diagnosis is not None:
        born = observation.lost
    return replace(
        state,
        trend=state.trend.after(log.losses),
        looks=state.looks + 1,
        losses=state.losses + len(log.losses),
        stalled=0 if applied else state.stalled + steps,
        since=state.since + steps,
        step=observation.step,
        applied=applied,
        grown=grown,
        course=course,
        born=born,
        ruined=state.ruined + 1 if observation.lost and observation.lost != born else 0,
    )


def _grown(diagnosis: Diagnosis) -> bool:
    """Returns whether gradients grow towards the input, even in layers with huge updates."""
    profile = activation_profile((), diagnosis.reading.activations)
    return worst(growth_by(profile), diagnosis.components["growth"]) >= THRESHOLD


def _sick(state: ReinitializationState, observation: Observation) -> str:
    """Returns the trouble of the run, in sentences; empty if there is none."""
    if state.losses >= _NONFINITE and not state.trend.count:
        return f"All {state.losses} losses so far are NaN or infinite."
    if state.stalled >= _STALLED:
        return f"In the first {state.stalled} steps no update could be applied."
    diagnosis = observation.diagnosis
    if diagnosis is None:
        return ""
    if 0 < state.ruined < _LOOKS:
        # The learning rate ruined these units, not the initialisers. The other policies act first.
        return ""
    if observation.verdict == "vanishing" == diagnosis.verdict:
        return f"{diagnosis.sentence()} The vanishing score is {diagnosis.vanishing_score:.2f}."
    if observation.verdict == "exploding" and diagnosis.cause == "growth":
        return f"{diagnosis.sentence()} The exploding score is {diagnosis.exploding_score:.2f}."
    if (diagnosis.decisive or observation.saved_by_clipping) and state.grown:
        size = f"Updates are {observation.unclipped_ratio:.2g} times the weights, without clipping."
        said = size if observation.saved_by_clipping else diagnosis.sentence()
        return f"{said} From the first step on, gradients grew towards the input."
    return ""


def _begun(state: ReinitializationState, observation: Observation) -> str:
    """Returns why the run counts as having begun to learn; empty if it has not begun."""
    if state.grown and state.course.count and state.course.best < _SURELY:
        return ""
    if observation.learned:
        return "the run has learned something of its input"
    if observation.learned is None and state.trend.fallen > BEGUN:
        return f"the loss has fallen from {state.trend.first:.3g} to {state.trend.best:.3g}"
    return ""
