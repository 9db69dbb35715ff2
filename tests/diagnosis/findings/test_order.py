"""The list of illnesses in `findings/__init__.py`."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from keras_vanish.diagnosis import findings
from keras_vanish.diagnosis.findings import ILLNESSES, ORDER, SCORED, illness_of
from keras_vanish.diagnosis.findings.finding import Illness, ScoredIllness

#: Every verdict with every cause that `diagnose` gives it, worst first.
OUTCOMES = [
    *(("nonfinite", cause) for cause in ("variables", "output", "gradient", "")),
    *(("exploding", cause) for cause in ("update", "growth")),
    *(("vanishing", cause) for cause in ("weights", "activations", "time", "dead")),
    *(("vanishing", cause) for cause in ("silent", "saturated")),
    ("unknown", ""),
    ("healthy", ""),
]

#: In the order in which tables and event files show them.
COMPONENTS = ["weights", "activations", "time", "dead", "silent", "saturated", "growth", "update"]


def words_of(verdict: str, cause: str, layers: list[str]) -> str:
    illness = illness_of(verdict, cause)
    return f"{illness.words} {illness.words_for_layers}".replace("{layers}", ", ".join(layers))


@pytest.mark.smoke
def test_the_order_of_illnesses_and_of_components() -> None:
    assert [(i.verdict, i.cause) for group in ORDER for i in group] == OUTCOMES
    assert sorted((i.verdict, i.cause) for i in ILLNESSES) == sorted(OUTCOMES)
    assert [illness.cause for illness in SCORED] == COMPONENTS


def test_an_illness_is_a_file_and_every_file_is_in_the_list() -> None:
    files = [Path(inspect.getfile(type(illness))).stem for illness in ILLNESSES]
    assert len(set(files)) == len(files)
    helpers = {"__init__", "depth", "evidence", "finding", "float16", "words"}
    there = {path.stem for path in Path(inspect.getfile(findings)).parent.glob("*.py")}
    assert there - helpers == set(files)


def test_groups_have_one_verdict_and_only_scores_compete() -> None:
    for group in ORDER:
        assert len({illness.verdict for illness in group}) == 1
        assert len(group) == 1 or all(isinstance(illness, ScoredIllness) for illness in group)


@pytest.mark.smoke
@pytest.mark.parametrize(("verdict", "cause"), OUTCOMES)
def test_every_outcome_has_words_and_advice(verdict: str, cause: str) -> None:
    illness = illness_of(verdict, cause)
    assert (illness.verdict, illness.cause) == (verdict, cause)
    bare, named = illness.words, words_of(verdict, cause, ["a", "b"]).rstrip()
    assert bare[0].isupper()
    assert bare.endswith(".")
    assert "{" not in bare + named
    assert named.startswith(bare)
    if verdict == "healthy":
        assert named == bare
        assert illness.advice == ()
    else:
        assert named.endswith("a, b.")
        assert illness.advice
        assert all(line.endswith((".", ").")) for line in illness.advice)


@pytest.mark.smoke
def test_causes_with_a_remedy_of_their_own_have_words_of_their_own() -> None:
    def vanishing(cause: str) -> Illness:
        return illness_of("vanishing", cause)

    causes = ("weights", "time", "dead", "silent", "saturated")
    assert len({words_of("vanishing", cause, ["a"]) for cause in causes}) == len(causes)
    assert len({vanishing(cause).advice for cause in causes}) == len(causes)
    assert vanishing("weights").words == vanishing("activations").words
    assert "LSTM" in vanishing("time").advice[0]
    assert "learning rate" in vanishing("dead").advice[0]
    assert "float16" in vanishing("silent").advice[0]
    assert "initial weights" in vanishing("saturated").advice[0]
    origins = ("variables", "output", "gradient", "")
    assert len({words_of("nonfinite", cause, ["a"]) for cause in origins}) == len(origins)
    assert "auto_rollback" in illness_of("nonfinite", "variables").advice[0]


def test_a_cause_that_no_illness_has_is_spoken_of_as_the_mildest_of_the_verdict() -> None:
    assert illness_of("vanishing", "") is illness_of("vanishing", "weights")
    assert illness_of("exploding", "tired") is illness_of("exploding", "growth")
    assert illness_of("nonfinite", "tired") is illness_of("nonfinite", "")


def test_a_verdict_that_is_none_is_an_error() -> None:
    with pytest.raises(KeyError, match="tired"):
        illness_of("tired", "")
