from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from diagnosis_helpers import NOT_LEARNED, Close, Falling
from factories import MakeProbed, MakeReading
from hypothesis import given
from hypothesis import strategies as st

from keras_vanish.diagnosis import (
    THRESHOLD,
    Diagnosis,
    LearningProgress,
    diagnose,
    diagnoses,
    worst,
)
from keras_vanish.diagnosis.findings import SCORED
from keras_vanish.diagnosis.progress import PATIENCE
from keras_vanish.records.activations import ACTIVATION_COLUMNS
from keras_vanish.records.probed import Probed
from keras_vanish.records.readings import Reading
from keras_vanish.records.statistics import COLUMNS

VANISHING = tuple(illness.cause for illness in SCORED if illness.verdict == "vanishing")


EXPLODING = tuple(illness.cause for illness in SCORED if illness.verdict == "exploding")


#: Of a run that has not learned anything.


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


@given(arbitrary_readings(), st.sampled_from([None, LearningProgress(), NOT_LEARNED]))
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
    if verdict == "vanishing":
        assert diagnosis.components[diagnosis.cause] == diagnosis.vanishing_score
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


def test_blame_names_the_layers_input_side_first(make_reading: MakeReading) -> None:
    rms = [1e-6, 1e-5, 1e-1, 1.0]
    assert diagnose(make_reading(rms=rms)).blame == ("dense_0", "dense_1")
    assert diagnose(make_reading(rms=rms[::-1])).blame == ("dense_0", "dense_1")
    nan = make_reading(rms=[1.0] * 3, nan_count=[2, 0, 0], inf_count=[0, 0, 1])
    assert diagnose(nan).blame == ("dense_0", "dense_2")


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
    close: Close,
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
def test_diagnoses_follow_the_course(
    falling: Falling, make_reading: MakeReading, make_probed: MakeProbed
) -> None:
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
    falling: Falling, close: Close, make_reading: MakeReading, make_probed: MakeProbed
) -> None:
    probed = make_probed(
        falling(3, 1.0),
        profiles={"rnn": falling(9, 3.0)},
        dead_fraction=[0.5, 0.5, math.nan],
        saturated_fraction=[math.nan, 0.2, 0.4],
    )
    reading = make_reading(rms=falling(3, 0.5), weight_rms=1.0, update_rms=0.05, probed=probed)
    found = diagnose(reading, NOT_LEARNED)
    expected = {
        "weights": close(1 - 2**-0.25),
        "activations": close(1 - 2**-0.5),
        "time": close(1 - 2**-1.5),
        "dead": 0.0,
        "silent": 0.0,
        "saturated": close(0.3),
        "growth": 0.0,
        "update": close(0.05 / 1.05),
    }
    assert {name: found.components[name] for name in expected} == expected
    assert found.vanishing_score == found.components["time"]
    assert found.exploding_score == found.components["update"]
    assert worst(*found.components.values()) == found.components["time"]
    bare = diagnose(dataclasses.replace(reading, probed=None), NOT_LEARNED).components
    assert [n for n in expected if math.isnan(bare[n])] == [
        "activations",
        "time",
        "dead",
        "saturated",
    ]
