from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numerics import noisy

from keras_vanish.diagnosis.loss_trend import (
    BACK_STEPS,
    FAR_STEPS,
    FIRST,
    LEVEL,
    NONFINITE,
    WINDOW,
    LossTrend,
)

LOSSES = st.lists(st.floats(-1e6, 1e6) | st.just(math.nan) | st.just(math.inf), max_size=150)

noisy_losses = functools.partial(noisy, spread=0.5)


def of(losses: Sequence[float]) -> LossTrend:
    return LossTrend().after(losses)


@given(losses=LOSSES, cut=st.integers(0, 150))
def test_it_does_not_matter_when_the_losses_are_looked_at(losses: list[float], cut: int) -> None:
    whole, parts = of(losses), of(losses[:cut]).after(losses[cut:])
    assert str(whole) == str(parts)


@given(losses=LOSSES, exponent=st.integers(-40, 40))
def test_a_positive_factor_changes_the_levels_only(losses: list[float], exponent: int) -> None:
    factor = 2.0**exponent
    trend, scaled = of(losses), of([factor * loss for loss in losses])
    assert str(scaled.recent) == str(factor * trend.recent)
    assert str(scaled.fallen) == str(trend.fallen)
    for name in ("nonfinite", "diverged", "oscillating"):
        assert getattr(scaled, name) == getattr(trend, name)


@given(losses=LOSSES)
def test_what_is_kept_is_bounded_and_what_was_is_left_alone(losses: list[float]) -> None:
    trend = of(losses)
    kept = astuple(trend)
    trend.after(losses)
    assert str(astuple(trend)) == str(kept)
    assert len(trend.tail) <= WINDOW


def test_levels_are_medians() -> None:
    trend = of([5.0] * 4 + [1e6] + [5.0] * 5)
    assert trend.first == trend.best == trend.recent == 5.0
    assert math.isnan(of([5.0] * (FIRST - 1)).recent)
    later = trend.after([1.0] * LEVEL)
    assert (later.first, later.best, later.recent) == (5.0, 1.0, 1.0)
    assert later.fallen == pytest.approx(0.8)


def test_what_has_fallen_is_not_known_at_first() -> None:
    assert math.isnan(of([5.0] * (FIRST - 1)).fallen)
    assert of([0.0] * FIRST).fallen == 0.0
    assert of([-1.0] * FIRST + [-3.0] * LEVEL).fallen == pytest.approx(2.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_it_takes_several_bad_losses_in_a_row(bad: float) -> None:
    before = of([2.0] * 30)
    assert not before.after([bad] * (NONFINITE - 1)).nonfinite
    assert before.after([bad] * NONFINITE).nonfinite
    assert not before.after([bad, 2.0] * 20).nonfinite
    assert not before.after([bad] * NONFINITE + [2.0]).nonfinite
    assert before.after([bad] * 9).recent == 2.0


def test_a_loss_far_above_its_first_level_diverges() -> None:
    before = of(noisy_losses(2.0, 50))
    # The median of the last losses is late by half of them.
    assert not before.after(noisy_losses(9.0, FAR_STEPS // 2)).diverged
    assert before.after(noisy_losses(9.0, FAR_STEPS + LEVEL)).diverged
    assert not before.after(noisy_losses(2.5, 500)).diverged
    assert not before.after([100.0, 2.0, 2.0] * 50).diverged


def test_the_noise_of_the_first_losses_counts() -> None:
    # The loss of a converged run is mostly tiny.
    first = [0.01] * 8 + [0.03, 0.07]
    assert not of(first).after([0.06] * 500).diverged
    assert of(first).after([0.08] * 500).diverged
    # A single one that is out of all measure does not.
    assert not of([0.01] * 9 + [1e6]).after([0.09] * 500).diverged
    assert of([0.01] * 9 + [1e6]).after([0.11] * 500).diverged


def test_a_loss_that_goes_back_half_way_diverges() -> None:
    before = of(noisy_losses(2.0, 50) + noisy_losses(0.1, 50))
    assert not before.after(noisy_losses(1.8, BACK_STEPS // 2)).diverged
    assert before.after(noisy_losses(1.8, BACK_STEPS + LEVEL)).diverged
    assert not before.after(noisy_losses(0.5, 500)).diverged


def test_where_little_was_won_little_can_be_lost() -> None:
    assert not of(noisy_losses(2.0, 50) + noisy_losses(1.5, 50) + noisy_losses(2.0, 300)).diverged


def test_negative_losses_diverge_too() -> None:
    before = of([-1.0] * 20 + [-9.0] * 50)
    assert not before.after([-8.0] * 300).diverged
    assert before.after([-2.0] * 300).diverged
    assert of([-1.0] * 20 + [0.5] * 50).diverged


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_a_falling_loss_are_calm(seed: int) -> None:
    losses = [
        loss * 0.99**step + loss * 0.01
        for step, loss in enumerate(noisy_losses(2.0, 2000, seed=seed))
    ]
    trend = LossTrend()
    for loss in losses:
        trend = trend.after([loss])
        assert not trend.nonfinite
        assert not trend.diverged
        assert not trend.oscillating


def test_a_loss_that_goes_up_and_down_oscillates() -> None:
    swings = [
        2.0 + (-1) ** step * 0.5 + 0.05 * loss for step, loss in enumerate(noisy_losses(1, 200))
    ]
    assert of(swings).oscillating
    assert not of(swings[: WINDOW - 1]).oscillating
    # Slower swings are not the learning rate's.
    assert not of([2.0 + (-1) ** (step // 8) for step in range(200)]).oscillating
    assert not of([2.0] * 200).oscillating
    assert of([1e200 * loss for loss in swings]).oscillating


def test_a_loss_that_has_come_down_may_go_up_and_down() -> None:
    swings = [(-1) ** step * 0.5 for step in range(100)]
    assert not of([3.0] * FIRST + [2.0 + swing for swing in swings]).oscillating
    assert of([2.0] * FIRST + [2.0 + swing for swing in swings]).oscillating


def test_a_restored_run_keeps_its_levels_only() -> None:
    bad = of(
        noisy_losses(2.0, 50)
        + noisy_losses(0.1, 50)
        + noisy_losses(9.0, 200)
        + [math.nan] * NONFINITE
    )
    assert bad.diverged
    assert bad.nonfinite
    restored = bad.restored()
    assert (restored.first, restored.best) == (bad.first, bad.best)
    assert not restored.diverged
    assert not restored.nonfinite
    assert math.isnan(restored.recent)
    assert restored.after(noisy_losses(9.0, 100)).diverged
