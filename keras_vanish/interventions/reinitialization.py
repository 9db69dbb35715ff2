"""When a run is re-initialised: only where it has not begun to learn."""

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

#: A run whose smoothed loss fell by more than this share of its first level has begun to learn.
BEGUN = 0.05

#: Where outputs are far too large, the loss is that of a few samples, and what the input seems to
#: save of it is chance. There this share of it, the mean of two readings, has been learned.
_SURELY = 0.5

#: How many losses in a row, from the first one on, must not be finite.
_NONFINITE = 3

#: For how many steps, from the first one on, no update may be applied: a loss scaler finds its
#: scale in fewer.
_STALLED = 40

#: How many looks there are at least between two attempts, and how many steps.
_LOOKS, _STEPS = 5, 200


@dataclass(frozen=True)
class ReinitializationState:
    """What `Reinitialization` keeps from look to look.

    Attributes:
        trend: Where the loss is going.
        done: How often the run was re-initialised.
        step: Of the look before.
        looks: Looks since it was done, or since the beginning.
        since: Steps since then.
        losses: Losses seen since then, finite or not.
        stalled: For how many steps since then no update was applied; 0 once one was.
        applied: Whether one was.
        grown: Whether the gradients grew towards the input in the first reading since then.
        refused: Whether a refusal was reported.
        returned: Whether the first weights were given back.
        course: What was learned since then.
        born: What was wrong with the units at the first reading since then; None before it.
        ruined: For how many looks something else has been.
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
    """Re-initialises a run that is diagnosed to vanish or explode before it has learned anything.

    The run has begun to learn once looking at its input saves 5% of the loss (the probe tells),
    or, where that is not known, once the smoothed loss has fallen by 5%. Then nothing is
    re-initialised, which is said once.

    Where the last attempt does not help either, for as long as between two of them, the run gets
    its first weights back.

    Attributes:
        protect: Layers that are left alone, or their names.
        attempts: How often a run is re-initialised at most.
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
        """The state before the first step."""
        return ReinitializationState()

    def decide(
        self, state: ReinitializationState, observation: Observation
    ) -> tuple[ReinitializationState, Intervention | None]:
        """The next state, and whether the run is re-initialised.

        Args:
            state: What `begin` or the look before gave.
            observation: What was seen since.
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
            # Where it is not known yet what was learned, it may be soon.
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
    """Whether gradients grow towards the input, in layers too that are thrown about."""
    profile = activation_profile((), diagnosis.reading.activations)
    return worst(growth_by(profile), diagnosis.components["growth"]) >= THRESHOLD


def _sick(state: ReinitializationState, observation: Observation) -> str:
    """What is wrong with the run, in sentences; empty if nothing is."""
    if state.losses >= _NONFINITE and not state.trend.count:
        return f"All {state.losses} losses so far are NaN or infinite."
    if state.stalled >= _STALLED:
        return f"In the first {state.stalled} steps no update could be applied."
    diagnosis = observation.diagnosis
    if diagnosis is None:
        return ""
    if 0 < state.ruined < _LOOKS:
        # Not the initialisers did it but the learning rate: others may know what to do.
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
    """Why the run is held to have begun to learn; empty if it has not."""
    if state.grown and state.course.count and state.course.best < _SURELY:
        return ""
    if observation.learned:
        return "the run has learned something of its input"
    if observation.learned is None and state.trend.fallen > BEGUN:
        return f"the loss has fallen from {state.trend.first:.3g} to {state.trend.best:.3g}"
    return ""
