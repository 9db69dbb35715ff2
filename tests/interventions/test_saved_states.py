from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_vanish.diagnosis import LearningProgress
from keras_vanish.interventions import (
    LearningRateControl,
    LossTrend,
    Reinitialization,
    Rollback,
    ZScoreClipping,
)
from keras_vanish.interventions.rollback import RollbackState
from keras_vanish.interventions.saved_states import parsed, plain


@dataclass(frozen=True)
class Everything:
    trend: LossTrend
    course: LearningProgress
    names: tuple[str, ...]
    counts: Mapping[int, int]
    sure: bool | None


FLOATS = st.floats(allow_nan=False) | st.just(math.inf)

COUNTS = st.integers(0, 1000)


@given(
    st.builds(
        Everything,
        st.builds(
            LossTrend, COUNTS, FLOATS, FLOATS, FLOATS, st.lists(FLOATS).map(tuple), COUNTS, COUNTS
        ),
        st.builds(LearningProgress, COUNTS, FLOATS, FLOATS),
        st.lists(st.text()).map(tuple),
        st.dictionaries(st.integers(-1000, 1000), COUNTS),
        st.sampled_from([True, False, None]),
    )
)
def test_what_is_made_plain_is_parsed(value: Everything) -> None:
    through_a_file = json.loads(json.dumps(plain(value), allow_nan=False))
    assert parsed(Everything, through_a_file) == value


@pytest.mark.parametrize(
    "state",
    [
        policy.begin()
        for policy in (ZScoreClipping(), LearningRateControl(), Rollback(), Reinitialization())
    ],
)
def test_each_policy_has_a_state_that_comes_back(state: Any) -> None:
    through_a_file = json.loads(json.dumps(plain(state), allow_nan=False))
    found = parsed(type(state), through_a_file)
    assert repr(found) == repr(state)  # NaN is not equal to itself.


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, True),
        (int, 1.0),
        (int, -1),
        (int, 2**60),
        (int, "1"),
        (float, "1"),
        (float, None),
        (float, True),
        (float, 10**400),
        (bool, 1),
        (str, 1),
        (bool | None, "x"),
        (tuple[float, ...], 1),
        (tuple[float, ...], [[1.0]]),
        (tuple[float, ...], [1.0] * 10**5),
        (Mapping[int, int], []),
        (Mapping[int, int], {"x": 1}),
        (Mapping[int, int], {"9" * 10: 1}),
        (Mapping[int, int], {"1": -1}),
        (LearningProgress, {}),
        (LearningProgress, []),
        (LearningProgress, {"count": 1, "share": 1.0, "best": 1.0, "more": 1}),
        (LearningProgress, {"count": [[[[]]]], "share": 1.0, "best": 1.0}),
    ],
)
def test_what_plain_does_not_make_is_an_error(kind: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=r"is not what it holds|no key of it|invalid literal"):
        parsed(kind, value)


@pytest.mark.parametrize("name", ["barren", "restores"])
def test_powers_are_raised_to_no_number_that_a_file_chooses(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=100000 is not"):
        parsed(RollbackState, plain(replace(RollbackState(), **{name: 100_000})))
