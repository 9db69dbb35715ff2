from __future__ import annotations

import math

import pytest
from factories import MakeProbed, MakeReading
from hypothesis import given
from hypothesis import strategies as st

from keras_vanish.diagnosis.progress import LEARNED_SHARE, PATIENCE, LearningProgress, learned_share


@pytest.mark.smoke
def test_what_looking_at_the_input_saves(make_probed: MakeProbed) -> None:
    def of(loss: float, shuffled: float) -> float:
        return learned_share(make_probed(loss=loss, shuffled_loss=shuffled))

    assert of(2.0, 2.0) == 0.0
    assert of(0.0, 2.0) == 1.0
    assert of(1.9, 2.0) == pytest.approx(0.05)
    assert of(3.0, 2.0) == -0.5
    # Losses below zero.
    assert of(-2.0, -1.0) == 1.0
    assert of(-1.0, -2.0) == -0.5
    for unknown in ((math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, 0.0), (0.0, 0.0)):
        assert math.isnan(of(*unknown))
    assert math.isnan(learned_share(None))


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.integers(-30, 30))
def test_a_constant_factor_changes_no_share(
    make_probed: MakeProbed, loss: float, shuffled: float, exponent: int
) -> None:
    # Powers of two are exact, but for numbers near the end of the range.
    loss, shuffled = round(loss, 6), round(shuffled, 6)
    factor = 2.0**exponent
    one = learned_share(make_probed(loss=loss, shuffled_loss=shuffled))
    other = learned_share(make_probed(loss=loss * factor, shuffled_loss=shuffled * factor))
    assert other == pytest.approx(one, rel=1e-12, nan_ok=True)


def course_of(
    make_reading: MakeReading, make_probed: MakeProbed, shares: list[float]
) -> LearningProgress:
    course = LearningProgress()
    for share in shares:
        probed = make_probed(loss=1.0 - share, shuffled_loss=1.0)
        course = course.after(make_reading(probed=probed))
    return course


@pytest.mark.smoke
def test_a_course_of_known_shares(make_reading: MakeReading, make_probed: MakeProbed) -> None:
    assert course_of(make_reading, make_probed, [0.5]) == LearningProgress(1, 0.5, -math.inf)
    assert course_of(make_reading, make_probed, [0.25, 0.75, 0.0]) == LearningProgress(3, 0.0, 0.5)


@pytest.mark.smoke
def test_that_nothing_was_learned_is_not_told_at_once(
    make_reading: MakeReading, make_probed: MakeProbed
) -> None:
    def learned(*shares: float) -> bool | None:
        return course_of(make_reading, make_probed, list(shares)).learned

    assert LearningProgress().learned is None
    assert learned(*[0.0] * (PATIENCE - 1)) is None
    assert learned(*[0.0] * PATIENCE) is False
    # The mean of two counts: a share that is high by chance is halved.
    assert learned(1.0) is None
    assert learned(0.0, 2 * LEARNED_SHARE - 0.001) is None
    assert learned(0.0, 2 * LEARNED_SHARE + 0.001) is True
    assert learned(*[-1.0] * PATIENCE, LEARNED_SHARE, LEARNED_SHARE + 0.001) is True


shares_of = st.lists(st.floats(-1, 1), max_size=8)


@given(shares_of, shares_of)
def test_what_was_learned_stays_learned(
    make_reading: MakeReading, make_probed: MakeProbed, before: list[float], after: list[float]
) -> None:
    if course_of(make_reading, make_probed, before).learned:
        assert course_of(make_reading, make_probed, before + after).learned


@pytest.mark.smoke
@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, None])
def test_a_reading_that_does_not_tell_changes_no_course(
    make_reading: MakeReading, make_probed: MakeProbed, loss: float | None
) -> None:
    course = course_of(make_reading, make_probed, [0.0, 0.1, 0.0])
    for before in (LearningProgress(), course):
        probed = None if loss is None else make_probed(loss=loss)
        assert before.after(make_reading(probed=probed)) is before
        if loss is not None:
            assert before.after(make_reading(probed=make_probed(shuffled_loss=loss))) is before
