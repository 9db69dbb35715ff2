"""What a policy decides in the course of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from keras_vanish.interventions import Intervention, Observation

#: What the fixture `make_observation` is.
MakeObservation = Callable[..., Observation]


def decisions(
    policy: Any, observations: Iterable[Observation], state: Any = None
) -> tuple[Any, list[Any]]:
    """The last state, and what was decided after each observation.

    Args:
        policy: What decides.
        observations: What it is given, one after the other.
        state: What it begins with; None: as it does in a new run.
    """
    state, found = policy.begin() if state is None else state, []
    for observation in observations:
        state, decision = policy.decide(state, observation)
        found.append(decision)
    return state, found


def actions(found: Iterable[Intervention | None]) -> list[str]:
    """What was done, without the observations after which nothing was."""
    return [act.action for act in found if act is not None]
