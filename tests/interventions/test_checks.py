"""The texts of errors, and what is let through."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_vanish.interventions.checks import check_number, check_whole


@pytest.mark.parametrize("value", [2, 2.0, True, "3", None])
def test_a_field_that_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="size must be a whole number, at least 3. Received: size"):
        check_whole("size", value, 3)
    check_whole("size", 3, 3)


@pytest.mark.parametrize("value", [0, 1, math.nan, math.inf, -1.0, True, "0.5", None])
def test_a_field_out_of_its_limits_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="share must be a finite number above 0 and below 1. Rec"):
        check_number("share", value, above=0.0, below=1.0)
    check_number("share", 0.5, above=0.0, below=1.0)
    check_number("share", 5, above=0.0)


def test_an_error_says_what_is_wanted_and_what_was_received() -> None:
    with pytest.raises(ValueError, match="copies") as error:
        check_whole("copies", "two", 1)
    assert str(error.value) == (
        "copies must be a whole number, at least 1. Received: copies='two'."
    )
    with pytest.raises(ValueError, match="reach") as error:
        check_number("reach", -2, above=0.0)
    assert str(error.value) == "reach must be a finite number above 0. Received: reach=-2."
    with pytest.raises(ValueError, match="decay") as error:
        check_number("decay", None, above=0.25, below=0.5)
    assert str(error.value) == (
        "decay must be a finite number above 0.25 and below 0.5. Received: decay=None."
    )


@given(value=st.integers(), least=st.integers())
def test_whole_numbers_are_let_through_from_the_least_on(value: int, least: int) -> None:
    if value >= least:
        check_whole("field", value, least)
    else:
        with pytest.raises(ValueError, match=f"at least {least}. Received: field={value}"):
            check_whole("field", value, least)


@given(
    value=st.floats() | st.integers(-9, 9),
    above=st.floats(-9, 9),
    below=st.just(math.inf) | st.floats(-9, 9),
)
def test_numbers_are_let_through_between_the_two(value: float, above: float, below: float) -> None:
    if above < value < below:
        check_number("field", value, above, below)
    else:
        with pytest.raises(ValueError, match="field must be a finite number above"):
            check_number("field", value, above, below)
