from __future__ import annotations

import dataclasses
import math

import pytest

from keras_vanish.interventions import Decision
from keras_vanish.interventions.rollback import RollbackState


def test_by_default_nothing_is_done() -> None:
    assert Decision() == Decision(
        keep=False, restore=False, stop=False, factor=1.0, intervention=None
    )


def test_at_first_the_next_good_state_is_kept_and_nothing_is_known() -> None:
    state = RollbackState()
    # However many steps must lie between two kept states.
    assert state.kept == math.inf
    assert math.isnan(state.ratio)
    # Not the empty string, which says that the units are well.
    assert state.born is None
    assert not state.stopped
    counts = ("restores", "step", "since", "barren", "skipped", "stalled", "looks", "worse")
    assert {getattr(state, name) for name in (*counts, "forgotten")} == {0}


@pytest.mark.parametrize("record", [Decision(), RollbackState()])
def test_they_are_values(record: object) -> None:
    assert dataclasses.replace(record) == record  # type: ignore[type-var]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, dataclasses.fields(record)[0].name, 1)  # type: ignore[arg-type]
