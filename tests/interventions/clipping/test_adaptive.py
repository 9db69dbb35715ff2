from __future__ import annotations

import math
from typing import Any

import pytest
from gradient_norms import NORMS, limits
from hypothesis import given

from keras_vanish.interventions import AdaptiveClipping, Limits


def test_the_defaults_of_agc_are_those_of_its_paper() -> None:
    assert AdaptiveClipping() == AdaptiveClipping(clipping=0.01, eps=1e-3)


@given(norms=NORMS)
def test_the_limit_is_that_of_a_units_ratio_whatever_the_norms(norms: list[float]) -> None:
    policy = AdaptiveClipping(clipping=1, eps=2)
    assert policy.after(policy.begin(), norms) is None
    found = limits(policy, norms)
    # The guard clips a unit to the ratio that it fires at: `clips_to` is that of a global norm.
    assert found == Limits(fires_above=1.0, smallest_norm=2.0)
    assert (found.clips_to, found.reach) == (math.inf, math.inf)
    assert isinstance(found.fires_above, float)
    assert isinstance(found.smallest_norm, float)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"clipping": 0.0}, "clipping must be a finite number above 0"),
        ({"eps": None}, "eps must be a finite number above 0"),
    ],
)
def test_fields_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"{message}.*Received: {next(iter(fields))}="):
        AdaptiveClipping(**fields)
