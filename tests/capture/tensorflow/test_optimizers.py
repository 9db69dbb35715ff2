"""Which optimizers a train step may apply, and what they are called."""

from __future__ import annotations

from typing import Any

import keras
import pytest
from keras import layers

from keras_vanish.capture.tensorflow.optimizers import COMPILED, have_one_rate, optimizers_of


def adam() -> Any:
    return keras.optimizers.Adam()


def dense(name: str) -> Any:
    return layers.Dense(2, name=name)


class Adversarial(keras.Model):
    """A model with a train step and optimizers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = keras.Sequential([layers.Input((2,)), dense("g")], name="generator")
        self.discriminator = keras.Sequential([layers.Input((2,)), dense("d")], name="critic")

    def call(self, x: Any) -> Any:
        return self.discriminator(self.generator(x))

    def train_step(self, data: Any) -> dict[str, Any]:
        return {}


def compiled(model: Any, optimizer: Any = "sgd") -> Any:
    model.compile(optimizer, "mse")
    return model


@pytest.mark.smoke
def test_the_train_step_of_keras_applies_the_compiled_optimizer_only() -> None:
    model = compiled(keras.Sequential([layers.Input((2,)), dense("a")]), adam())
    model.another = adam()
    assert optimizers_of(model) == {COMPILED: model.optimizer}


def test_a_model_that_is_not_compiled_has_none() -> None:
    assert optimizers_of(keras.Sequential([layers.Input((2,)), dense("a")])) == {}


@pytest.mark.smoke
def test_a_train_step_of_its_own_may_apply_any_optimizer_that_the_model_holds() -> None:
    model = compiled(Adversarial())
    model.d_optimizer = adam()
    model.others = [adam(), {"slow": adam()}]
    found = optimizers_of(model)
    assert list(found) == [COMPILED, "d_optimizer", "others.0", "others.1.slow"]
    assert found["d_optimizer"] is model.d_optimizer
    assert found["others.1.slow"] is model.others[1]["slow"]


def test_a_train_step_that_was_set_on_the_model_is_one_of_its_own() -> None:
    model = compiled(keras.Sequential([layers.Input((2,)), dense("a")]), adam())
    model.another = adam()
    vars(model)["train_step"] = lambda data: {}
    assert list(optimizers_of(model)) == [COMPILED, "another"]


def test_an_optimizer_of_a_part_is_named_by_the_path_of_the_part() -> None:
    model = compiled(Adversarial())
    model.generator.optimizer = model.optimizer
    model.discriminator.own = adam()
    # The compiled optimizer, under the name that the user gave it.
    assert list(optimizers_of(model)) == ["generator.optimizer", "critic.own"]


def test_the_optimizer_of_a_frozen_part_is_not_applied() -> None:
    model = compiled(Adversarial())
    model.discriminator.own = adam()
    model.discriminator.trainable = False
    assert list(optimizers_of(model)) == [COMPILED]


def test_a_wrapped_optimizer_and_what_it_wraps_are_one() -> None:
    model = compiled(Adversarial())
    model.inner = adam()
    model.scaled = keras.optimizers.LossScaleOptimizer(model.inner)
    assert list(optimizers_of(model)) == [COMPILED, "inner"]


def test_names_can_be_those_of_folders_where_capital_letters_do_not_count() -> None:
    model = compiled(Adversarial())
    model.by_name = {"a/b": adam(), "A:B": adam(), "..": adam(), "x" * 300: adam()}
    found = list(optimizers_of(model))
    assert found[:4] == [COMPILED, "by_name.a_b", "by_name.A_B_1", "by_name"]
    assert len({name.lower() for name in found}) == len(found) == 5
    assert max(map(len, found)) == 100


@pytest.mark.smoke
def test_one_learning_rate_rules_where_there_is_one_optimizer_that_has_one() -> None:
    class Several:
        """An optimizer that is made of others has no rate of its own."""

    assert have_one_rate({COMPILED: adam()})
    assert not have_one_rate({COMPILED: adam(), "other": adam()})
    assert not have_one_rate({COMPILED: Several()})
    assert not have_one_rate({})
