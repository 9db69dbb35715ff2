from __future__ import annotations

import pytest

from keras_vanish.logs.tags import labels


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
