from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from policy_runs import MakeObservation

from keras_vanish.records.probed import Probed


def test_an_observation_counts_the_steps_since_the_last(make_observation: MakeObservation) -> None:
    assert make_observation(step=9, losses=[1.0] * 8, norms=[1.0] * 2).steps_since(3) == 8
    assert make_observation(step=9, norms=[1.0] * 3).steps_since(3) == 3
    # In a custom loop neither is known.
    assert make_observation(step=9).steps_since(3) == 6
    assert make_observation(step=9).steps_since(9) == make_observation(step=9).steps_since(12) == 1


def test_an_observation_knows_the_update_ratios(make_observation: MakeObservation) -> None:
    observation = make_observation(ratio=[0.1, 0.2, 0.6])
    assert observation.update_ratios == pytest.approx((0.1, 0.2, 0.6))
    assert observation.update_ratio == pytest.approx(0.2)
    missing = make_observation(weight_rms=0.0)
    assert missing.update_ratios == ()
    assert math.isnan(missing.update_ratio)
    assert math.isnan(make_observation(recorded=False).update_ratio)


def test_an_observation_sees_weights_that_are_thrown_about(
    make_observation: MakeObservation,
) -> None:
    assert make_observation(ratio=1.5).thrown
    assert not make_observation(ratio=0.5).thrown
    assert not make_observation(rms=[10.0, 0.1, 1e-3]).thrown  # It explodes otherwise.
    assert not make_observation(ratio=1.5, recorded=False).thrown


def test_an_observation_knows_what_was_clipped_away(make_observation: MakeObservation) -> None:
    # Updates of 0.01 where plain gradient descent makes 20 * 0.05.
    fields: dict[str, Any] = {"ratio": 0.1, "rms": [0.05] * 3, "rate": 20.0, "clipped": 1}
    observation = make_observation(**fields)
    assert observation.unclipped_ratio == pytest.approx(10.0)
    assert observation.saved_by_clipping
    layers = make_observation(**{**fields, "rms": [0.05, 0.1, 0.2], "ratio": [0.1, 0.2, 0.4]})
    assert layers.unclipped_ratio == pytest.approx(20.0)
    for more in (
        {"clipped": 0, "ratio": 2.0},
        {"ratio": [0.1, 0.1, 0.12]},
        {"rate": math.nan},
        {"recorded": False},
        {"rms": [0.0] * 3},
    ):
        other = make_observation(**{**fields, **more})
        assert str(other.unclipped_ratio) == str(other.update_ratio)
        assert not other.saved_by_clipping
    # Momentum makes it no smaller than it is.
    assert make_observation(**{**fields, "rate": 0.01}).unclipped_ratio == pytest.approx(0.1)


def test_an_observation_sees_lost_units(
    make_observation: MakeObservation, make_probed: Callable[..., Probed]
) -> None:
    saturated = make_probed(saturated_fraction=1.0)
    dead = make_probed(dead_fraction=[1.0, 0.0, 0.0], loss=1.0, shuffled_loss=1.0)
    assert make_observation(probed=saturated).lost == "saturated"
    assert make_observation(probed=dead).lost == "dead"
    assert make_observation(probed=dead, recorded=False).lost == ""
    assert make_observation(rms=[1e-9, 1e-6, 1e-3]).lost == ""
    assert make_observation().lost == ""


def test_where_little_is_let_through_nothing_is_saved_by_clipping(
    make_observation: MakeObservation,
) -> None:
    observation = make_observation(ratio=0.005, rms=[0.05] * 3, rate=20.0, clipped=1)
    assert observation.unclipped_ratio == pytest.approx(10.0)
    assert not observation.saved_by_clipping


@pytest.mark.parametrize(
    ("momentum", "right"), [(0.0, 0.01), (0.9, 0.01), (0.95, 0.005), (0.99, 0.001)]
)
def test_much_momentum_makes_the_right_ratio_smaller(
    make_observation: MakeObservation, momentum: float, right: float
) -> None:
    assert make_observation(momentum=momentum).right_ratio(0.01) == pytest.approx(right)


def test_an_observation_knows_what_the_input_saves(
    make_observation: MakeObservation, make_probed: Callable[..., Probed]
) -> None:
    half = make_observation(probed=make_probed(loss=1.0, shuffled_loss=2.0))
    assert half.share == pytest.approx(0.5)
    assert not half.knows_nothing
    nothing = make_observation(probed=make_probed(loss=2.0, shuffled_loss=2.0))
    assert nothing.share == 0.0
    assert nothing.knows_nothing
    for unknown in (make_observation(), make_observation(recorded=False)):
        assert math.isnan(unknown.share)
        assert not unknown.knows_nothing
