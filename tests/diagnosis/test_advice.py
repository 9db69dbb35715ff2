from __future__ import annotations

import pytest

from keras_vanish.diagnosis.advice import advice, sentence

#: Every verdict with every cause that `diagnose` gives it.
OUTCOMES = [
    ("healthy", ""),
    *(("vanishing", cause) for cause in ("weights", "activations", "time", "dead")),
    *(("vanishing", cause) for cause in ("silent", "saturated")),
    *(("exploding", cause) for cause in ("growth", "update")),
    *(("nonfinite", cause) for cause in ("variables", "output", "gradient", "")),
    ("unknown", ""),
]


@pytest.mark.smoke
@pytest.mark.parametrize(("verdict", "cause"), OUTCOMES)
def test_every_outcome_has_words_and_advice(verdict: str, cause: str) -> None:
    bare, named = sentence(verdict, cause, []), sentence(verdict, cause, ["a", "b"])
    assert bare[0].isupper()
    assert bare.endswith(".")
    assert "{" not in bare + named
    assert named.startswith(bare)
    if verdict == "healthy":
        assert named == bare
        assert advice(verdict, cause) == ()
    else:
        assert named.endswith("a, b.")
        assert advice(verdict, cause)
        assert all(line.endswith((".", ").")) for line in advice(verdict, cause))


@pytest.mark.smoke
def test_causes_with_a_remedy_of_their_own_have_words_of_their_own() -> None:
    causes = ("weights", "time", "dead", "silent", "saturated")
    assert len({sentence("vanishing", cause, ["a"]) for cause in causes}) == len(causes)
    assert len({advice("vanishing", cause) for cause in causes}) == len(causes)
    assert sentence("vanishing", "weights", []) == sentence("vanishing", "activations", [])
    assert "LSTM" in advice("vanishing", "time")[0]
    assert "learning rate" in advice("vanishing", "dead")[0]
    assert "float16" in advice("vanishing", "silent")[0]
    assert "initial weights" in advice("vanishing", "saturated")[0]
    origins = ("variables", "output", "gradient", "")
    assert len({sentence("nonfinite", cause, ["a"]) for cause in origins}) == len(origins)
    assert "auto_rollback" in advice("nonfinite", "variables")[0]


def test_an_outcome_that_is_none_is_an_error() -> None:
    with pytest.raises(KeyError):
        sentence("tired", "", [])
    with pytest.raises(KeyError):
        advice("tired", "")


@pytest.mark.smoke
def test_of_many_layers_the_first_are_named() -> None:
    names = [f"l{i}" for i in range(8)]
    assert sentence("vanishing", "weights", names) == (
        "Gradients vanish on the way to the input. Starved: l0, l1, l2, l3, l4, l5 and 2 more."
    )
    assert sentence("vanishing", "weights", names[:6]).endswith("l4, l5.")


@pytest.mark.parametrize("name", ["{layers}", "{0}", "{", "}{", "a{layers}b"])
def test_names_may_hold_braces(name: str) -> None:
    assert sentence("exploding", "growth", [name]) == f"Gradients explode. Too large: {name}."
    assert sentence("nonfinite", "", [name, "b"]).endswith(f"In {name}, b.")


@pytest.mark.smoke
def test_what_float16_rounds_to_zero_is_said_first_and_of_healthy_runs_too() -> None:
    (line,) = advice("healthy", "", ["{layers}", "b"])
    assert line.startswith("float16 rounds gradients below 6e-8 to zero, here in {layers}, b:")
    assert "auto_scale_loss=True" in line
    assert "mixed_bfloat16" in line
    assert advice("vanishing", "time", ["b"])[1:] == advice("vanishing", "time")
    assert advice("healthy", "", [f"l{i}" for i in range(8)])[0].count("l5 and 2 more:") == 1
