from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from factories import MakeReading
from hypothesis import given
from hypothesis import strategies as st

from keras_vanish.diagnosis import diagnose
from keras_vanish.diagnosis.findings import ORDER, illness_of
from keras_vanish.diagnosis.findings.evidence import Evidence
from keras_vanish.diagnosis.findings.finding import THRESHOLD, ScoredIllness, worst
from keras_vanish.records.readings import Reading


class Tired(ScoredIllness):
    """An illness as one would write it: the step is the score in percent."""

    verdict = "vanishing"
    cause = "tired"
    words = "The network is tired."
    words_for_layers = "Asleep: {layers}."
    advice = ("Let it rest.",)

    def measure(self, evidence: Evidence) -> float:
        return evidence.reading.step / 100

    def blame(self, evidence: Evidence) -> list[str]:
        return [layer.name for layer in evidence.layers]


@given(st.lists(st.one_of(st.just(math.nan), st.floats(0, 1)), max_size=8))
def test_the_worst_is_the_largest_that_is_known(components: list[float]) -> None:
    known = [component for component in components if not math.isnan(component)]
    found = worst(*components)
    assert found == max(known) if known else math.isnan(found)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("score", "expected"), [(THRESHOLD, True), (0.49, False), (1.0, True), (math.nan, False)]
)
def test_a_scored_illness_holds_where_its_component_is_flagged(
    make_reading: MakeReading, score: float, expected: bool
) -> None:
    assert Tired().holds(Evidence(make_reading()), {"tired": score}) is expected
    assert not Tired().decisive({"tired": score})


@pytest.mark.smoke
def test_a_sentence_names_the_layers_to_blame(make_reading: MakeReading) -> None:
    assert Tired().sentence(make_reading(), []) == "The network is tired."
    assert Tired().sentence(make_reading(), ["a", "b"]) == "The network is tired. Asleep: a, b."
    names = [f"l{i}" for i in range(8)]
    assert illness_of("vanishing", "weights").sentence(make_reading(), names) == (
        "Gradients vanish on the way to the input. Starved: l0, l1, l2, l3, l4, l5 and 2 more."
    )
    for name in ("{layers}", "{0}", "{", "}{", "a{layers}b"):
        growth, nonfinite = illness_of("exploding", "growth"), illness_of("nonfinite", "")
        said = growth.sentence(make_reading(), [name])
        assert said == f"Gradients explode. Too large: {name}."
        assert nonfinite.sentence(make_reading(), [name, "b"]).endswith(f"In {name}, b.")


def test_labels_stand_for_the_layers_in_the_sentence(make_reading: MakeReading) -> None:
    class Labelled(Tired):
        def labels(self, reading: Reading, blame: Sequence[str]) -> Sequence[str]:
            return [f"{name} ({reading.step})" for name in blame]

    said = Labelled().sentence(make_reading(step=3), ["a"])
    assert said == "The network is tired. Asleep: a (3)."


@pytest.mark.smoke
def test_a_new_illness_needs_nothing_but_its_place_in_the_order(
    make_reading: MakeReading, monkeypatch: pytest.MonkeyPatch
) -> None:
    tired = Tired()
    order = tuple((*g, tired) if g[0].verdict == "vanishing" else g for g in ORDER)
    scored = tuple(i for group in order[::-1] for i in group if isinstance(i, ScoredIllness))
    monkeypatch.setattr("keras_vanish.diagnosis.findings.ILLNESSES", scored)
    monkeypatch.setitem(diagnose.__globals__, "ORDER", order)
    monkeypatch.setitem(diagnose.__globals__, "SCORED", scored)
    found = diagnose(make_reading(step=80, rms=[1.0, 1.0]))
    assert (found.verdict, found.cause, found.vanishing_score) == ("vanishing", "tired", 0.8)
    assert found.blame == ("dense_0", "dense_1")
    assert found.advice == ("Let it rest.",)
    assert found.sentence() == "The network is tired. Asleep: dense_0, dense_1."
    assert diagnose(make_reading(step=40, rms=[1.0, 1.0])).verdict == "healthy"
