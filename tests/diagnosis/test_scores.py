from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_vanish.diagnosis.scores import (
    CRITICAL_DECAY,
    LEARNED_SHARE,
    PATIENCE,
    THRESHOLD,
    LearningProgress,
    Profile,
    activation_profile,
    by_dead_units,
    by_saturation,
    by_silence,
    by_time,
    by_update,
    cut_by_float16,
    decay,
    growth_by,
    growth_by_time,
    learned_share,
    score_of_decay,
    signal,
    time_decay,
    vanishing_by,
    weight_profile,
    worst,
)
from keras_vanish.records.probed import Probed
from keras_vanish.records.readings import Reading
from keras_vanish.records.recurrent import RecurrentReading
from keras_vanish.records.statistics import COLUMNS

MakeReading = Callable[..., Reading]
MakeProbed = Callable[..., Probed]

GRADIENT_COLUMNS = [i for i, name in enumerate(COLUMNS) if name.startswith("gradient_")]


def falling(layers: int, decades: float, lowest: float = 1e-9) -> list[float]:
    """RMS that falls by `decades` in all, the same at each layer, towards the input."""
    return [lowest * 10 ** (decades * i / (layers - 1)) for i in range(layers)]


def depth_scores(reading: Reading) -> tuple[float, float]:
    """What is lost and what is gained by the gradients of weights."""
    profile = weight_profile(reading.layers)
    return vanishing_by(profile), growth_by(profile)


def close(*values: float) -> Any:
    return pytest.approx(values if len(values) > 1 else values[0], abs=1e-9, nan_ok=True)


rms_values = st.floats(1e-15, 1e15)
profiles = st.lists(rms_values, min_size=1, max_size=30)
depths = st.integers(2, 200)
decades = st.floats(0.0, 30.0)


# Weights.


@given(profiles, st.floats(-12, 12), st.data())
def test_a_constant_factor_changes_no_score(
    make_reading: MakeReading, rms: list[float], exponent: float, data: st.DataObject
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
    make_reading: MakeReading, layers: int, total: float
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
    make_reading: MakeReading, rms: list[float], data: st.DataObject
) -> None:
    # An expert nobody chose, a branch behind a zero: missing entirely.
    place = data.draw(st.integers(0, len(rms)))
    nothing = data.draw(st.sampled_from([0.0, math.nan]))
    more = [*rms[:place], nothing, *rms[place:]]
    before, after = (depth_scores(make_reading(rms=each)) for each in (rms, more))
    assert after == close(*before)


@given(profiles, st.data())
def test_entries_that_are_zero_change_nothing(
    make_reading: MakeReading, rms: list[float], data: st.DataObject
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


# Activations.


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
    make_reading: MakeReading, make_probed: MakeProbed
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
    make_reading: MakeReading, make_probed: MakeProbed, rms: list[float], exponent: float
) -> None:
    scaled = [value * 10.0**exponent for value in rms]
    one, other = (activations_of(make_reading(probed=make_probed(r))) for r in (rms, scaled))
    assert vanishing_by(other) == close(vanishing_by(one))
    assert growth_by(other) == close(growth_by(one))


@given(st.lists(rms_values, min_size=2, max_size=20))
def test_growth_is_vanishing_reversed(rms: list[float]) -> None:
    profile = [(str(i), math.log10(value)) for i, value in enumerate(rms)]
    assert growth_by(profile) == vanishing_by(profile[::-1])


# Time.


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


@pytest.mark.smoke
def test_time_decay_of_known_profiles() -> None:
    def of(*rms: float) -> float:
        return time_decay(RecurrentReading(rms))

    assert of(1e-4, 1.0) == pytest.approx(4.0)
    assert of(1.0, 1e-4) == 0.0
    assert of(math.nan, math.nan, 1e-4, 1.0) == pytest.approx(4.0)
    assert of(0.0, 1.0) == pytest.approx(45.0)
    assert of(*falling(50, 3.0)) == pytest.approx(3.0)
    for unknown in ((), (1.0,), (math.nan, 1.0), (0.0, 0.0), (1.0, math.inf), (math.nan,) * 3):
        assert math.isnan(of(*unknown))


NOT_LEARNED = LearningProgress(count=PATIENCE, share=0.0, best=0.0)
LEARNED = LearningProgress(count=2, share=0.0, best=LEARNED_SHARE)


def through_time(*profiles: Sequence[float]) -> dict[str, RecurrentReading]:
    return {f"rnn_{i}": RecurrentReading(tuple(rms)) for i, rms in enumerate(profiles)}


@pytest.mark.smoke
def test_vanishing_through_time_counts_in_a_run_that_does_not_learn() -> None:
    layers = through_time([1.0, 1.0], falling(20, CRITICAL_DECAY))
    assert by_time(layers, NOT_LEARNED) == close(0.5)
    assert by_time(layers, LEARNED) == 0.0
    assert math.isnan(by_time(layers, LearningProgress()))
    assert math.isnan(by_time(layers, dataclasses.replace(NOT_LEARNED, count=PATIENCE - 1)))
    assert math.isnan(by_time({}, NOT_LEARNED))
    assert math.isnan(by_time({}, LEARNED))
    assert math.isnan(by_time(through_time([1.0]), NOT_LEARNED))


@pytest.mark.smoke
def test_growth_through_time() -> None:
    layers = through_time([1.0, 1.0], falling(20, CRITICAL_DECAY)[::-1], [math.nan, 1.0])
    assert growth_by_time(layers) == close(0.5)
    assert growth_by_time(through_time(falling(20, 9.0))) == 0.0
    assert math.isnan(growth_by_time({}))
    assert math.isnan(growth_by_time(through_time([0.0, 0.0])))


@given(st.lists(st.floats(1e-20, 1e20), min_size=2, max_size=40), st.floats(-12, 12))
def test_a_constant_factor_changes_no_score_through_time(rms: list[float], exponent: float) -> None:
    one, other = through_time(rms), through_time([value * 10.0**exponent for value in rms])
    assert by_time(other, NOT_LEARNED) == close(by_time(one, NOT_LEARNED))
    assert growth_by_time(other) == close(growth_by_time(one))


# Dead and saturated units, and updates.


@pytest.mark.smoke
def test_dead_units_count_where_they_cut_the_network(
    make_reading: MakeReading, make_probed: MakeProbed
) -> None:
    def of(rms: list[float], dead: list[float], shuffled_loss: float = 2.0) -> float:
        probed = make_probed(rms, dead_fraction=dead, loss=1.0, shuffled_loss=shuffled_loss)
        return by_dead_units(make_reading(probed=probed).activations, probed)

    nan = math.nan
    assert of([0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 1.0, nan]) == 1.0
    assert of([0.0, nan, 1.0], [nan, nan, 1.0]) == 1.0
    # Beside a skip the gradient gets past.
    assert of([1.0, 0.0, 1.0, 1.0], [0.5, 0.5, 1.0, nan]) == 0.0
    assert of([0.0, 0.0, 1.0], [0.5, 0.5, 0.99]) == 0.0
    # Before the first layer there is none to tell: the input must not count.
    assert of([1.0, 1.0], [1.0, 0.5]) == 0.0
    assert of([1.0, 1.0], [1.0, 0.5], shuffled_loss=1.0) == 1.0
    assert of([1.0, 1.0], [0.9, 0.5], shuffled_loss=1.0) == 0.0
    assert of([nan, 1.0], [nan, 1.0], shuffled_loss=nan) == 0.0
    assert math.isnan(of([1.0, 1.0], [nan, nan]))
    assert math.isnan(by_dead_units((), None))


@pytest.mark.smoke
def test_early_layers_are_silent_where_no_gradient_arrives(
    make_reading: MakeReading,
) -> None:
    stuck = LearningProgress(count=PATIENCE, share=0.0, best=0.0)

    def of(*rms: float, course: LearningProgress = stuck, **columns: Any) -> float:
        return by_silence(make_reading(rms=rms, **columns).layers, course)

    nan = math.nan
    assert of(0.0, 0.0, 0.0, 1e-3) == 1.0
    assert of(0.0, 0.0, 1.0, course=LearningProgress(count=9, share=0.5, best=0.5)) == 1.0
    # A kernel of zeros, and one that was zero until the last update.
    assert of(0.0, 0.0, 1.0, weight_rms=[1.0, 1.0, 0.0]) == 0.0
    assert of(0.0, 0.0, 1.0, weight_rms=[1.0, 1.0, 1e-3], update_rms=[0.0, 0.0, 1e-3]) == 0.0
    assert of(0.0, 0.0, 1e-9, 1e-3) == 1.0
    assert of(nan, 0.0, 0.0, nan, 1e-3) == 1.0  # Frozen layers do not count.
    assert of(0.0, 1e-9, 1e-9, 1e-3) == 0.0
    assert of(1e-12, 0.0, 0.0, 1e-3) == 0.0
    # NaN is no zero, where the entries beside it are.
    assert of(0.0, 0.0, 1e-3, nan_count=[5.0, 0.0, 0.0]) == 0.0
    assert of(0.0, 0.0, 1e-3, nan_count=[0.0, 0.0, 5.0]) == 1.0
    assert of(0.0, 0.0, 0.0) == 0.0  # Nothing to compare with.
    assert math.isnan(of(0.0))
    assert math.isnan(of(nan, 1.0))
    assert math.isnan(of(0.0, 0.0, 1.0, course=LearningProgress(count=PATIENCE - 1)))


@pytest.mark.smoke
def test_saturation_is_that_of_the_median_layer_that_has_one(
    make_reading: MakeReading, make_probed: MakeProbed
) -> None:
    def of(*shares: float) -> float:
        probed = make_probed([1.0] * len(shares), saturated_fraction=list(shares))
        return by_saturation(make_reading(probed=probed).activations)

    assert of(0.1, 0.9, 0.7) == 0.7
    assert of(0.0, 1.0, math.nan) == 0.5
    assert math.isnan(of(math.nan, math.nan))
    assert math.isnan(by_saturation(make_reading().activations))


@pytest.mark.smoke
def test_updates_of_the_median_layer_against_its_weights(make_reading: MakeReading) -> None:
    def of(updates: Any, weights: Any = 1.0) -> float:
        return by_update(make_reading(weight_rms=weights, update_rms=updates).layers)

    assert of([0.5, 1.0, 3.0]) == 0.5
    assert of([0.5, 0.25, 3.0]) == pytest.approx(1 / 3)
    assert of([0.5, 1.0, 3.0], [1.0, 1.0, 0.0]) == pytest.approx(0.75 / 1.75)
    assert of(math.inf) == 1.0
    assert math.isnan(of(math.nan))
    assert math.isnan(of(1.0, 0.0))


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_larger_updates_are_a_higher_score(
    make_reading: MakeReading, one: float, other: float
) -> None:
    less, more = sorted((one, other))
    low, high = (by_update(make_reading(update_rms=update).layers) for update in (less, more))
    assert 0 <= low <= high <= 1


@given(st.lists(st.one_of(st.just(math.nan), st.floats(0, 1)), max_size=8))
def test_the_worst_is_the_largest_that_is_known(components: list[float]) -> None:
    known = [component for component in components if not math.isnan(component)]
    found = worst(*components)
    assert found == max(known) if known else math.isnan(found)


@pytest.mark.parametrize("spread", [np.random.Generator.normal, np.random.Generator.laplace])
@pytest.mark.parametrize("dead", [0.0, 0.5])
@pytest.mark.parametrize(
    ("exponent", "float16", "expected"),
    [
        (-23, True, True),
        (-25, True, True),
        (-14, True, False),  # Nothing to speak of is lost.
        (-23, False, False),
        (-25, False, False),
        (-40, False, False),
    ],
)
def test_what_float16_rounds_to_zero_is_told_from_other_zeros(
    spread: Callable[..., Any],
    dead: float,
    exponent: int,
    float16: bool,
    expected: bool,
    make_reading: MakeReading,
) -> None:
    random = np.random.default_rng(0)
    gradient = spread(random, size=4096) * 2.0**exponent * (random.uniform(size=4096) >= dead)
    gradient = gradient.astype(np.float16 if float16 else np.float32).astype(np.float64)
    reading = make_reading(
        rms=[1e-3, np.sqrt(np.mean(gradient**2))],
        names=["other", "cut"],
        size=4096,
        zero_fraction=[0.1, np.mean(gradient == 0)],
        float16_underflow=[0.0, np.mean((gradient != 0) & (np.abs(gradient) < 2.0**-25))],
    )
    assert cut_by_float16(reading.layers) == ["cut"] * expected


def test_too_few_entries_do_not_show_what_float16_lost(make_reading: MakeReading) -> None:
    tiny = {"rms": [2e-7], "zero_fraction": 0.2}
    assert cut_by_float16(make_reading(size=4096, **tiny).layers)
    assert not cut_by_float16(make_reading(size=64, **tiny).layers)
    assert not cut_by_float16(make_reading(rms=[0.0], zero_fraction=1.0).layers)
    assert not cut_by_float16(make_reading(rms=[math.nan], zero_fraction=math.nan).layers)
