from __future__ import annotations

import json
import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_vanish.interventions import Intervention
from keras_vanish.interventions.intervention import Action

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


def test_a_sentence_gives_the_first_figures_only() -> None:
    before = {f"dense_{n}": 1.0 for n in range(9)}
    after = dict.fromkeys(before, 2.0)
    sentence = Intervention(3, "reinitialize", "because.", before, after).sentence()
    assert "dense_2 1 → 2, and 6 more): because." in sentence
    assert "dense_3" not in sentence
