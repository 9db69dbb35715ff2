from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keras_vanish.diagnosis import (
    AGREEING_READINGS,
    CRITICAL_DECAY,
    THRESHOLD,
    Verdict,
    decay,
    diagnose,
    exploding_score,
    score_of_decay,
    signal,
    steadied,
    vanishing_score,
)
from keras_vanish.reading import COLUMNS, Reading

GRADIENT_COLUMNS = tuple(name for name in COLUMNS if name.startswith("gradient_"))
VERDICTS: tuple[Verdict, ...] = ("healthy", "vanishing", "exploding", "nonfinite", "unknown")


def reading_of(
    rms: Sequence[float], units: Sequence[int] | None = None, **columns: float | Sequence[float]
) -> Reading:
    """A reading of layers `l0`, `l1`, ... with these gradients; each learns slowly."""
    values: dict[str, Any] = {
        "size": 100.0,
        "gradient_rms": rms,
        "gradient_norm": np.multiply(rms, 10.0),
        "gradient_norm_after_clipping": np.multiply(rms, 10.0),
        "gradient_mean": 0.0,
        "gradient_min": np.negative(rms),
        "gradient_max": rms,
        "zero_fraction": 0.0,
        "float16_underflow": 0.0,
        "bfloat16_underflow": 0.0,
        "nan_count": 0.0,
        "inf_count": 0.0,
        "weight_rms": 1.0,
        "update_rms": 0.001,
    }
    values.update(columns)
    rows = [np.broadcast_to(values[name], len(rms)) for name in COLUMNS]
    names = tuple(f"l{i}" for i in range(len(rms)))
    return Reading(0, 0.0, names, tuple(units or [1] * len(rms)), np.stack(rows, axis=1))


def falling(layers: int, decades: float, lowest: float = 1e-9) -> list[float]:
    """RMS that falls by `decades` in all, the same at each layer, towards the input."""
    return [lowest * 10 ** (decades * i / (layers - 1)) for i in range(layers)]


def scores(rms: Sequence[float], **columns: Any) -> tuple[float, float]:
    layers = reading_of(rms, **columns).layers
    return vanishing_score(layers), exploding_score(layers)


def close(*values: float) -> Any:
    return pytest.approx(values if len(values) > 1 else values[0], abs=1e-9, nan_ok=True)


rms_values = st.floats(1e-15, 1e15)
profiles = st.lists(rms_values, min_size=1, max_size=30)
depths = st.integers(2, 200)
decades = st.floats(0.0, 30.0)


@given(profiles, st.floats(-12, 12), st.data())
def test_a_constant_factor_changes_no_score(
    rms: list[float], exponent: float, data: st.DataObject
) -> None:
    zero = data.draw(st.lists(st.floats(0, 1), min_size=len(rms), max_size=len(rms)))
    # Without update ratios the exploding score is its depth component.
    reading = reading_of(rms, zero_fraction=zero, update_rms=math.nan)
    table = reading.table.copy()
    table[:, [COLUMNS.index(name) for name in GRADIENT_COLUMNS]] *= 10.0**exponent
    scaled = dataclasses.replace(reading, table=table)
    assert vanishing_score(scaled.layers) == close(vanishing_score(reading.layers))
    assert exploding_score(scaled.layers) == close(exploding_score(reading.layers))


@given(depths, st.floats(0, 2), st.floats(0, 2))
def test_more_decay_a_layer_is_a_higher_score(layers: int, one: float, other: float) -> None:
    less, more = sorted((one, other))
    low = [10 ** (less * i / 10) for i in range(layers)]
    high = [10 ** (more * i / 10) for i in range(layers)]
    for place, reverse in ((0, 1), (1, -1)):
        assert scores(low[::reverse])[place] <= scores(high[::reverse])[place] + 1e-9
    # Where the score is not yet 1 in float64, it is strictly higher.
    if more - less > 0.1 and more * (layers - 1) / 10 < 30:
        assert scores(low)[0] < scores(high)[0]


@given(depths, depths, st.floats(0.0, 1.0))
def test_more_layers_at_one_decay_a_layer_are_a_higher_score(
    one: int, other: int, each: float
) -> None:
    less, more = sorted((one, other))
    low, high = ([10 ** (each * i) for i in range(layers)] for layers in (less, more))
    assert scores(low)[0] <= scores(high)[0] + 1e-9
    assert scores(low[::-1])[1] <= scores(high[::-1])[1] + 1e-9
    if more > less and each > 0.05 and each * more < 30:
        assert scores(low)[0] < scores(high)[0]


@given(depths, decades)
def test_one_total_decay_has_one_score_over_however_many_layers(layers: int, total: float) -> None:
    expected = 1 - 2 ** (-total / CRITICAL_DECAY)
    assert scores(falling(layers, total))[0] == close(expected)
    assert scores(falling(layers, total)[::-1])[1] == pytest.approx(
        max(expected, 0.001 / 1.001), abs=1e-9
    )


@pytest.mark.smoke
def test_the_critical_decay_is_the_threshold() -> None:
    assert score_of_decay(CRITICAL_DECAY) == THRESHOLD
    assert score_of_decay(0.0) == 0.0
    assert score_of_decay(math.inf) == 1.0
    assert math.isnan(score_of_decay(math.nan))
    assert diagnose(reading_of([0.01, 1.0])).verdict == "vanishing"
    assert diagnose(reading_of([1.0, 0.01])).verdict == "exploding"
    assert diagnose(reading_of(falling(12, 2.1))).verdict == "vanishing"
    assert diagnose(reading_of(falling(12, 1.9))).verdict == "healthy"
    assert diagnose(reading_of(falling(12, 2.1)[::-1])).verdict == "exploding"
    assert diagnose(reading_of(falling(12, 1.9)[::-1])).verdict == "healthy"


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
def test_scores_are_missing_where_depth_cannot_be_known(rms: list[float]) -> None:
    vanishing, exploding = scores(rms, update_rms=math.nan)
    assert math.isnan(vanishing)
    assert math.isnan(exploding)
    diagnosis = diagnose(reading_of(rms))
    assert diagnosis.verdict == "unknown"
    assert diagnosis.advice


@pytest.mark.smoke
def test_all_zero_gradients_are_unknown_and_named() -> None:
    assert diagnose(reading_of([0.0, 0.0])).blame == ("l0", "l1")
    assert diagnose(reading_of([0.0, math.nan, 1.0])).blame == ("l0",)


amounts = st.one_of(
    st.sampled_from([0.0, math.nan, math.inf, 5e-324, 1e-45, 1e308]), st.floats(min_value=0)
)
signed = st.floats()
shares = st.one_of(st.sampled_from([0.0, 1.0, math.nan, 1 - 2**-53]), st.floats(0, 1))
counts = st.one_of(st.sampled_from([0.0, 0.0, 0.0, 1.0, math.nan]), st.floats(0, 1e12))


@st.composite
def arbitrary_readings(draw: st.DrawFn) -> Reading:
    def column(name: str) -> st.SearchStrategy[float]:
        if name in ("gradient_mean", "gradient_min", "gradient_max"):
            return signed
        if name.endswith(("fraction", "underflow")):
            return shares
        return counts if name.endswith("count") else amounts

    layers = draw(st.integers(0, 8))
    rows = [[draw(column(name)) for name in COLUMNS] for _ in range(layers)]
    units = tuple(draw(st.integers(1, 10**6)) for _ in range(layers))
    names = tuple(f"l{i}" for i in range(layers))
    return Reading(0, 0.0, names, units, np.array(rows).reshape(layers, len(COLUMNS)))


@given(arbitrary_readings())
def test_any_reading_has_a_consistent_diagnosis(reading: Reading) -> None:
    diagnosis = diagnose(reading)
    for score in (diagnosis.vanishing_score, diagnosis.exploding_score):
        assert math.isnan(score) or 0 <= score <= 1
    assert diagnosis.verdict in VERDICTS
    depth_of = [reading.names.index(name) for name in diagnosis.blame]
    assert depth_of == sorted(set(depth_of))
    if diagnosis.verdict in ("vanishing", "exploding", "nonfinite"):
        assert diagnosis.blame
        assert diagnosis.advice
    if diagnosis.verdict == "healthy":
        assert not diagnosis.blame
        assert not diagnosis.advice
    sentence = diagnosis.sentence()
    assert sentence.endswith(".")
    assert "{" not in sentence


@given(profiles.filter(lambda p: len(p) > 1), st.data())
def test_a_layer_without_any_gradient_changes_nothing(
    rms: list[float], data: st.DataObject
) -> None:
    # An expert nobody chose, a branch behind a zero: missing entirely.
    place = data.draw(st.integers(0, len(rms)))
    nothing = data.draw(st.sampled_from([0.0, math.nan]))
    more = [*rms[:place], nothing, *rms[place:]]
    updates = [0.0 if value == nothing else 0.001 for value in more]
    before, after = scores(rms, update_rms=math.nan), scores(more, update_rms=math.nan)
    assert after == close(*before)
    verdict = diagnose(reading_of(more, update_rms=updates)).verdict
    assert verdict == diagnose(reading_of(rms)).verdict


@given(profiles, st.data())
def test_entries_that_are_zero_change_nothing(rms: list[float], data: st.DataObject) -> None:
    zero = data.draw(st.lists(st.floats(0, 0.5), min_size=len(rms), max_size=len(rms)))
    thinned = [value * math.sqrt(1 - share) for value, share in zip(rms, zero)]
    assert scores(thinned, zero_fraction=zero) == close(*scores(rms))


@pytest.mark.smoke
def test_an_embedding_is_measured_by_its_norm() -> None:
    # Each of a few rows is used by one of many examples, so that even those are small.
    row, width, used = 1e-4, 16, 200
    norm = row * math.sqrt(used * width)
    columns = {"zero_fraction": [0.9, 0.0], "gradient_norm": [norm, 1.0]}
    table, _ = reading_of([row * math.sqrt(0.1), 1e-2], units=[width, 32], **columns).layers
    assert signal(table) == pytest.approx(norm)
    dense, _ = reading_of([row, 1e-2], units=[width, 32], gradient_norm=[norm, 1.0]).layers
    assert signal(dense) == pytest.approx(row * math.sqrt(width))


calm = st.lists(st.floats(-0.5, 0.5).map(lambda e: 10**e), min_size=3, max_size=20)


@given(calm, st.data())
def test_one_layer_that_is_quiet_by_construction_raises_no_alarm(
    rms: list[float], data: st.DataObject
) -> None:
    # A bias that softmax or a normalisation cancels: rounding noise, anywhere.
    place = data.draw(st.integers(0, len(rms)))
    noise = data.draw(st.sampled_from([1e-10, 1e-17, 0.0]))
    reading = reading_of([*rms[:place], noise, *rms[place:]])
    assert diagnose(reading).verdict == "healthy"


@given(calm, st.sets(st.integers(0, 19)))
def test_frozen_layers_are_absent_and_missed_by_nobody(rms: list[float], frozen: set[int]) -> None:
    left = [value for i, value in enumerate(rms) if i not in frozen]
    assume(len(left) > 1)
    assert diagnose(reading_of(left)).verdict == "healthy"


@pytest.mark.smoke
def test_a_zero_initialised_head_is_no_alarm_in_its_first_steps() -> None:
    # Step 0: the head is zero, and so is every gradient behind it.
    first = reading_of([0.0, 0.0, 0.0, 1.0], weight_rms=[1, 1, 1, 0], update_rms=[0, 0, 0, 0.01])
    assert diagnose(first).verdict == "unknown"
    # Step 1: it holds back most of the gradient, and changes by its own size.
    second = reading_of(
        [1e-4, 1e-4, 1e-4, 1.0], weight_rms=[1, 1, 1, 0.01], update_rms=[1e-6] * 3 + [0.01]
    )
    assert diagnose(second).verdict == "healthy"
    assert diagnose(second).vanishing_score == close(0.0)
    # The same with a head that does not open is vanishing.
    stuck = reading_of([1e-4, 1e-4, 1e-4, 1.0], update_rms=0.09)
    assert diagnose(stuck).verdict == "vanishing"


def test_zero_initialised_branches_beside_skips_are_no_alarm() -> None:
    # Stem, then blocks of (branch, scale) with scale 0: the branches get nothing yet.
    rms = [1.0, *[0.0, 1.0] * 4, 1.0]
    assert diagnose(reading_of(rms)).verdict == "healthy"
    rms = [1.0, *[1e-4, 1.0] * 4, 1.0]
    ratio = [1e-3, *[1e-3, 1.0] * 4, 1e-3]
    assert diagnose(reading_of(rms, update_rms=ratio)).verdict == "healthy"


@pytest.mark.smoke
def test_signal_takes_the_width_and_leaves_out_zeros() -> None:
    def of(**columns: Any) -> float:
        return signal(reading_of([0.5], units=[16], **columns).layers[0])

    assert of() == 2.0
    assert of(zero_fraction=0.36) == pytest.approx(2.5)
    # Mostly zero: the norm, ten times the RMS here.
    assert of(zero_fraction=0.75) == 5.0
    assert math.isnan(of(zero_fraction=0.75, gradient_norm=math.nan))
    assert math.isnan(of(zero_fraction=1.0))
    assert math.isnan(of(zero_fraction=math.nan))
    assert math.isnan(of(gradient_rms=0.0))
    assert math.isnan(of(gradient_rms=math.nan))


@pytest.mark.smoke
def test_updates_as_large_as_the_weights_are_exploding() -> None:
    assert scores([1.0] * 3, update_rms=[0.5, 1.0, 3.0])[1] == 0.5
    assert scores([1.0] * 3, update_rms=[0.5, 0.25, 3.0])[1] == pytest.approx(1 / 3)
    assert scores([1.0] * 3, update_rms=math.inf)[1] == 1.0
    diagnosis = diagnose(reading_of([1.0] * 3, update_rms=[0.5, 1.0, 3.0]))
    assert diagnosis.verdict == "exploding"
    assert diagnosis.blame == ("l1", "l2")


@given(profiles, st.floats(0, 1e6), st.floats(0, 1e6))
def test_larger_updates_are_a_higher_exploding_score(
    rms: list[float], one: float, other: float
) -> None:
    less, more = sorted((one, other))
    # Gradients of zero leave the update component alone.
    zeros = [0.0] * len(rms)
    assert scores(zeros, update_rms=less)[1] <= scores(zeros, update_rms=more)[1]


@pytest.mark.smoke
def test_verdicts_have_an_order() -> None:
    vanishing = falling(5, 6.0)
    broken = [1e-3, 1e-3, 2.0, 2.0, 2.0]
    assert diagnose(reading_of(vanishing)).verdict == "vanishing"
    assert diagnose(reading_of(vanishing, update_rms=broken)).verdict == "exploding"
    nonfinite = reading_of(vanishing, update_rms=broken, inf_count=[0, 1, 0, 0, 0])
    assert diagnose(nonfinite).verdict == "nonfinite"
    # With one layer vanishing is unknown, and the others are certain.
    assert diagnose(reading_of([1.0], update_rms=2.0)).verdict == "exploding"
    assert diagnose(reading_of([math.nan], nan_count=3.0)).verdict == "nonfinite"
    assert diagnose(reading_of([1.0])).verdict == "unknown"


def test_blame_names_the_layers_input_side_first() -> None:
    rms = [1e-6, 1e-5, 1e-1, 1.0]
    assert diagnose(reading_of(rms)).blame == ("l0", "l1")
    assert diagnose(reading_of(rms[::-1])).blame == ("l0", "l1")
    nan = reading_of([1.0] * 3, nan_count=[2, 0, 0], inf_count=[0, 0, 1])
    assert diagnose(nan).blame == ("l0", "l2")


def test_the_blame_is_not_empty_at_the_very_threshold() -> None:
    for i in range(1, 1000):
        for rms in ([i / 1e5, i / 1e3], [i / 1e3, i / 1e5]):
            diagnosis = diagnose(reading_of(rms))
            assert diagnosis.verdict == "healthy" or diagnosis.blame == ("l0",)


def test_blame_for_growth_names_the_layers_that_grew() -> None:
    # The last layer opens, which has nothing to do with the growth of the others.
    reading = reading_of([1e4, 1e3, 1e2, 1e1, 1.0, 1.0], update_rms=[1e-3] * 5 + [1.0])
    diagnosis = diagnose(reading)
    assert diagnosis.verdict == "exploding"
    assert diagnosis.blame[0] == "l0"


@pytest.mark.smoke
def test_sentences() -> None:
    def sentence(rms: list[float], **columns: Any) -> str:
        return diagnose(reading_of(rms, **columns)).sentence()

    assert sentence([1.0] * 4) == "Gradients reach the whole network."
    assert sentence([1e-6, 1e-5, 1.0, 1.0]) == (
        "Gradients vanish on the way to the input. Starved: l0, l1."
    )
    assert sentence([1.0] * 2, update_rms=2.0) == ("Gradients explode. Too large: l0, l1.")
    assert sentence([1.0] * 8, nan_count=1.0) == (
        "Gradients are NaN or infinite in l0, l1, l2, l3, l4, l5 and 2 more."
    )
    assert sentence([1.0] * 6, nan_count=1.0).endswith("in l0, l1, l2, l3, l4, l5.")
    assert sentence([0.0, 1.0]) == ("Too few layers have a gradient that tells. Exactly zero: l0.")


def test_a_sentence_lists_no_zero_layers_where_there_are_none() -> None:
    for rms in ([1.0], [math.nan, math.nan]):
        sentence = diagnose(reading_of(rms)).sentence()
        assert sentence == "Too few layers have a gradient that tells."


def test_a_diagnosis_equals_that_of_an_equal_reading() -> None:
    for rms in ([1.0, 1.0], [1.0], [math.nan]):
        assert diagnose(reading_of(rms)) == diagnose(reading_of(rms))
    assert diagnose(reading_of([1.0, 1.0])) != diagnose(reading_of([1.0, 2.0]))
    assert diagnose(reading_of([1.0])).step == 0


def run(verdicts: Sequence[Any]) -> list[Verdict]:
    """The run's verdict after each reading."""
    result: list[Verdict] = []
    for i in range(len(verdicts)):
        result.append(steadied(result[-1] if result else "unknown", verdicts[: i + 1]))
    return result


@pytest.mark.smoke
def test_a_run_follows_readings_that_agree() -> None:
    assert run(["vanishing"]) == ["unknown"]
    assert run(["vanishing"] * 2) == ["unknown", "vanishing"]
    assert run(["healthy"] * 3 + ["vanishing"] * 3) == (
        ["unknown"] + ["healthy"] * 4 + ["vanishing"]
    )
    assert run(["healthy", "vanishing", "vanishing"])[-1] == "unknown"


@pytest.mark.smoke
def test_alternating_verdicts_do_not_flap() -> None:
    assert set(run(["healthy", "vanishing"] * 10)) == {"unknown"}
    settled = run(["healthy"] * 3 + ["vanishing", "healthy"] * 10)
    assert set(settled[1:]) == {"healthy"}


@pytest.mark.smoke
def test_nan_counts_at_once_and_is_left_slowly() -> None:
    assert run(["nonfinite"]) == ["nonfinite"]
    assert run(["healthy"] * 5 + ["nonfinite"])[-1] == "nonfinite"
    assert run(["nonfinite", "healthy", "healthy"])[-1] == "nonfinite"
    assert run(["nonfinite", "healthy", "healthy", "healthy"])[-1] == "healthy"


@given(st.lists(st.sampled_from(VERDICTS), min_size=1, max_size=40))
def test_a_run_changes_its_verdict_only_for_readings_that_agree(verdicts: list[Verdict]) -> None:
    steady = run(verdicts)
    for i in range(len(verdicts)):
        before = steady[i - 1] if i else "unknown"
        last = verdicts[max(0, i + 1 - AGREEING_READINGS) : i + 1]
        agree = len(last) >= 2 and len(set(last)) == 1
        if verdicts[i] == "nonfinite":
            assert steady[i] == "nonfinite"
        elif agree:
            assert steady[i] == verdicts[i]
        else:
            assert steady[i] == before
        # Only the last readings are looked at.
        assert steadied(before, verdicts[: i + 1]) == steadied(before, last)
