"""What is built around a model's train step."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vanish.capture.backend import Plan
from keras_vanish.capture.tensorflow.control.loss_log import LossLog
from keras_vanish.capture.tensorflow.control.step_controls import StepControls
from keras_vanish.capture.tensorflow.installation import SHORT_RUN, Installation, Loop
from keras_vanish.capture.tensorflow.optimizers import COMPILED, optimizers_of

X = np.linspace(0, 1, 36, dtype=np.float32).reshape(12, 3)
Y = np.ones((12, 1), np.float32)


class Hooks:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.instead: Any = None

    def before_call(self, batches: Any) -> Any:
        self.told.append("before")
        return batches if self.instead is None else self.instead

    def after_call(self) -> None:
        self.told.append("after")

    def after_data(self) -> None:
        self.told.append("data")

    def removed(self) -> None:
        self.told.append("removed")


class Installs(keras.callbacks.Callback):
    def __init__(self, installed: Installation, hooks: Hooks) -> None:
        super().__init__()
        self.installed, self.hooks = installed, hooks

    def on_train_begin(self, logs: Any = None) -> None:
        self.installed.install(self.hooks)

    def on_train_end(self, logs: Any = None) -> None:
        self.installed.remove()


def model(optimizer: Any = "sgd", kind: type = keras.Sequential, **options: Any) -> Any:
    keras.utils.set_random_seed(0)
    net = kind([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    # Set later, as for debugging: `compile` would turn XLA off itself.
    eager = options.pop("run_eagerly", False)
    net.compile(optimizer, "mse", **options)
    net.run_eagerly = eager
    return net


def installation(
    net: Any, every: int | None = 1, steps: int | None = 3, losses: bool = False
) -> Installation:
    plan = Plan(every, probe=False, steps=steps)
    controls = StepControls(losses=LossLog() if losses else None)
    return Installation(net, optimizers_of(net), plan, controls)


def fit(net: Any, installed: Installation, hooks: Hooks, x: Any = X, **options: Any) -> None:
    given = {"y": Y[: len(x)], "batch_size": 4} if isinstance(x, np.ndarray) else {}
    net.fit(x, **given, shuffle=False, verbose=0, callbacks=[Installs(installed, hooks)], **options)


# Which optimizer is the main one.


class Own(keras.Sequential):
    """A model whose train step may apply any optimizer that it holds."""

    def train_step(self, data: Any) -> Any:
        return super().train_step(data)


def test_the_only_optimizer_is_the_main_one() -> None:
    assert installation(model()).main == COMPILED
    net = model(kind=Own)
    net.g_optimizer = net.optimizer
    assert list(optimizers_of(net)) == ["g_optimizer"]
    assert installation(net).main == "g_optimizer"


@pytest.mark.parametrize("scaled", [False, True])
def test_of_several_the_compiled_one_is_the_main_one(scaled: bool) -> None:
    optimizer = keras.optimizers.SGD()
    given = keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer
    net = model(given, kind=Own)
    net.d_optimizer = keras.optimizers.Adam()
    installed = installation(net)
    assert list(installed.recordings) == [COMPILED, "d_optimizer"]
    assert installed.main == COMPILED
    # Under the name that the user gave it, where it has one.
    net.g_optimizer = optimizer
    installed = installation(net)
    assert sorted(installed.recordings) == ["d_optimizer", "g_optimizer"]
    assert installed.main == "g_optimizer"


def test_of_several_others_none_is() -> None:
    net = model()
    others = {"a": keras.optimizers.SGD(), "b": keras.optimizers.SGD()}
    installed = Installation(net, others, Plan(1, False, None), StepControls())
    assert installed.main == ""
    assert {name: seen.optimizer for name, seen in installed.recordings.items()} == others


# One function or two.


@pytest.mark.parametrize(
    ("options", "every", "steps", "two"),
    [
        ({}, 5, SHORT_RUN - 1, False),
        ({}, 5, SHORT_RUN, True),
        # What is not known may be long.
        ({}, 5, None, True),
        ({}, None, SHORT_RUN - 1, False),
        ({"run_eagerly": True}, 5, None, False),
        # XLA would copy what it may read at every step.
        ({"jit_compile": True}, 5, 1, True),
        ({"jit_compile": True, "run_eagerly": True}, 5, 1, False),
        ({"jit_compile": True, "steps_per_execution": 4}, 5, 1, False),
        ({"jit_compile": True, "steps_per_execution": 4}, 5, SHORT_RUN, True),
    ],
)
def test_a_long_run_has_a_function_for_what_is_not_recorded(
    options: dict[str, Any], every: int | None, steps: int | None, two: bool
) -> None:
    net = model(**options)
    for losses in (False, True):
        installed = installation(net, every, steps, losses)
        # Nothing is due: the call is one of those that are not recorded.
        assert installed.wanted() != two
        # The model's own does where nothing acts in the step.
        other = installed.wrap_other(net.train_step)
        assert (other is not None) == (two and losses)
    installed.recordings[COMPILED].arm()
    assert installed.wanted()


def test_steps_per_call_are_those_of_the_model() -> None:
    assert installation(model()).steps_per_call == 1
    assert installation(model(steps_per_execution=3)).steps_per_call == 3
    assert Installation.gives_batches


def test_one_optimizer_that_is_due_is_enough() -> None:
    net = model(kind=Own)
    net.d_optimizer = keras.optimizers.Adam()
    installed = installation(net, every=5, steps=None)
    assert not installed.wanted()
    installed.recordings["d_optimizer"].arm()
    assert installed.wanted()


# Hooks.


@pytest.mark.smoke
def test_hooks_are_told_of_each_call_in_order() -> None:
    net, hooks = model(), Hooks()
    fit(net, installation(net), hooks, epochs=2)
    calls = [told for told in hooks.told if told != "data"]
    assert [told for told in calls if told != "before"] == ["after"] * 6 + ["removed"]
    assert calls[:4] == ["before", "after"] * 2


def endless() -> Iterator[Any]:
    for start in (0, 4):
        yield X[start : start + 4], Y[start : start + 4]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("eager", [False, True])
def test_hooks_are_told_of_the_end_of_the_data(eager: bool) -> None:
    net, hooks = model(run_eagerly=eager), Hooks()
    specs = (tf.TensorSpec((4, 3)), tf.TensorSpec((4, 1)))
    fit(
        net,
        installation(net),
        hooks,
        tf.data.Dataset.from_generator(endless, output_signature=specs),
    )
    assert hooks.told == [*["before", "after"] * 2, "before", "data", "removed"]


def test_hooks_may_end_the_data() -> None:
    class Ends(Hooks):
        def before_call(self, batches: Any) -> Any:
            if self.told.count("after") == 2:
                raise StopIteration
            return super().before_call(batches)

    net, hooks = model(), Ends()
    installed = installation(net)

    def run() -> None:
        fit(net, installed, hooks)

    with pytest.warns(UserWarning, match="ran out of data"):
        run()
    assert hooks.told == [*["before", "after"] * 2, "data", "removed"]


def test_hooks_give_the_batches() -> None:
    net, hooks = model(keras.optimizers.SGD(1.0)), Hooks()
    installed = installation(net)
    zeros = tf.data.Dataset.from_tensor_slices((np.zeros_like(X), np.zeros_like(Y))).batch(4)
    before = net.get_weights()
    hooks.instead = iter(zeros)
    # Nothing is learned of zeros.
    fit(net, installed, hooks)
    for was, now in zip(before, net.get_weights()):
        np.testing.assert_array_equal(was, now)
    hooks.instead = None
    fit(net, installed, hooks)
    assert not np.array_equal(before[0], net.get_weights()[0])


def test_a_failure_removes_it_once() -> None:
    class Breaks(Hooks):
        def after_call(self) -> None:
            super().after_call()
            self.before_call = self.broken  # type: ignore[method-assign]

        def broken(self, batches: Any) -> Any:
            raise RuntimeError("broken")

    net, hooks = model(), Breaks()
    net.make_train_function()
    own = net.train_function
    installed = installation(net)
    with pytest.raises(RuntimeError, match="broken"):
        fit(net, installed, hooks)
    assert hooks.told == ["before", "after", "removed"]
    assert net.train_function is own
    installed.remove()
    assert hooks.told.count("removed") == 1


def test_hooks_are_let_go_of_after_the_fit() -> None:
    net, hooks = model(), Hooks()
    installed = installation(net)
    fit(net, installed, hooks)
    told = len(hooks.told)
    installed.remove()
    installed.after_call()
    installed.after_data()
    assert installed.before_call("batches") == "batches"
    assert len(hooks.told) == told
    gone = weakref.ref(hooks)
    del hooks
    gc.collect()
    assert gone() is None


def test_the_next_fit_has_hooks_of_its_own_and_traces_nothing() -> None:
    traces: list[int] = []

    class Counts(Own):
        def train_step(self, data: Any) -> Any:
            traces.append(1)
            return super().train_step(data)

    net, first, second = model(kind=Counts), Hooks(), Hooks()
    installed = installation(net)
    fit(net, installed, first)
    seen, count = len(first.told), len(traces)
    fit(net, installed, second)
    assert len(first.told) == seen
    assert second.told.count("after") == 3
    assert len(traces) == count


# What is recorded.


def test_what_is_recorded_of_a_fit() -> None:
    class Reads(Hooks):
        def after_call(self) -> None:
            super().after_call()
            if recording.count(1):
                found.extend(recording.read())

    net = model()
    installed = installation(net, every=2)
    recording = installed.recordings[COMPILED]
    found: list[Any] = []
    assert not recording.traced
    recording.arm()
    fit(net, installed, Reads())
    assert recording.traced
    assert [captured.update for captured in found] == [0, 2]
    assert [layer.name for layer in found[0].layers] == [layer.name for layer in net.layers]
    assert recording.updates() == 3


def test_several_updates_of_one_call_are_all_recorded() -> None:
    class Reads(Hooks):
        def after_call(self) -> None:
            recording.count(4)
            found.extend(captured.update for captured in recording.read())

    net = model(steps_per_execution=4)
    installed = installation(net)
    recording = installed.recordings[COMPILED]
    found: list[int] = []
    recording.arm()
    net.fit(X, Y, 3, epochs=2, verbose=0, callbacks=[Installs(installed, Reads())])
    assert found == list(range(8))


@pytest.mark.smoke
@pytest.mark.parametrize("traced", [False, True])
def test_a_loop_records_what_its_optimizer_applies(traced: bool) -> None:
    net, optimizer = model(), keras.optimizers.SGD(0.1)
    loop = Loop(net, optimizer, 2, StepControls())
    assert (loop.main, loop.steps_per_call, loop.gives_batches) == (COMPILED, 1, False)
    recording = loop.recordings[loop.main]

    def step() -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(net(X) - Y))
        optimizer.apply(tape.gradient(loss, net.trainable_variables), net.trainable_variables)

    run = tf.function(step) if traced else step
    recording.arm()
    found = []
    with loop.open():
        assert "apply" in vars(optimizer)
        for _ in range(5):
            run()
            if recording.count(1):
                found += recording.read()
    assert "apply" not in vars(optimizer)
    assert [captured.update for captured in found] == [0, 2, 4]
    assert "train_step" not in vars(net)
