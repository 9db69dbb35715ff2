from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keras_vanish.diagnosis.diagnosis import (
    AGREEING_READINGS,
    Diagnosis,
    Verdict,
    diagnose,
    diagnoses,
    scores,
    steadied,
)
from keras_vanish.diagnosis.scores import DECISIVE_UPDATE, PATIENCE, THRESHOLD, LearningProgress
from keras_vanish.records.columns import ACTIVATION_COLUMNS
from keras_vanish.records.probed import Probed
from keras_vanish.records.readings import Reading
from keras_vanish.records.statistics import COLUMNS

MakeReading = Callable[..., Reading]
MakeProbed = Callable[..., Probed]

VERDICTS: tuple[Verdict, ...] = ("healthy", "vanishing", "exploding", "nonfinite", "unknown")
VANISHING = ("weights", "activations", "time", "dead", "silent", "saturated")
EXPLODING = ("growth", "update")

#: Of a run that has not learned anything.
STUCK = LearningProgress(count=PATIENCE, share=0.0, best=0.0)


def falling(layers: int, decades: float, lowest: float = 1e-9) -> list[float]:
    """RMS that falls by `decades` in all, the same at each layer, towards the input."""
    return [lowest * 10 ** (decades * i / (layers - 1)) for i in range(layers)]


def close(*values: float) -> Any:
    return pytest.approx(values if len(values) > 1 else values[0], abs=1e-9, nan_ok=True)


# Gradients of weights.


@pytest.mark.smoke
def test_a_decay_of_two_decades_is_the_threshold(make_reading: MakeReading) -> None:
    def verdict(rms: list[float]) -> Verdict:
        return diagnose(make_reading(rms=rms)).verdict

    assert verdict([0.01, 1.0]) == "vanishing"
    assert verdict([1.0, 0.01]) == "exploding"
    assert verdict(falling(12, 2.1)) == "vanishing"
    assert verdict(falling(12, 1.9)) == "healthy"
    assert verdict(falling(12, 2.1)[::-1]) == "exploding"
    assert verdict(falling(12, 1.9)[::-1]) == "healthy"


@pytest.mark.smoke
@pytest.mark.parametrize("rms", [[1.0], [0.0, 0.0, 0.0], [math.nan] * 3, [0.0, 1.0, math.nan]])
def test_where_depth_cannot_be_known_the_verdict_is_unknown(
    make_reading: MakeReading, rms: list[float]
) -> None:
    diagnosis = diagnose(make_reading(rms=rms, update_rms=math.nan))
    assert diagnosis.verdict == "unknown"
    assert math.isnan(diagnosis.vanishing_score)
    assert math.isnan(diagnosis.exploding_score)
    assert diagnosis.advice


@pytest.mark.smoke
def test_all_zero_gradients_are_unknown_and_named(make_reading: MakeReading) -> None:
    assert diagnose(make_reading(rms=[0.0, 0.0])).blame == ("dense_0", "dense_1")
    assert diagnose(make_reading(rms=[0.0, math.nan, 1.0])).blame == ("dense_0",)


amounts = st.one_of(
    st.sampled_from([0.0, math.nan, math.inf, 5e-324, 1e-45, 1e308]), st.floats(min_value=0)
)
signed = st.floats()
shares = st.one_of(st.sampled_from([0.0, 1.0, math.nan, 1 - 2**-53]), st.floats(0, 1))
counts = st.one_of(st.sampled_from([0.0, 0.0, 0.0, 1.0, math.nan]), st.floats(0, 1e12))


def column(name: str) -> st.SearchStrategy[float]:
    if name in ("gradient_mean", "gradient_min", "gradient_max", "preactivation_mean"):
        return signed
    if name.endswith(("fraction", "underflow", "entropy")):
        return shares
    return counts if name.endswith("count") else amounts


def tables(columns: Sequence[str], layers: int) -> st.SearchStrategy[Any]:
    rows = st.tuples(*(st.tuples(*map(column, columns)) for _ in range(layers)))
    return rows.map(lambda found: np.array(found).reshape(layers, len(columns)))


@st.composite
def arbitrary_readings(draw: st.DrawFn) -> Reading:
    layers, seen = draw(st.integers(0, 6)), draw(st.integers(0, 6))
    probed = Probed(
        loss=draw(signed),
        shuffled_loss=draw(signed),
        names=tuple(f"a{i}" for i in range(seen)),
        table=draw(tables(ACTIVATION_COLUMNS, seen)),
        profiles={
            f"r{i}": np.array(profile, float)
            for i, profile in enumerate(draw(st.lists(st.lists(amounts, max_size=6), max_size=2)))
        },
    )
    return Reading(
        step=0,
        wall_time=0.0,
        names=tuple(f"l{i}" for i in range(layers)),
        units=tuple(draw(st.integers(1, 10**6)) for _ in range(layers)),
        table=draw(tables(COLUMNS, layers)),
        probed=draw(st.sampled_from([None, probed])),
    )


@given(arbitrary_readings(), st.sampled_from([None, LearningProgress(), STUCK]))
def test_any_reading_has_a_consistent_diagnosis(
    reading: Reading, course: LearningProgress | None
) -> None:
    diagnosis = diagnose(reading, course)
    assert list(diagnosis.components) == [*VANISHING, *EXPLODING]
    for score, names in (
        (diagnosis.vanishing_score, VANISHING),
        (diagnosis.exploding_score, EXPLODING),
    ):
        known = [c for n in names if not math.isnan(c := diagnosis.components[n])]
        assert all(0 <= component <= 1 for component in known)
        assert score == max(known) if known else math.isnan(score)
    verdict = diagnosis.verdict
    causes = {"vanishing": VANISHING, "exploding": EXPLODING}
    causes["nonfinite"] = ("variables", "output", "gradient", "")
    assert diagnosis.cause in causes.get(verdict, ("",))
    if verdict in ("vanishing", "exploding"):
        assert diagnosis.components[diagnosis.cause] >= THRESHOLD
    assert len(diagnosis.blame) == len(set(diagnosis.blame))
    if verdict in ("vanishing", "exploding", "nonfinite"):
        assert diagnosis.blame
        assert diagnosis.advice
    if verdict == "healthy":
        assert not diagnosis.blame
        assert not diagnosis.advice
    sentence = diagnosis.sentence()
    assert sentence.endswith(".")
    assert "{" not in sentence


calm = st.lists(st.floats(-0.5, 0.5).map(lambda e: 10**e), min_size=3, max_size=20)


@given(calm, st.data())
def test_one_layer_that_is_quiet_by_construction_raises_no_alarm(
    make_reading: MakeReading, rms: list[float], data: st.DataObject
) -> None:
    # A bias that softmax or a normalisation cancels: rounding noise, anywhere.
    place = data.draw(st.integers(0, len(rms)))
    noise = data.draw(st.sampled_from([1e-10, 1e-17, 0.0]))
    reading = make_reading(rms=[*rms[:place], noise, *rms[place:]])
    assert diagnose(reading).verdict == "healthy"


@given(calm, st.sets(st.integers(0, 19)))
def test_frozen_layers_are_absent_and_missed_by_nobody(
    make_reading: MakeReading, rms: list[float], frozen: set[int]
) -> None:
    left = [value for i, value in enumerate(rms) if i not in frozen]
    assume(len(left) > 1)
    assert diagnose(make_reading(rms=left)).verdict == "healthy"


@pytest.mark.smoke
def test_a_zero_initialised_head_is_no_alarm_in_its_first_steps(
    make_reading: MakeReading, make_probed: MakeProbed
) -> None:
    # Step 0: the head is zero, and so is every gradient behind it.
    first = make_reading(
        rms=[0.0, 0.0, 0.0, 1.0],
        weight_rms=[1, 1, 1, 0],
        update_rms=[0, 0, 0, 0.01],
        probed=make_probed([0.0, 0.0, 0.0, 1.0], dead_fraction=[0.1, 0.1, 0.1, math.nan]),
    )
    for reading in (first, dataclasses.replace(first, probed=None)):
        assert diagnose(reading, STUCK).verdict == "unknown"
        assert diagnose(reading).blame == ("dense_0", "dense_1", "dense_2")
    # Step 1: it holds back most of the gradient, and changes by its own size.
    second = make_reading(
        rms=[1e-4, 1e-4, 1e-4, 1.0],
        weight_rms=[1, 1, 1, 0.01],
        update_rms=[1e-6] * 3 + [0.01],
        probed=make_probed([1e-4, 1e-4, 1e-4, 1.0]),
    )
    assert diagnose(second).verdict == "healthy"
    assert diagnose(second).vanishing_score == close(0.0)
    # The same with a head that does not open is vanishing.
    stuck = make_reading(rms=[1e-4, 1e-4, 1e-4, 1.0], weight_rms=1.0, update_rms=0.09)
    assert diagnose(stuck).verdict == "vanishing"


def test_zero_initialised_branches_beside_skips_are_no_alarm(make_reading: MakeReading) -> None:
    # Stem, then blocks of (branch, scale) with scale 0: the branches get nothing yet.
    rms = [1.0, *[0.0, 1.0] * 4, 1.0]
    assert diagnose(make_reading(rms=rms)).verdict == "healthy"
    rms = [1.0, *[1e-4, 1.0] * 4, 1.0]
    ratio = [1e-3, *[1e-3, 1.0] * 4, 1e-3]
    reading = make_reading(rms=rms, weight_rms=1.0, update_rms=ratio)
    assert diagnose(reading).verdict == "healthy"


def test_blame_names_the_layers_input_side_first(make_reading: MakeReading) -> None:
    rms = [1e-6, 1e-5, 1e-1, 1.0]
    assert diagnose(make_reading(rms=rms)).blame == ("dense_0", "dense_1")
    assert diagnose(make_reading(rms=rms[::-1])).blame == ("dense_0", "dense_1")
    nan = make_reading(rms=[1.0] * 3, nan_count=[2, 0, 0], inf_count=[0, 0, 1])
    assert diagnose(nan).blame == ("dense_0", "dense_2")


def test_the_blame_is_not_empty_at_the_very_threshold(make_reading: MakeReading) -> None:
    for i in range(1, 1000):
        for rms in ([i / 1e5, i / 1e3], [i / 1e3, i / 1e5]):
            diagnosis = diagnose(make_reading(rms=rms))
            assert diagnosis.verdict == "healthy" or diagnosis.blame == ("dense_0",)


def test_blame_for_growth_names_the_layers_that_grew(make_reading: MakeReading) -> None:
    # The last layer opens, which has nothing to do with the growth of the others.
    reading = make_reading(
        rms=[1e4, 1e3, 1e2, 1e1, 1.0, 1.0], weight_rms=1.0, update_rms=[1e-3] * 5 + [1.0]
    )
    diagnosis = diagnose(reading)
    assert diagnosis.verdict == "exploding"
    assert diagnosis.blame[0] == "dense_0"


@pytest.mark.smoke
def test_sentences(make_reading: MakeReading) -> None:
    def sentence(rms: list[float], **columns: Any) -> str:
        return diagnose(make_reading(rms=rms, **columns)).sentence()

    assert sentence([1.0] * 4) == "Gradients reach the whole network."
    assert sentence([1e-6, 1e-5, 1.0, 1.0]) == (
        "Gradients vanish on the way to the input. Starved: dense_0, dense_1."
    )
    assert sentence([1e4, 1.0]) == "Gradients explode. Too large: dense_0."
    assert sentence([1.0] * 2, update_rms=2.0) == (
        "Updates are as large as the weights. Thrown about: dense_0, dense_1."
    )
    assert sentence([1.0] * 2, nan_count=1.0) == (
        "Gradients are NaN or infinite. In dense_0, dense_1."
    )
    assert sentence([0.0, 1.0]) == (
        "Too few layers have a gradient that tells. Exactly zero: dense_0."
    )


def test_a_sentence_lists_no_zero_layers_where_there_are_none(make_reading: MakeReading) -> None:
    for rms in ([1.0], [math.nan, math.nan]):
        sentence = diagnose(make_reading(rms=rms)).sentence()
        assert sentence == "Too few layers have a gradient that tells."


def test_a_diagnosis_equals_that_of_an_equal_reading(make_reading: MakeReading) -> None:
    for rms in ([1.0, 1.0], [1.0], [math.nan]):
        assert diagnose(make_reading(rms=rms)) == diagnose(make_reading(rms=rms))
    assert diagnose(make_reading(rms=[1.0, 1.0])) != diagnose(make_reading(rms=[1.0, 2.0]))
    assert diagnose(make_reading(step=7)).step == 7


# Each cause by itself.


@pytest.mark.smoke
def test_causes_and_blame_of_vanishing(make_reading: MakeReading, make_probed: MakeProbed) -> None:
    def of(rms: Sequence[float] = (1.0,) * 5, **columns: Any) -> tuple[str, str, tuple[str, ...]]:
        names = columns.pop("names", ["a", "b", "c", "d", "e"])
        probed = make_probed(columns.pop("seen", [1.0] * 5), names, **columns)
        found = diagnose(make_reading(rms=rms, probed=probed), STUCK)
        return found.verdict, found.cause, found.blame

    assert of() == ("healthy", "", ())
    low = falling(5, 4.0)
    assert of(low) == ("vanishing", "weights", ("dense_0", "dense_1", "dense_2"))
    assert of(seen=low) == ("vanishing", "activations", ("a", "b", "c"))
    # Of two, the worse one.
    assert of(low, seen=falling(5, 6.0))[1] == "activations"
    assert of(falling(5, 6.0), seen=low)[1] == "weights"
    profiles = {"ok": falling(9, 1.9), "lstm": falling(30, 6.0), "gru": falling(30, 2.1)}
    assert of(profiles=profiles) == ("vanishing", "time", ("lstm", "gru"))
    dead = [0.9, math.nan, 1.0, 0.5, math.nan]
    cut = [0.0, 0.0, 1.0, 1.0, 1.0]
    assert of(seen=cut, dead_fraction=dead) == ("vanishing", "dead", ("c",))
    assert of(dead_fraction=dead) == ("healthy", "", ())
    flat = [0.9, 0.5, 0.4, 0.8, math.nan]
    assert of(saturated_fraction=flat) == ("vanishing", "saturated", ("a", "b", "d"))
    assert of(saturated_fraction=[0.9, 0.4, 0.4, 0.3, 0.9]) == ("healthy", "", ())


@pytest.mark.smoke
def test_vanishing_through_time_needs_the_course(
    make_reading: MakeReading, make_probed: MakeProbed
) -> None:
    reading = make_reading(probed=make_probed(profiles={"lstm": falling(30, 6.0)}))
    assert diagnose(reading).verdict == "healthy"
    assert math.isnan(diagnose(reading).components["time"])
    assert diagnose(reading, STUCK).components["time"] == close(1 - 2**-3)
    learned = dataclasses.replace(STUCK, best=0.5)
    assert diagnose(reading, learned).components["time"] == 0.0
    assert diagnose(reading, learned).verdict == "healthy"


@pytest.mark.smoke
def test_causes_and_blame_of_exploding(make_reading: MakeReading, make_probed: MakeProbed) -> None:
    def of(*args: Any, **columns: Any) -> tuple[str, str, tuple[str, ...]]:
        found = diagnose(make_reading(*args, **columns))
        return found.verdict, found.cause, found.blame

    high = falling(3, 4.0)[::-1]
    names = ["dense_0", "relu", "out"]
    assert of(rms=high) == ("exploding", "growth", ("dense_0", "dense_1"))
    assert of(probed=make_probed(high, names)) == ("exploding", "growth", ("dense_0", "relu"))
    # A layer that both profiles name is named once.
    both = ("dense_0", "dense_1", "relu")
    assert of(rms=high, probed=make_probed(high, names)) == ("exploding", "growth", both)
    profiles = {"ok": [1.0, 1.0], "rnn": falling(30, 5.0)[::-1]}
    assert of(probed=make_probed(profiles=profiles)) == ("exploding", "growth", ("rnn",))
    thrown = {"weight_rms": 1.0, "update_rms": [0.5, 1.0, 3.0]}
    assert of(**thrown) == ("exploding", "update", ("dense_1", "dense_2"))


@pytest.mark.smoke
def test_where_nan_began(make_reading: MakeReading, make_probed: MakeProbed) -> None:
    def of(nan_count: Any = 1.0, **columns: Any) -> tuple[str, str, tuple[str, ...]]:
        probed = make_probed([1.0] * 4, list("abcd"), **columns)
        found = diagnose(make_reading(nan_count=nan_count, probed=probed))
        return found.verdict, found.cause, found.blame

    # Forwards from the input, backwards from the loss.
    outputs, gradients = [0, 2, 0, 5], [7, 7, 1, 0]
    assert of(output_nonfinite_count=outputs, gradient_nonfinite_count=gradients) == (
        "nonfinite",
        "output",
        ("b",),
    )
    assert of(gradient_nonfinite_count=gradients) == ("nonfinite", "gradient", ("c",))
    assert of([1, 0, 2]) == ("nonfinite", "", ("dense_0", "dense_2"))
    # Training had none: the probe alone gives no verdict.
    assert of(0.0, output_nonfinite_count=outputs)[0] == "healthy"


@pytest.mark.smoke
@pytest.mark.parametrize("lost", [math.nan, math.inf])
@pytest.mark.parametrize("nan_count", [0.0, 1.0])
def test_weights_that_are_lost_are_to_blame(
    make_reading: MakeReading, make_probed: MakeProbed, lost: float, nan_count: float
) -> None:
    # The gradient need not tell, and where it does, it follows from them.
    probed = make_probed(output_nonfinite_count=5)
    weights = [0.1, lost, lost]
    found = diagnose(make_reading(weight_rms=weights, nan_count=nan_count, probed=probed))
    assert (found.verdict, found.cause) == ("nonfinite", "variables")
    assert found.blame == ("dense_1", "dense_2")
    # Weights that have no gradient are not read: that is no reason for alarm.
    missing = make_reading(weight_rms=weights, nan_count=math.nan)
    assert diagnose(missing).verdict != "nonfinite"


@pytest.mark.smoke
def test_verdicts_have_an_order(make_reading: MakeReading, make_probed: MakeProbed) -> None:
    sick: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
        ("nonfinite", "", {"nan_count": [1.0, 0, 0, 0]}, {}),
        ("exploding", "update", {"weight_rms": 1.0, "update_rms": [1e-3, 1e-3, 2.0, 2.0]}, {}),
        ("vanishing", "saturated", {}, {"saturated_fraction": 0.9}),
        ("exploding", "growth", {}, {"profiles": {"rnn": [1.0, 1e-6]}}),
        ("vanishing", "dead", {}, {"rms": [0, 0, 1, 1], "dead_fraction": [0, 0, 1.0, 0]}),
    ]
    for first, second in itertools.combinations(sick, 2):
        columns = {**second[2], **first[2]}
        probed = {"rms": [1.0] * 4, **second[3], **first[3]}
        if {first[1], second[1]} == {"saturated", "dead"}:
            continue  # One verdict: the worse one is its cause.
        found = diagnose(make_reading(rms=[1.0] * 4, probed=make_probed(**probed), **columns))
        assert (found.verdict, found.cause) == first[:2], (first, second)
    # With one layer vanishing is unknown, and the others are certain.
    assert diagnose(make_reading(rms=[1.0], update_rms=2.0)).verdict == "exploding"
    assert diagnose(make_reading(rms=[math.nan], nan_count=3.0)).verdict == "nonfinite"
    saturated = make_probed([1.0], saturated_fraction=0.9)
    assert diagnose(make_reading(rms=[1.0], probed=saturated)).verdict == "vanishing"
    assert diagnose(make_reading(rms=[1.0])).verdict == "unknown"
    # Gradients of activations are enough to know.
    assert diagnose(make_reading(rms=[1.0], probed=make_probed())).verdict == "healthy"


@pytest.mark.smoke
def test_growth_of_saturated_activations_is_vanishing(
    make_reading: MakeReading, make_probed: MakeProbed
) -> None:
    probed = make_probed(falling(6, 6.0)[::-1], saturated_fraction=0.9)
    found = diagnose(make_reading(rms=falling(6, 6.0)[::-1], probed=probed))
    assert (found.verdict, found.cause) == ("vanishing", "saturated")
    assert found.exploding_score > THRESHOLD


# A run.


def scaled(reading: Reading, factor: float) -> Reading:
    """The reading of a loss that is multiplied by a constant, at the same weights."""
    table = reading.table.copy()
    table[:, [i for i, name in enumerate(COLUMNS) if name.startswith("gradient_")]] *= factor
    probed = reading.probed
    if probed is not None:
        rows = probed.table.copy()
        rows[:, ACTIVATION_COLUMNS.index("gradient_rms")] *= factor
        profiles = {name: profile * factor for name, profile in probed.profiles.items()}
        probed = Probed(
            probed.loss * factor, probed.shuffled_loss * factor, probed.names, rows, profiles
        )
    return dataclasses.replace(reading, table=table, probed=probed)


positive = st.floats(1e-12, 1e12)


@given(
    st.lists(st.lists(positive, min_size=3, max_size=3), min_size=5, max_size=5),
    st.lists(st.integers(-100, 100), min_size=5, max_size=5),
    st.lists(positive, min_size=2, max_size=9),
    st.sampled_from([2.0**10, 2.0**-10, 1e3, 1e-3]),
)
def test_a_loss_that_is_multiplied_by_a_constant_changes_nothing(
    make_reading: MakeReading,
    make_probed: MakeProbed,
    seen: list[list[float]],
    losses: list[int],
    profile: list[float],
    factor: float,
) -> None:
    # Of whole losses no share is near the limit, `LEARNED_SHARE`, by a rounding.
    readings = [
        make_reading(
            rms=rms,
            probed=make_probed(
                rms[::-1], loss=loss + 0.25, shuffled_loss=63.0, profiles={"rnn": profile}
            ),
        )
        for rms, loss in zip(seen, losses)
    ]
    one, other = diagnoses(readings), diagnoses(scaled(reading, factor) for reading in readings)
    for a, b in zip(one, other):
        assert tuple(b.components.values()) == close(*a.components.values())
        near = [c for c in a.components.values() if abs(c - THRESHOLD) < 1e-6]
        ordered = sorted(c for c in a.components.values() if not math.isnan(c))
        tied = any(y - x < 1e-6 for x, y in itertools.pairwise(ordered) if x > 0)
        if not near and not tied:
            assert (b.verdict, b.cause) == (a.verdict, a.cause)


@pytest.mark.smoke
def test_diagnoses_follow_the_course(make_reading: MakeReading, make_probed: MakeProbed) -> None:
    def run_of(losses: Sequence[float]) -> list[Diagnosis]:
        profiles = {"lstm": falling(30, 6.0)}
        return diagnoses(
            make_reading(
                step=step, probed=make_probed(loss=loss, shuffled_loss=1.0, profiles=profiles)
            )
            for step, loss in enumerate(losses)
        )

    assert diagnoses([]) == []
    stuck = run_of([1.0] * 5)
    assert [d.step for d in stuck] == list(range(5))
    early = PATIENCE - 1
    assert [d.verdict for d in stuck] == ["healthy"] * early + ["vanishing"] * (5 - early)
    assert [math.isnan(d.components["time"]) for d in stuck[:early]] == [True] * early
    learns = run_of([1.0] * 5 + [0.1, 0.1, 1.0, 1.0])
    assert [d.components["time"] > 0 for d in learns[early:]] == [True] * (5 - early) + [False] * 4
    # One reading by itself is no run.
    assert diagnose(stuck[-1].reading).verdict == "healthy"


def test_components_are_those_of_the_scores(
    make_reading: MakeReading, make_probed: MakeProbed
) -> None:
    probed = make_probed(
        falling(3, 1.0),
        profiles={"rnn": falling(9, 3.0)},
        dead_fraction=[0.5, 0.5, math.nan],
        saturated_fraction=[math.nan, 0.2, 0.4],
    )
    reading = make_reading(rms=falling(3, 0.5), weight_rms=1.0, update_rms=0.05, probed=probed)
    found = diagnose(reading, STUCK)
    assert found.components == {
        "weights": close(1 - 2**-0.25),
        "activations": close(1 - 2**-0.5),
        "time": close(1 - 2**-1.5),
        "dead": 0.0,
        "silent": 0.0,
        "saturated": close(0.3),
        "growth": 0.0,
        "update": close(0.05 / 1.05),
    }
    assert found.vanishing_score == found.components["time"]
    assert found.exploding_score == found.components["update"]
    assert scores.worst(*found.components.values()) == found.components["time"]
    bare = diagnose(dataclasses.replace(reading, probed=None), STUCK).components
    assert [n for n in bare if math.isnan(bare[n])] == ["activations", "time", "dead", "saturated"]


def test_layers_that_hear_nothing_are_to_blame(make_reading: MakeReading) -> None:
    reading = make_reading(rms=[0.0, 0.0, 0.0, 1e-3, 1e-3], names="abcde")
    found = diagnose(reading, STUCK)
    assert (found.verdict, found.cause, found.blame) == ("vanishing", "silent", ("a", "b", "c"))
    # As a kernel of zeros in the last layer makes them, before it is updated.
    assert diagnose(reading, LearningProgress()).verdict == "healthy"


@pytest.fixture(scope="module")
def run(make_reading: MakeReading) -> Callable[[Sequence[Any]], list[Verdict]]:
    """The run's verdict after each of several readings with these verdicts."""
    bare = diagnose(make_reading())

    def after_each(verdicts: Sequence[Any]) -> list[Verdict]:
        history = [dataclasses.replace(bare, verdict=verdict) for verdict in verdicts]
        found: list[Verdict] = ["unknown"]
        for end in range(1, len(history) + 1):
            found.append(steadied(found[-1], history[:end]))
            # Only the last readings are looked at.
            last = history[max(0, end - AGREEING_READINGS) : end]
            assert steadied(found[-2], last) == found[-1]
        return found[1:]

    return after_each


Run = Callable[[Sequence[Any]], list[Verdict]]


@pytest.mark.smoke
def test_a_run_follows_readings_that_agree(run: Run) -> None:
    assert run(["vanishing"]) == ["unknown"]
    assert run(["vanishing"] * 2) == ["unknown", "vanishing"]
    assert run(["healthy"] * 3 + ["vanishing"] * 3) == (
        ["unknown"] + ["healthy"] * 4 + ["vanishing"]
    )
    assert run(["healthy", "vanishing", "vanishing"])[-1] == "unknown"


@pytest.mark.smoke
def test_alternating_verdicts_do_not_flap(run: Run) -> None:
    assert set(run(["healthy", "vanishing"] * 10)) == {"unknown"}
    settled = run(["healthy"] * 3 + ["vanishing", "healthy"] * 10)
    assert set(settled[1:]) == {"healthy"}


@pytest.mark.smoke
def test_nan_counts_at_once_and_is_left_slowly(run: Run) -> None:
    assert run(["nonfinite"]) == ["nonfinite"]
    assert run(["healthy"] * 5 + ["nonfinite"])[-1] == "nonfinite"
    assert run(["nonfinite", "healthy", "healthy"])[-1] == "nonfinite"
    assert run(["nonfinite", "healthy", "healthy", "healthy"])[-1] == "healthy"


@pytest.mark.smoke
def test_an_update_far_beyond_the_weights_counts_at_once(make_reading: MakeReading) -> None:
    def thrown(ratio: float, **columns: Any) -> Diagnosis:
        return diagnose(make_reading(weight_rms=1.0, update_rms=ratio, **columns))

    limit = DECISIVE_UPDATE / (1 - DECISIVE_UPDATE)
    healthy, little, far = thrown(0.01), thrown(0.99 * limit), thrown(1.01 * limit)
    assert [d.verdict for d in (healthy, little, far)] == ["healthy", "exploding", "exploding"]
    assert [d.decisive for d in (healthy, little, far)] == [False, False, True]
    assert steadied("healthy", [healthy, healthy, little]) == "healthy"
    assert steadied("healthy", [healthy, healthy, far]) == "exploding"
    assert steadied("unknown", [far]) == "exploding"
    assert steadied("exploding", [far, healthy, healthy]) == "exploding"
    # NaN is what the verdict rests on, and growth is never certain by itself.
    assert thrown(2 * limit, nan_count=1.0).decisive
    assert not diagnose(make_reading(rms=[1e9, 1.0, 1.0])).decisive


@given(verdicts=st.lists(st.sampled_from(VERDICTS), min_size=1, max_size=40))
def test_a_run_changes_its_verdict_only_for_readings_that_agree(
    run: Run, verdicts: list[Verdict]
) -> None:
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


def test_the_blame_for_time_is_not_empty_at_the_very_threshold(
    make_reading: MakeReading, make_probed: Callable[..., Probed]
) -> None:
    probed = make_probed(profiles={"lstm": [13 / 1e5, 13 / 1e3]}, loss=1.0, shuffled_loss=1.0)
    readings = [make_reading(step=step, probed=probed) for step in range(3)]
    last = diagnoses(readings)[-1]
    assert (last.verdict, last.cause, last.blame) == ("vanishing", "time", ("lstm",))


def test_the_sentence_says_how_far_back_in_time_the_gradient_reaches(
    make_reading: MakeReading, make_probed: Callable[..., Probed]
) -> None:
    profile = [10.0**exponent for exponent in range(-9, 1)]
    probed = make_probed(profiles={"lstm": profile}, loss=1.0, shuffled_loss=1.0)
    last = diagnoses([make_reading(step=step, probed=probed) for step in range(3)])[-1]
    assert last.sentence().endswith("They reach back only so far: lstm (2 of 9 steps).")
