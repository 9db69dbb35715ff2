"""Runs that a rollback watches, and what it decides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from policy_runs import decisions

from keras_vanish.interventions import Decision, Observation, Rollback

ROLLBACK = Rollback()
CALM = [2.0] * 50


def run(
    observations: Iterable[Observation], rollback: Rollback = ROLLBACK
) -> tuple[Any, list[Decision]]:
    """The last state, and all decisions."""
    return decisions(rollback, observations)


def last(observations: Iterable[Observation], rollback: Rollback = ROLLBACK) -> Decision:
    return run(observations, rollback)[1][-1]


def restored(decision: Decision) -> str:
    """Why the run was taken back; empty if it was not."""
    if not decision.restore:
        assert decision.intervention is None
        return ""
    assert decision.intervention is not None
    assert decision.intervention.action == "roll_back"
    assert not decision.keep
    assert not decision.stop
    return decision.intervention.reason
