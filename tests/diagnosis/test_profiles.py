from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from diagnosis_helpers import Close, Falling
from factories import MakeProbed, MakeReading
from hypothesis import given
from hypothesis import strategies as st

from keras_vanish.diagnosis import THRESHOLD
from keras_vanish.diagnosis.profiles import (
    CRITICAL_DECAY,
    Profile,
    activation_profile,
    decay,
    growth_by,
    overgrown,
    score_of_decay,
    signal,
    starved,
    time_decay,
    vanishing_by,
    weight_profile,
)
from keras_vanish.records.readings import Reading
from keras_vanish.records.recurrent import RecurrentReading
from keras_vanish.records.statistics import COLUMNS

GRADIENT_COLUMNS = [i for i, name in enumerate(COLUMNS) if name.startswith("gradient_")]


def depth_scores(reading: Reading) -> tuple[float, float]:
    """What is lost and what is gained by the gradients of weights."""
    profile = weight_profile(reading.layers)
    return vanishing_by(profile), growth_by(profile)


rms_values = st.floats(1e-15, 1e15)


profiles = st.lists(rms_values, min_size=1, max_size=30)


depths = st.integers(2, 200)


decades = st.floats(0.0, 30.0)


@given(profiles, st.floats(-12, 12), st.data())
def test_a_constant_factor_changes_no_score(
    close: Close, make_reading: MakeReading, rms: list[float], exponent: float, data: st.DataObject
) -> None:
    zero = data.draw(st.lists(st.floats(0, 1), min_size=len(rms), max_size=len(rms)))
    reading = make_reading(rms=rms, zero_fraction=zero)
    table = reading.table.copy()
    table[:, GRADIENT_COLUMNS] *= 10.0**exponent
    scaled = dataclasses.replace(reading, table=table)
    assert depth_scores(scaled) == close(*depth_scores(reading))


@given(depths, st.floats(0, 2), st.floats(0, 2))
def test_more_decay_a_layer_is_a_higher_score(
    make_reading: MakeReading, layers: int, one: float, other: float
) -> None:
    less, more = sorted((one, other))
    low = [10 ** (less * i / 10) for i in range(layers)]
    high = [10 ** (more * i / 10) for i in range(layers)]
    for place, reverse in ((0, 1), (1, -1)):
        before, after = (
            depth_scores(make_reading(rms=rms[::reverse]))[place] for rms in (low, high)
        )
        assert before <= after + 1e-9
        # Where the score is not yet 1 in float64, it is strictly higher.
        if more - less > 0.1 and more * (layers - 1) / 10 < 30:
            assert before < after


@given(depths, depths, st.floats(0.0, 1.0))
def test_more_layers_at_one_decay_a_layer_are_a_higher_score(
    make_reading: MakeReading, one: int, other: int, each: float
) -> None:
    less, more = sorted((one, other))
    low, high = ([10 ** (each * i) for i in range(layers)] for layers in (less, more))
    for place, reverse in ((0, 1), (1, -1)):
        before, after = (
            depth_scores(make_reading(rms=rms[::reverse]))[place] for rms in (low, high)
        )
        assert before <= after + 1e-9
        if more > less and each > 0.05 and each * more < 30:
            assert before < after


@given(depths, decades)
def test_one_total_decay_has_one_score_over_however_many_layers(
    falling: Falling, close: Close, make_reading: MakeReading, layers: int, total: float
) -> None:
    rms = falling(layers, total)
    expected = close(1 - 2 ** (-total / CRITICAL_DECAY))
    assert depth_scores(make_reading(rms=rms))[0] == expected
    assert depth_scores(make_reading(rms=rms[::-1]))[1] == expected


@pytest.mark.smoke
def test_the_critical_decay_is_the_threshold() -> None:
    assert score_of_decay(CRITICAL_DECAY) == THRESHOLD
    assert score_of_decay(0.0) == 0.0
    assert score_of_decay(math.inf) == 1.0
    assert math.isnan(score_of_decay(math.nan))


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=40))
def test_decay_is_never_negative_and_at_most_the_range_extrapolated(profile: list[float]) -> None:
    lost = decay(profile)
    # k is within the first third, so 1 - k / last is at least two thirds.
    assert 0 <= lost <= max(profile) - profile[0] + 1e-9
    assert lost <= 1.5 * (max(profile) - min(profile)) + 1e-9


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=40), st.data())
def test_a_stronger_signal_in_the_first_third_never_raises_decay(
    profile: list[float], data: st.DataObject
) -> None:
    k = data.draw(st.integers(0, (len(profile) - 1) // 3))
    lifted = data.draw(st.floats(profile[k], max(profile)))
    assert decay([*profile[:k], lifted, *profile[k + 1 :]]) <= decay(profile) + 1e-9


def test_decay_of_known_profiles() -> None:
    assert math.isnan(decay([]))
    assert math.isnan(decay([3.0]))
    assert decay([-4.0, -1.0]) == 3.0
    assert decay([-1.0, -4.0]) == 0.0
    # The quiet first layer does not decide alone: from the second, 1 / (1 - 1/3).
    assert decay([-9.0, -1.0, -1.0, 0.0]) == pytest.approx(1.5)
    # The third of seven layers is within the first third, the fourth is not.
    assert decay([-9.0, -9.0, -3.0, 0.0, 0.0, 0.0, 0.0]) == pytest.approx(4.5)
    assert decay([-9.0, -9.0, -9.0, 0.0, 0.0, 0.0, 0.0]) == pytest.approx(9.0)


@pytest.mark.smoke
@pytest.mark.parametrize("rms", [[1.0], [0.0, 0.0, 0.0], [math.nan] * 3, [0.0, 1.0, math.nan], []])
def test_scores_are_missing_where_depth_cannot_be_known(
    make_reading: MakeReading, rms: list[float]
) -> None:
    assert all(map(math.isnan, depth_scores(make_reading(rms=rms, names=list("abc")[: len(rms)]))))


@given(profiles.filter(lambda p: len(p) > 1), st.data())
def test_a_layer_without_any_gradient_changes_nothing(
    close: Close, make_reading: MakeReading, rms: list[float], data: st.DataObject
) -> None:
    # An expert nobody chose, a branch behind a zero: missing entirely.
    place = data.draw(st.integers(0, len(rms)))
    nothing = data.draw(st.sampled_from([0.0, math.nan]))
    more = [*rms[:place], nothing, *rms[place:]]
    before, after = (depth_scores(make_reading(rms=each)) for each in (rms, more))
    assert after == close(*before)


@given(profiles, st.data())
def test_entries_that_are_zero_change_nothing(
    close: Close, make_reading: MakeReading, rms: list[float], data: st.DataObject
) -> None:
    zero = data.draw(st.lists(st.floats(0, 0.5), min_size=len(rms), max_size=len(rms)))
    thinned = [value * math.sqrt(1 - share) for value, share in zip(rms, zero)]
    reading = make_reading(rms=thinned, zero_fraction=zero)
    assert depth_scores(reading) == close(*depth_scores(make_reading(rms=rms)))


@pytest.mark.smoke
def test_an_embedding_is_measured_by_its_norm(make_reading: MakeReading) -> None:
    # Each of a few rows is used by one of many examples, so that even those are small.
    row, width, used = 1e-4, 16, 200
    norm = row * math.sqrt(used * width)
    (table,) = make_reading(
        rms=[row * math.sqrt(0.1)], units=width, zero_fraction=0.9, gradient_norm=norm
    ).layers
    assert signal(table) == pytest.approx(norm)
    (dense,) = make_reading(rms=[row], units=width, gradient_norm=norm).layers
    assert signal(dense) == pytest.approx(row * math.sqrt(width))


@pytest.mark.smoke
def test_signal_takes_the_width_and_leaves_out_zeros(make_reading: MakeReading) -> None:
    def of(**columns: Any) -> float:
        reading = make_reading(rms=[0.5], units=16, **{"gradient_norm": 5.0, **columns})
        return signal(reading.layers[0])

    assert of() == 2.0
    assert of(zero_fraction=0.36) == pytest.approx(2.5)
    assert of(zero_fraction=0.75) == 5.0  # Mostly zero: the norm.
    assert math.isnan(of(zero_fraction=0.75, gradient_norm=math.nan))
    assert math.isnan(of(zero_fraction=1.0))
    assert math.isnan(of(zero_fraction=math.nan))
    assert math.isnan(of(gradient_rms=0.0))
    assert math.isnan(of(gradient_rms=math.nan))


def test_an_opening_layer_tells_nothing(make_reading: MakeReading) -> None:
    reading = make_reading(weight_rms=1.0, update_rms=[0.099, 0.1, math.nan])
    assert [name for name, _ in weight_profile(reading.layers)] == ["dense_0", "dense_2"]


def activations_of(reading: Reading) -> Profile:
    return activation_profile(reading.layers, reading.activations)


@pytest.mark.smoke
def test_the_activation_profile_is_of_norms_for_a_sample(
    make_reading: MakeReading, make_probed: MakeProbed
) -> None:
    probed = make_probed([1e-3, 1e-2, 0.1], names=["in", "mid", "out"], size=[10_000, 100, 1])
    names, values = zip(*activations_of(make_reading(probed=probed)))
    assert names == ("in", "mid", "out")
    assert values == pytest.approx((-1.0, -1.0, -1.0))
    assert activations_of(make_reading()) == []


@pytest.mark.smoke
def test_uniform_vanishing_shows_in_activations_only(
    falling: Falling, close: Close, make_reading: MakeReading, make_probed: MakeProbed
) -> None:
    # Inputs that grow as the gradients of the outputs shrink make up for each other.
    reading = make_reading(rms=[1e-12] * 6, probed=make_probed(falling(6, 5.0)))
    assert depth_scores(reading)[0] == close(0.0)
    assert vanishing_by(activations_of(reading)) == close(1 - 2**-2.5)


def test_outputs_that_tell_nothing_are_left_out(
    make_reading: MakeReading, make_probed: MakeProbed
) -> None:
    rms = [1.0, 0.0, math.nan, math.inf, 1.0, 1.0]
    probed = make_probed(rms, names=["a", "zero", "nan", "inf", "open", "empty"])
    table = probed.table.copy()
    table[5, 0] = 0.0
    reading = make_reading(
        names=["a", "open", "b"],
        weight_rms=1.0,
        update_rms=[0.05, 0.1, 0.05],
        probed=dataclasses.replace(probed, table=table),
    )
    assert [name for name, _ in activations_of(reading)] == ["a"]


@given(st.lists(st.floats(1e-15, 1e3), min_size=2, max_size=20), st.floats(-12, 12))
def test_a_constant_factor_changes_no_score_of_activations(
    close: Close,
    make_reading: MakeReading,
    make_probed: MakeProbed,
    rms: list[float],
    exponent: float,
) -> None:
    scaled = [value * 10.0**exponent for value in rms]
    one, other = (activations_of(make_reading(probed=make_probed(r))) for r in (rms, scaled))
    assert vanishing_by(other) == close(vanishing_by(one))
    assert growth_by(other) == close(growth_by(one))


@given(st.lists(rms_values, min_size=2, max_size=20))
def test_growth_is_vanishing_reversed(rms: list[float]) -> None:
    profile = [(str(i), math.log10(value)) for i, value in enumerate(rms)]
    assert growth_by(profile) == vanishing_by(profile[::-1])


@pytest.mark.smoke
def test_time_decay_of_known_profiles(falling: Falling) -> None:
    def of(*rms: float) -> float:
        return time_decay(RecurrentReading(rms))

    assert of(1e-4, 1.0) == pytest.approx(4.0)
    assert of(1.0, 1e-4) == 0.0
    assert of(math.nan, math.nan, 1e-4, 1.0) == pytest.approx(4.0)
    assert of(0.0, 1.0) == pytest.approx(45.0)
    assert of(*falling(50, 3.0)) == pytest.approx(3.0)
    for unknown in ((), (1.0,), (math.nan, 1.0), (0.0, 0.0), (1.0, math.inf), (math.nan,) * 3):
        assert math.isnan(of(*unknown))


@pytest.mark.smoke
def test_who_is_starved_and_who_has_overgrown() -> None:
    profile = [("a", -4.0), ("b", -2.0), ("c", -1.9), ("d", 0.0)]
    assert starved(profile) == ["a", "b"]
    assert overgrown([("a", 4.0), ("b", 1.9), ("c", 2.0), ("d", 0.0)]) == ["a", "c"]
    # Some layer is always named, however little is lost or gained.
    assert starved([("a", -1.0), ("b", 0.0)]) == ["a"]
    assert overgrown([("a", 1.0), ("b", 0.0)]) == ["a"]
