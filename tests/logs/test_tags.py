from __future__ import annotations

import pytest

from keras_vanish.logs.tags import Kind, kind_of, labels, tag_of, utf8


@pytest.mark.parametrize("count", [1, 9, 10, 100, 101, 200, 1001])
def test_labels_sort_by_depth(count: int) -> None:
    names = [f"layer_{count - i}" for i in range(count)]
    found = labels(names)
    assert sorted(found) == found
    assert [label.partition("_")[2] for label in found] == names


def test_labels_have_as_many_digits_as_needed() -> None:
    assert labels(["a", "b"]) == ["00_a", "01_b"]
    assert labels(["a"] * 100)[-1] == "99_a"
    assert labels(["a"] * 200)[7] == "007_a"


@pytest.mark.parametrize(
    ("tag", "kind"),
    [
        ("gradient_flow/0badf00d", "record"),
        ("gradient_flow/activations/0badf00d", "activations"),
        ("gradient_flow/profile/0badf00d", "profile"),
        ("gradient_flow/loss/0badf00d", "loss"),
        ("gradient_flow/interventions", "interventions"),
    ],
)
def test_a_tag_says_what_it_holds(tag: str, kind: Kind) -> None:
    assert kind_of(tag) == kind
    if kind != "interventions":
        assert tag_of(kind, "0badf00d") == tag


def test_a_tag_is_utf8_whatever_the_name() -> None:
    assert utf8("a/\ud800") == "a/\\ud800"
    assert utf8("Schicht/層") == "Schicht/層"
