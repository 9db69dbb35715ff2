"""What the numbers of a policy must be."""

from __future__ import annotations

import math
from typing import Any

import pytest

from keras_vanish.interventions.checks import check_number, check_whole


@pytest.mark.parametrize("value", [2, 3, 10**9])
def test_a_whole_number(value: Any) -> None:
    check_whole("every", value, least=2)


@pytest.mark.parametrize("value", [1, 0, -5, 2.0, True, "3", None, math.nan])
def test_what_is_none(value: Any) -> None:
    with pytest.raises(ValueError, match="every must be") as caught:
        check_whole("every", value, least=2)
    assert f"Received: every={value!r}" in str(caught.value)


@pytest.mark.parametrize("value", [0.5, 1e-9, 0.999])
def test_a_number(value: Any) -> None:
    check_number("cut", value, above=0.0, below=1.0)


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, -0.5, math.nan, math.inf, "0.5", None, True])
def test_what_is_no_number_in_between(value: Any) -> None:
    with pytest.raises(ValueError, match="cut must be") as caught:
        check_number("cut", value, above=0.0, below=1.0)
    assert f"Received: cut={value!r}" in str(caught.value)


def test_a_number_need_not_have_an_upper_bound() -> None:
    check_number("norm", 1e300, above=0.0)
    with pytest.raises(ValueError, match="norm must be"):
        check_number("norm", math.inf, above=0.0)
