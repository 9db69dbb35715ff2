"""What the guard does to gradients that are too large or not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from modes import MODES

from keras_vanish.capture.tensorflow.control.guard import WITHIN_REACH, Guard
from keras_vanish.capture.tensorflow.tap import tap, unwrapped

Array = npt.NDArray[Any]

KERNEL = np.linspace(-1.0, 2.0, 12, dtype=np.float32).reshape(3, 4)
GRADIENT = np.linspace(-3.0, 1.0, 12, dtype=np.float32).reshape(3, 4)
BIAS = np.full(4, 2.0, np.float32)
NORM = float(np.sqrt((GRADIENT**2).sum() + (BIAS**2).sum()))
NAN = np.where(np.arange(12).reshape(3, 4) == 5, np.nan, GRADIENT).astype(np.float32)
RATE = 0.1
NEVER = (math.inf, math.inf, math.inf)


class Guarded:
    """Two variables that an optimizer updates behind a guard."""

    def __init__(self, optimizer: Any, mode: str = "graph", **guard: Any) -> None:
        self.optimizer = optimizer
        self.kernel = keras.Variable(KERNEL, name="kernel")
        self.bias = keras.Variable(np.ones(4, np.float32), name="bias")
        self.guard = Guard(xla=mode == "xla", **guard)
        self.step: Callable[..., Any] = self._apply
        if mode != "eager":
            self.step = tf.function(self._apply, jit_compile=mode == "xla")

    def _apply(self, kernel: Any, bias: Any) -> None:
        with tap(self.optimizer, lambda variables, missing: None, guard=self.guard):
            self.optimizer.apply([kernel, bias], [self.kernel, self.bias])

    def __call__(self, kernel: Any = GRADIENT, bias: Any = BIAS) -> Array:
        self.step(tf.constant(kernel), tf.constant(bias))
        return np.concatenate([self.kernel.numpy().ravel(), self.bias.numpy()])


def unguarded(optimizer: Any, *gradients: tuple[Any, Any]) -> Array:
    kernel, bias = keras.Variable(KERNEL, name="kernel"), keras.Variable(np.ones(4, np.float32))
    for pair in gradients:
        optimizer.apply([tf.constant(g) for g in pair], [kernel, bias])
    return np.concatenate([kernel.numpy().ravel(), bias.numpy()])


def scaled(factor: float) -> tuple[Array, Array]:
    return np.float32(factor) * GRADIENT, np.float32(factor) * BIAS


@pytest.mark.smoke
@pytest.mark.parametrize("mode", MODES)
def test_a_limit_needs_no_new_tracing(mode: str) -> None:
    guarded = Guarded(keras.optimizers.SGD(RATE), mode)
    calm = guarded()
    np.testing.assert_allclose(calm, unguarded(keras.optimizers.SGD(RATE), scaled(1)), rtol=1e-6)
    guarded.guard.limit(NORM / 2, NORM / 4, math.inf)
    clipped = guarded()
    expected = unguarded(keras.optimizers.SGD(RATE), scaled(1), scaled(0.25))
    np.testing.assert_allclose(clipped, expected, rtol=1e-5)
    guarded.guard.limit(*NEVER)
    expected = unguarded(keras.optimizers.SGD(RATE), scaled(1), scaled(0.25), scaled(1))
    np.testing.assert_allclose(guarded(), expected, rtol=1e-5)
    seen = guarded.guard.read()
    np.testing.assert_allclose(seen.norms, [NORM] * 3, rtol=1e-6)
    assert (seen.clipped, seen.skipped) == (1, 0)
    assert guarded.guard.read().norms.size == 0
    if mode != "eager":
        assert guarded.step.experimental_get_tracing_count() == 1  # type: ignore[attr-defined]


@pytest.mark.smoke
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_step_that_is_not_finite_changes_nothing_but_the_count(mode: str, value: float) -> None:
    guarded = Guarded(keras.optimizers.Adam(RATE), mode)
    guarded()
    before = [v.numpy() for v in guarded.optimizer.variables[1:]]
    weights = guarded.kernel.numpy()
    bad = GRADIENT.copy()
    bad[1, 2] = value
    guarded(bad)
    np.testing.assert_array_equal(guarded.kernel.numpy(), weights)
    for variable, value_before in zip(guarded.optimizer.variables[1:], before):
        np.testing.assert_array_equal(variable.numpy(), value_before)
    assert int(guarded.optimizer.iterations.numpy()) == 2
    assert bool(guarded.guard.skipped_now.numpy())
    after = guarded()
    assert np.isfinite(after).all()
    assert not bool(guarded.guard.skipped_now.numpy())
    seen = guarded.guard.read()
    assert (seen.clipped, seen.skipped) == (0, 1)
    np.testing.assert_allclose(seen.norms, [NORM, math.nan, NORM], rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_the_reach_needs_no_history(mode: str) -> None:
    guarded = Guarded(keras.optimizers.SGD(RATE), mode)
    guarded.guard.limit(math.inf, math.inf, 3.0)
    start = unguarded(keras.optimizers.SGD(RATE))
    moved = np.linalg.norm(guarded(*scaled(1000)) - start)
    assert moved == pytest.approx(WITHIN_REACH * 3.0, rel=1e-4)
    before = np.concatenate([guarded.kernel.numpy().ravel(), guarded.bias.numpy()])
    assert np.linalg.norm(guarded(*scaled(1)) - before) == pytest.approx(RATE * NORM, rel=1e-4)
    assert guarded.guard.read().clipped == 1


def test_the_reach_follows_a_schedule() -> None:
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1e-6, 1.0])
    guarded = Guarded(keras.optimizers.SGD(schedule))
    guarded.guard.limit(math.inf, math.inf, 1.0)
    guarded()
    assert guarded.guard.read().clipped == 0
    guarded()
    assert guarded.guard.read().clipped == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_norm_whose_square_overflows_is_clipped_and_not_skipped(mode: str) -> None:
    guarded = Guarded(keras.optimizers.SGD(RATE), mode)
    guarded.guard.limit(10.0, 1.0, math.inf)
    expected = unguarded(keras.optimizers.SGD(RATE), scaled(1 / NORM))
    np.testing.assert_allclose(guarded(*scaled(1e25)), expected, rtol=1e-4)
    seen = guarded.guard.read()
    assert (seen.clipped, seen.skipped) == (1, 0)
    np.testing.assert_allclose(seen.norms, [1e25 * NORM], rtol=1e-4)


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "adam": lambda: keras.optimizers.Adam(RATE),
    "adamw": lambda: keras.optimizers.AdamW(RATE, weight_decay=0.5),
    "rmsprop": lambda: keras.optimizers.RMSprop(RATE, momentum=0.9),
    "clipped": lambda: keras.optimizers.SGD(RATE, momentum=0.9, clipnorm=0.5),
    "scaled": lambda: keras.optimizers.SGD(RATE, loss_scale_factor=1024.0),
    "accumulating": lambda: keras.optimizers.SGD(RATE, gradient_accumulation_steps=2),
}


@pytest.mark.parametrize("mode", ["graph", "xla"])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_calm_run_ends_bit_for_bit_as_without(name: str, mode: str) -> None:
    plain, with_guard = (ended(OPTIMIZERS[name](), mode, guarded) for guarded in (False, True))
    for one, other in zip(plain, with_guard):
        np.testing.assert_array_equal(one, other)


def ended(optimizer: Any, mode: str, guarded: bool) -> list[Array]:
    """Weights and slots after a few steps."""
    kernel = keras.Variable(KERNEL, name="kernel")
    bias = keras.Variable(np.ones(4, np.float32), name="bias")
    guard = Guard(xla=mode == "xla")
    x = tf.constant(np.random.default_rng(0).normal(size=(7, 3)), tf.float32)

    @tf.function(jit_compile=mode == "xla")
    def step() -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(tf.tanh(x @ kernel + bias) - 0.3))
            loss = optimizer.scale_loss(loss)
        grads = tape.gradient(loss, [kernel.value, bias.value])
        if not guarded:
            optimizer.apply(grads, [kernel, bias])
            return
        with tap(optimizer, lambda variables, missing: None, guard=guard):
            optimizer.apply(grads, [kernel, bias])

    for _ in range(6):
        step()
    return [v.numpy() for v in (kernel, bias, *optimizer.variables)]


def test_composes_with_the_clipping_of_the_user() -> None:
    guarded = Guarded(keras.optimizers.SGD(RATE, clipvalue=0.2))
    guarded.guard.limit(NORM / 2, NORM / 4, math.inf)
    expected = unguarded(keras.optimizers.SGD(RATE, clipvalue=0.2), scaled(0.25))
    np.testing.assert_allclose(guarded(), expected, rtol=1e-5)


@pytest.mark.usefixtures("cpu")
def test_limits_are_those_of_unscaled_gradients() -> None:
    guarded = Guarded(keras.optimizers.SGD(RATE, loss_scale_factor=1024.0))
    guarded.guard.limit(NORM * 2, NORM, math.inf)
    guarded(*scaled(1024))
    assert guarded.guard.read().clipped == 0
    before = guarded.kernel.numpy()
    guarded(*scaled(4096))
    seen = guarded.guard.read()
    np.testing.assert_allclose(seen.norms, [4 * NORM], rtol=1e-5)
    np.testing.assert_allclose(guarded.kernel.numpy(), before - RATE * GRADIENT, rtol=1e-5)


@pytest.mark.smoke
@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_the_accumulated_gradient_is_clipped(mode: str) -> None:
    optimizer = keras.optimizers.SGD(RATE, gradient_accumulation_steps=2)
    guarded = Guarded(optimizer, mode)
    guarded.guard.limit(NORM, NORM / 2, math.inf)
    guarded(*scaled(10))  # One part may be as large as it likes: the other may outweigh it.
    np.testing.assert_array_equal(guarded.kernel.numpy(), KERNEL)
    guarded(*scaled(-9.9))
    np.testing.assert_allclose(guarded.kernel.numpy(), KERNEL - RATE * 0.05 * GRADIENT, rtol=1e-3)
    guarded(*scaled(3))
    before = guarded.kernel.numpy()
    guarded(*scaled(1))
    np.testing.assert_allclose(guarded.kernel.numpy(), before - RATE * GRADIENT / 2, rtol=1e-4)
    seen = guarded.guard.read()
    np.testing.assert_allclose(seen.norms, [0.05 * NORM, 2 * NORM], rtol=1e-3)
    assert seen.clipped == 1


@pytest.mark.parametrize("first", [True, False])
def test_a_part_that_is_not_finite_is_left_out_of_the_accumulated(first: bool) -> None:
    optimizer = keras.optimizers.SGD(RATE, gradient_accumulation_steps=2)
    guarded = Guarded(optimizer)
    for gradient in (NAN, GRADIENT) if first else (GRADIENT, NAN):
        guarded(gradient)
    np.testing.assert_allclose(guarded.kernel.numpy(), KERNEL - RATE * GRADIENT / 2, rtol=1e-5)
    assert guarded.guard.read().skipped == 1


def test_a_loss_scaler_handles_its_own_overflow() -> None:
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(RATE), initial_scale=1024.0
    )
    guarded = Guarded(optimizer)
    guarded(*scaled(math.inf))
    assert int(unwrapped(optimizer).iterations.numpy()) == 0
    assert guarded.guard.read().norms.size == 0
    guarded.guard.limit(NORM / 2, NORM / 4, math.inf)
    guarded(*scaled(512))  # The scale has been halved.
    np.testing.assert_allclose(guarded.kernel.numpy(), KERNEL - RATE * GRADIENT / 4, rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_units_are_clipped_by_themselves(mode: str) -> None:
    guarded = Guarded(keras.optimizers.SGD(RATE), mode, unitwise=True)
    guarded.guard.limit(1.5, math.inf, math.inf)
    ratios = np.linalg.norm(GRADIENT, axis=0) / np.linalg.norm(KERNEL, axis=0)
    factors = np.minimum(1, 1.5 / ratios)
    assert 0 < (factors < 1).sum() < 4
    guarded()
    np.testing.assert_allclose(
        guarded.kernel.numpy(), KERNEL - RATE * GRADIENT * factors, rtol=1e-5
    )
    np.testing.assert_allclose(guarded.bias.numpy(), 1 - RATE * BIAS * (1.5 * 2 / 4), rtol=1e-5)
    assert guarded.guard.read().clipped == 1


def test_a_guard_that_does_not_enforce_only_counts() -> None:
    guarded = Guarded(keras.optimizers.SGD(RATE), enforces=False)
    guarded.guard.limit(NORM / 2, NORM / 4, math.inf)
    np.testing.assert_array_equal(guarded(), unguarded(keras.optimizers.SGD(RATE), scaled(1)))
    assert guarded.guard.read().clipped == 1
    assert math.isnan(guarded(NAN).sum())
    assert guarded.guard.read().skipped == 1


def test_a_sparse_gradient_is_clipped_and_stays_sparse() -> None:
    table = keras.Variable(np.ones((6, 2), np.float32), name="table")
    optimizer = keras.optimizers.SGD(RATE)
    guard = Guard(xla=False)
    guard.limit(1.0, 1.0, math.inf)

    @tf.function
    def step() -> None:
        slices = tf.IndexedSlices(tf.constant([[3.0, 4.0]]), tf.constant([2]), tf.constant([6, 2]))
        with tap(optimizer, lambda variables, missing: None, guard=guard):
            optimizer.apply([slices], [table])

    step()
    expected = np.ones((6, 2), np.float32)
    expected[2] -= RATE * np.array([0.6, 0.8])
    np.testing.assert_allclose(table.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(guard.read().norms, [5.0])


def test_other_variables_than_the_first_are_left_alone() -> None:
    guarded = Guarded(keras.optimizers.SGD(RATE), "eager")
    guarded()
    guarded.guard.limit(1e-6, 1e-6, math.inf)
    other = keras.Variable(np.ones(2, np.float32))
    optimizer = keras.optimizers.SGD(RATE)
    with tap(optimizer, lambda variables, missing: None, guard=guarded.guard):
        optimizer.apply([tf.ones(2)], [other])
    np.testing.assert_allclose(other.numpy(), 0.9)
