"""What a policy is given, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from keras_vanish.interventions import Observation
from keras_vanish.records.probed import Probed
from keras_vanish.records.step_log import StepLog

Make = Callable[..., Observation]
NOTHING = Observation(10, None, "unknown", None, StepLog())


def test_steps_are_counted_by_what_was_seen_of_each(make_observation: Make) -> None:
    assert make_observation(step=50, losses=[1.0] * 7, norms=[1.0] * 3).steps_since(10) == 7
    assert make_observation(step=50, norms=[1.0] * 3).steps_since(10) == 3
    # Otherwise by the axis, on which a restored run may stand still.
    assert NOTHING.steps_since(4) == 6
    assert NOTHING.steps_since(10) == NOTHING.steps_since(40) == 1


def test_the_ratio_is_the_median_of_those_that_are_known(make_observation: Make) -> None:
    seen = make_observation(ratio=[0.001, math.nan, 0.01], rms=[1e-3] * 3)
    assert seen.update_ratios == pytest.approx((0.001, 0.01))
    assert seen.update_ratio == pytest.approx(0.0055)
    assert NOTHING.update_ratios == ()
    assert math.isnan(NOTHING.update_ratio)


@pytest.mark.parametrize(
    ("momentum", "share"), [(0.0, 1.0), (0.5, 1.0), (0.9, 1.0), (0.99, 0.1), (0.999, 0.01)]
)
def test_with_much_momentum_a_smaller_ratio_is_right(
    momentum: float, share: float, make_observation: Make
) -> None:
    assert make_observation(momentum=momentum).right_ratio(0.02) == pytest.approx(0.02 * share)


def test_the_ratio_without_clipping(make_observation: Make) -> None:
    # Plain gradient descent at a rate of 0.1, cut to a tenth of it.
    cut = {"rms": [1.0] * 3, "ratio": 0.1, "rate": 0.1}
    clipped = make_observation(clipped=1, **cut)
    assert clipped.update_ratio == pytest.approx(0.1)
    assert clipped.unclipped_ratio == pytest.approx(1.0)
    # Not where nothing was clipped, the rate is not known, or the update does not go along.
    assert make_observation(**cut).unclipped_ratio == pytest.approx(0.1)
    unknown = make_observation(clipped=1, **(cut | {"rate": math.nan}))
    assert unknown.unclipped_ratio == pytest.approx(0.1)
    across = make_observation(clipped=1, **(cut | {"ratio": [0.1, 0.2, 0.1]}))
    assert across.unclipped_ratio == pytest.approx(0.1)
    # A rate that explains less than what was seen is not that of the update.
    slow = make_observation(clipped=1, **(cut | {"rate": 1e-6}))
    assert slow.unclipped_ratio == pytest.approx(0.1)


def test_whether_clipping_saved_the_weights(make_observation: Make) -> None:
    cut = {"rms": [1.0] * 3, "ratio": 0.1, "rate": 0.1}
    assert make_observation(clipped=1, **cut).saved_by_clipping
    assert not make_observation(**cut).saved_by_clipping
    # What was let through is small: this may be how the run is trained.
    small = cut | {"ratio": 0.005}
    assert make_observation(clipped=1, **small).unclipped_ratio == pytest.approx(1.0)
    assert not make_observation(clipped=1, **small).saved_by_clipping


def test_whether_an_update_threw_the_weights_away(make_observation: Make) -> None:
    assert make_observation(ratio=1e3).thrown
    assert not make_observation(ratio=0.001).thrown
    assert not make_observation(ratio=1e3, recorded=False).thrown


def test_what_was_learned_now(make_observation: Make, make_probed: Callable[..., Probed]) -> None:
    nothing = make_observation(probed=make_probed(loss=2.0, shuffled_loss=2.0))
    much = make_observation(probed=make_probed(loss=0.5, shuffled_loss=2.0))
    assert (nothing.share, nothing.knows_nothing) == (0.0, True)
    assert (much.share, much.knows_nothing) == (0.75, False)
    for unknown in (make_observation(), NOTHING):
        assert math.isnan(unknown.share)
        assert not unknown.knows_nothing


def test_units_that_are_lost(make_observation: Make, make_probed: Callable[..., Probed]) -> None:
    dead = make_probed(rms=[0, 0, 1.0], dead_fraction=[0, 0, 1.0])
    assert make_observation(probed=dead).lost == "dead"
    assert make_observation(probed=dead, recorded=False).lost == ""
    assert make_observation().lost == ""
    assert make_observation(rms=[1e-12, 1e-11, 1e-3]).lost == ""
