"""TensorFlow as a backend: what the seam asks, answered for real small models."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vanish.capture.backend import Controls, GuardSettings, Plan
from keras_vanish.capture.tensorflow.backend import BACKEND
from keras_vanish.capture.tensorflow.control.guard import Guard
from keras_vanish.capture.tensorflow.control.loss_log import LossLog
from keras_vanish.capture.tensorflow.control.rate_factor import RateFactor
from keras_vanish.capture.tensorflow.installation import Installation, Loop
from keras_vanish.capture.tensorflow.snapshot import Snapshot
from keras_vanish.capture.tensorflow.train_function import TrainFunction

PLAN = Plan(every=5, probe=False, steps=10)


def model(optimizer: Any = "sgd", **options: Any) -> Any:
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    # Set later, as for debugging: `compile` would turn XLA off itself.
    eager = options.pop("run_eagerly", False)
    net.compile(optimizer, "mse", **options)
    net.run_eagerly = eager
    return net


def controls_of(net: Any, controls: Controls) -> Any:
    return BACKEND.installation(net, BACKEND.optimizers_of(net), PLAN, controls).controls


# What is built into a step.


def test_nothing_is_built_that_was_not_asked_for() -> None:
    assert controls_of(model(), Controls()).empty
    assert BACKEND.loop(model(), keras.optimizers.SGD(), 5, Controls()).controls.empty


@pytest.mark.parametrize("place", ["fit", "loop"])
def test_controls_are_built_as_asked(place: str) -> None:
    asked = Controls(GuardSettings(enforces=True, smallest_norm=None), rate=True, losses=True)
    if place == "fit":
        made: Any = controls_of(model(), asked)
    else:
        made = BACKEND.loop(model(), keras.optimizers.SGD(), 5, asked).controls
    assert isinstance(made.guard, Guard)
    assert isinstance(made.factor, RateFactor)
    assert isinstance(made.losses, LossLog)
    alone = controls_of(model(), Controls(rate=True))
    assert (alone.guard, alone.losses) == (None, None)
    assert isinstance(alone.factor, RateFactor)


@pytest.mark.parametrize("enforces", [False, True])
@pytest.mark.parametrize("smallest", [None, 0.5])
def test_a_guard_with_a_smallest_norm_clips_by_unit(smallest: float | None, enforces: bool) -> None:
    # One layer, whose gradient has a norm of a million: with a fixed kernel, by hand.
    net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, use_bias=False)])
    net.compile(keras.optimizers.SGD(1.0), lambda y, p: tf.reduce_sum(p * [[3e5, 4e5]]))
    kernel = np.array([[0.1, 4.0]], np.float32)
    net.layers[0].kernel.assign(kernel)
    controls = Controls(GuardSettings(enforces, smallest))
    installed = BACKEND.installation(net, BACKEND.optimizers_of(net), PLAN, controls)
    guard: Any = installed.controls.guard
    guard.limit(fires_above=0.01, clips_to=0.01, reach=math.inf)
    fit(net, installed, np.ones((1, 1), np.float32))
    moved = (kernel - net.layers[0].kernel.numpy())[0]
    if not enforces:
        np.testing.assert_allclose(moved, [3e5, 4e5])
    elif smallest is None:
        np.testing.assert_allclose(moved, [0.006, 0.008], rtol=1e-3)
    else:
        # Each unit to a share of its own weights, which count as the smallest norm at least.
        np.testing.assert_allclose(moved, [0.01 * smallest, 0.01 * 4.0], rtol=1e-3)
    log = guard.read()
    assert (log.clipped, log.skipped) == (1, 0)
    np.testing.assert_allclose(log.norms, [5e5])


def fit(net: Any, installed: Any, x: Any) -> None:
    class Hooks:
        def before_call(self, batches: Any) -> Any:
            return batches

        def after_call(self) -> None: ...
        def after_data(self) -> None: ...
        def removed(self) -> None: ...

    class Installs(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            installed.install(Hooks())

        def on_train_end(self, logs: Any = None) -> None:
            installed.remove()

    net.fit(x, np.zeros((len(x), 1), np.float32), 1, verbose=0, callbacks=[Installs()])


@pytest.mark.parametrize(
    ("options", "xla"),
    [
        ({"jit_compile": True}, True),
        ({"jit_compile": False}, False),
        ({"jit_compile": True, "run_eagerly": True}, False),
    ],
)
def test_parts_know_whether_xla_compiles_them(options: dict[str, Any], xla: bool) -> None:
    made = controls_of(model(**options), Controls(GuardSettings(True, None), rate=True))
    assert (made.guard.xla, made.factor.xla) == (xla, xla)


def test_what_watches() -> None:
    net = model()
    assert isinstance(
        BACKEND.installation(net, BACKEND.optimizers_of(net), PLAN, Controls()), Installation
    )
    loop = BACKEND.loop(net, net.optimizer, 5, Controls())
    assert isinstance(loop, Loop)
    assert loop.recordings[loop.main].optimizer is net.optimizer


# Whether a model can be watched.


def test_a_plain_model_can_be_watched_and_controlled() -> None:
    net = model()
    optimizers = BACKEND.optimizers_of(net)
    assert optimizers == {"optimizer": net.optimizer}
    assert BACKEND.refusal(net) is None
    assert list(BACKEND.limitations(net, optimizers, flags=True, probe=True)) == []
    assert BACKEND.has_one_rate(optimizers)
    assert BACKEND.can_control(net, optimizers)
    assert BACKEND.is_chief(net)


def test_two_rates_cannot_be_controlled() -> None:
    optimizers = {"a": keras.optimizers.SGD(), "b": keras.optimizers.SGD()}
    assert not BACKEND.has_one_rate(optimizers)
    assert not BACKEND.can_control(model(), optimizers)


def test_under_a_strategy_that_reduces_flags_cannot_act() -> None:
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        net = model()
    optimizers = BACKEND.optimizers_of(net)
    assert BACKEND.has_one_rate(optimizers)
    assert not BACKEND.can_control(net, optimizers)
    said = list(BACKEND.limitations(net, optimizers, flags=True, probe=True))
    assert said
    assert list(BACKEND.limitations(net, optimizers, flags=False, probe=False)) != said


def test_what_a_fit_left_behind_is_released() -> None:
    net = model()
    net.make_train_function()
    own = net.train_function
    installed: Any = BACKEND.installation(net, BACKEND.optimizers_of(net), PLAN, Controls())

    class Dies(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            installed._function.install()
            raise KeyboardInterrupt

    x = np.ones((1, 3), np.float32)
    with pytest.raises(KeyboardInterrupt):
        net.fit(x, x[:, :1], verbose=0, callbacks=[Dies()])
    assert isinstance(net.train_function, TrainFunction)
    with pytest.raises(RuntimeError, match="One GradientMonitor watches a fit"):
        BACKEND.release(net)  # Of the same fit, as far as can be told.
    net.history = object()
    BACKEND.release(net)
    assert net.train_function is own
    BACKEND.release(net)
    assert net.train_function is own


# The state of a training.


def test_the_learning_rate_is_that_of_the_step() -> None:
    assert BACKEND.learning_rate(keras.optimizers.SGD(0.25)) == 0.25
    net = model(keras.optimizers.SGD(keras.optimizers.schedules.InverseTimeDecay(1.0, 1, 1.0)))
    rates = []
    for _ in range(3):
        rates.append(BACKEND.learning_rate(net.optimizer))
        net.train_on_batch(np.ones((1, 3)), np.ones((1, 1)))
    np.testing.assert_allclose(rates, [1, 1 / 2, 1 / 3], rtol=1e-6)
    assert isinstance(rates[0], float)


def test_momentum_is_read_and_corrected() -> None:
    net = model(keras.optimizers.SGD(0.1, momentum=0.75))
    assert BACKEND.momentum(net.optimizer) == 0.75
    net.train_on_batch(np.ones((1, 3)), np.ones((1, 1)))
    before = [slot.numpy() for slot in net.optimizer.momentums]
    assert any(slot.any() for slot in before)
    BACKEND.correct_momentum(net.optimizer, 0.5)
    for was, slot in zip(before, net.optimizer.momentums):
        np.testing.assert_allclose(slot.numpy(), was / 2)


def test_slots_are_made_once() -> None:
    net = model(keras.optimizers.Adam())
    net.optimizer = optimizer = keras.optimizers.Adam()
    assert not optimizer.built
    BACKEND.build_optimizer(net, optimizer)
    assert optimizer.built
    slots = list(optimizer.variables)
    assert len(slots) >= 2 * len(net.trainable_variables)
    slots[-1].assign(slots[-1] + 1)
    BACKEND.build_optimizer(net, optimizer)
    assert [id(slot) for slot in optimizer.variables] == [id(slot) for slot in slots]
    assert (slots[-1].numpy() == 1).all()


def test_a_state_is_copied_and_assigned() -> None:
    net = model(keras.optimizers.SGD(0.1, momentum=0.9))
    before = net.get_weights()
    snapshot = BACKEND.snapshot(net, net.optimizer)
    assert isinstance(snapshot, Snapshot)
    net.train_on_batch(np.ones((1, 3)), np.ones((1, 1)))
    assert not np.array_equal(net.get_weights()[0], before[0])
    with BACKEND.assigning(net):
        snapshot.restore()
    for was, now in zip(before, net.get_weights()):
        np.testing.assert_array_equal(was, now)


def test_the_norm_is_that_of_the_trained_weights_as_they_are() -> None:
    net = model()
    net.layers[0].trainable = False
    norm = BACKEND.weights_norm(net)
    for scale in (1.0, 3.0):
        net.layers[1].kernel.assign(net.layers[1].kernel * scale)
        weights = np.concatenate([v.numpy().ravel() for v in net.layers[1].weights])
        assert norm() == pytest.approx(np.linalg.norm(weights), rel=1e-6)
    net.layers[1].kernel.assign(net.layers[1].kernel * math.nan)
    assert math.isnan(norm())


def test_the_norm_of_halves_does_not_overflow() -> None:
    net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(400, dtype="float16")])
    net.layers[0].kernel.assign(np.full((3, 400), 2000.0))
    norm = BACKEND.weights_norm(net)()
    assert norm == pytest.approx(2000 * math.sqrt(1200), rel=1e-3)


def test_the_norm_of_nothing() -> None:
    net = model()
    net.trainable = False
    assert BACKEND.weights_norm(net)() == 0.0
