"""Runs whose learning rate is controlled, and what the policy does to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from policy_runs import MakeObservation, decisions

from keras_vanish.interventions import LearningRateControl, Observation
from keras_vanish.interventions.learning_rate import RateState

CONTROL = LearningRateControl()
CALM = [2.0] * 10


def run(observations: Iterable[Observation], control: LearningRateControl = CONTROL) -> Any:
    """The last state, and all interventions."""
    state, found = decisions(control, observations)
    return state, [act for act in found if act is not None]


def lowered(make_observation: MakeObservation, **more: Any) -> RateState:
    """Lowered to a half, because the loss had risen far; it was at its best with 2."""
    observations = [make_observation(losses=[4.0] * 10), make_observation(losses=[2.0] * 40)]
    state, (act,) = run([*observations, make_observation(losses=[9.0] * 40)])
    assert (act.action, state.factor, state.trend.best) == ("lower_rate", 0.5, 2.0)
    return dataclasses.replace(state, **more)


def decided(state: RateState, observations: Iterable[Observation], control: Any = CONTROL) -> Any:
    """The last state, and what was done after each observation."""
    state, found = decisions(control, observations, state)
    return state, [None if act is None else act.action for act in found]


def on_trial(make_observation: MakeObservation) -> RateState:
    """Doubled from 0.125 a moment ago, with a loss of 2; it was 4 at first."""
    state, done = decided(
        lowered(make_observation, factor=0.125), [make_observation(losses=CALM)] * 5
    )
    assert (done[-1], state.factor) == ("restore_rate", 0.25)
    return state


def starved(make_observation: MakeObservation, **more: Any) -> Observation:
    fields: dict[str, Any] = {"losses": CALM, "ratio": 1e-7, "learned": False}
    return make_observation(**{**fields, **more})
