from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_vanish.interventions import Intervention, Observation
from keras_vanish.interventions.checks import check_number, check_whole
from keras_vanish.interventions.intervention import Action
from keras_vanish.records.probed import Probed

MakeObservation = Callable[..., Observation]

FIGURES = st.dictionaries(st.text(), st.floats())


def strict(line: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(line, parse_constant=refuse)


@given(
    step=st.integers(),
    action=st.sampled_from(get_args(Action)),
    reason=st.text(),
    before=FIGURES,
    after=FIGURES,
    dry_run=st.booleans(),
)
def test_json_is_one_strict_line_and_comes_back(**fields: Any) -> None:
    intervention = Intervention(**fields)
    line = intervention.to_json()
    assert "\n" not in line
    strict(line)
    assert Intervention.from_json(line) == intervention


def test_json_has_null_for_nan_and_words_for_infinities() -> None:
    figures = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.5}
    values = strict(Intervention(3, "clip", "why", figures).to_json())
    assert values["before"] == {"a": None, "b": "inf", "c": "-inf", "d": 0.5}


@pytest.mark.parametrize("line", ["", "[1]", "{}", '{"step": 1}', "null"])
def test_a_line_that_is_no_intervention_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"Not the line of an intervention.*Received: "):
        Intervention.from_json(line)


def test_an_unknown_action_is_refused() -> None:
    with pytest.raises(ValueError, match="Not an action of an intervention. Received: action='x'"):
        Intervention(0, "x", "why")  # type: ignore[arg-type]


def test_the_figures_are_copies() -> None:
    figures = {"factor": 1.0}
    intervention = Intervention(0, "clip", "why", figures, figures)
    figures["factor"] = 2.0
    assert intervention.before == intervention.after == {"factor": 1.0}


def test_a_sentence_says_what_changed_and_why() -> None:
    before = {"learning_rate": 1.0, "same": 2.0, "unknown": 1.0, "gone": 1.0}
    after = {"learning_rate": 3e-4, "same": 2.0, "unknown": math.nan, "new": 1.0}
    done = Intervention(7, "lower_rate", "too large", before, after)
    assert done.sentence() == (
        "Step 7: lowered the learning rate (learning rate 1 → 0.0003): too large"
    )


def test_a_dry_run_says_what_would_be_done() -> None:
    for action in get_args(Action):
        words = Intervention(7, action, "why", dry_run=True).sentence()
        assert words.startswith("Step 7: would ")
        assert "would" not in Intervention(7, action, "why").sentence()


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


@pytest.mark.parametrize("value", [2, 2.0, True, "3", None])
def test_a_field_that_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="size must be a whole number, at least 3. Received: size"):
        check_whole("size", value, 3)
    check_whole("size", 3, 3)


@pytest.mark.parametrize("value", [0, 1, math.nan, math.inf, -1.0, True, "0.5", None])
def test_a_field_out_of_its_limits_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="share must be a finite number above 0 and below 1. Rec"):
        check_number("share", value, above=0.0, below=1.0)
    check_number("share", 0.5, above=0.0, below=1.0)
    check_number("share", 5, above=0.0)


def test_a_sentence_gives_the_first_figures_only() -> None:
    before = {f"dense_{n}": 1.0 for n in range(9)}
    after = dict.fromkeys(before, 2.0)
    sentence = Intervention(3, "reinitialize", "because.", before, after).sentence()
    assert "dense_2 1 → 2, and 6 more): because." in sentence
    assert "dense_3" not in sentence
