from __future__ import annotations

import math
from typing import Any

import pytest
from gradient_norms import NORMS, limits
from hypothesis import given

from keras_vanish.interventions import Limits, NormClipping


def test_a_norm_is_always_the_same() -> None:
    assert limits(NormClipping(2), [1e9] * 50) == Limits(2.0, 2.0)


@given(norms=NORMS)
def test_the_norms_do_not_matter(norms: list[float]) -> None:
    policy = NormClipping(0.5)
    assert policy.after(policy.begin(), norms) is None
    assert limits(policy, norms) == Limits(fires_above=0.5, clips_to=0.5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm": math.nan}, "norm must be a finite number above 0"),
    ],
)
def test_fields_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"{message}.*Received: {next(iter(fields))}="):
        NormClipping(**fields)
