"""An attribute that is replaced for a while."""

from __future__ import annotations

import pytest

from keras_vanish.capture.tensorflow.attributes import replaced


class Owner:
    def method(self) -> int:
        return 1


def test_a_method_of_the_class_shows_again() -> None:
    owner = Owner()
    with replaced(owner, "method", lambda: 2):
        assert owner.method() == 2
    assert owner.method() == 1
    assert vars(owner) == {}


def test_an_attribute_of_the_object_itself_is_given_back() -> None:
    owner = Owner()
    own = vars(owner)["method"] = lambda: 3
    with pytest.raises(KeyError), replaced(owner, "method", lambda: 2):
        raise KeyError
    assert owner.method is own  # type: ignore[comparison-overlap]
