from __future__ import annotations

import pytest

from keras_vanish.diagnosis.findings.words import LONGEST_NAME, named


@pytest.mark.smoke
def test_of_many_layers_the_first_are_named() -> None:
    names = [f"l{i}" for i in range(8)]
    assert named("Starved: {layers}.", names) == "Starved: l0, l1, l2, l3, l4, l5 and 2 more."
    assert named("Starved: {layers}.", names[:6]).endswith("l4, l5.")


@pytest.mark.parametrize("name", ["{layers}", "{0}", "{", "}{", "a{layers}b"])
def test_names_may_hold_braces(name: str) -> None:
    assert named("Too large: {layers}.", [name]) == f"Too large: {name}."
    assert named("In {layers}.", [name, "b"]) == f"In {name}, b."


def test_a_longer_name_is_cut() -> None:
    assert named("{layers}", ["x" * (LONGEST_NAME + 1)]) == "x" * LONGEST_NAME
