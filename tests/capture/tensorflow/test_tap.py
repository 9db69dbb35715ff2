"""What the tap sees of an optimizer that is given known gradients."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from modes import MODES
from numerics import rms

from keras_vanish.capture.tensorflow.recorder import Recorder, Row
from keras_vanish.capture.tensorflow.tap import tap, unwrapped
from keras_vanish.capture.tensorflow.update import iterations_variable
from keras_vanish.records.statistics import FLOATS

Array = npt.NDArray[Any]

KERNEL = np.linspace(-1.0, 2.0, 12, dtype=np.float32).reshape(3, 4)
GRADIENT = np.linspace(-3.0, 1.0, 12, dtype=np.float32).reshape(3, 4)
RATE = 0.1


class Tapped:
    """An optimizer of two variables, tapped, and what was recorded of each `apply`."""

    def __init__(
        self, optimizer: Any, mode: str = "graph", constraint: Any = None, every: int = 1
    ) -> None:
        self.optimizer = optimizer
        self.kernel = keras.Variable(KERNEL, name="kernel")
        self.bias = keras.Variable(np.ones(4, np.float32), name="bias")
        self.kernel.constraint = constraint
        self.missing: list[Any] = []
        self.recorder: Recorder | None = None
        self.probe: Callable[[], tf.Tensor | None] = lambda: None
        self._every = every
        self._mode = mode
        self._step: Callable[..., Any] = self._apply
        if mode != "eager":
            self._step = tf.function(self._apply, jit_compile=mode == "xla")

    def _recorder_for(self, variables: list[Any], missing: list[Any]) -> Recorder:
        self.missing = missing
        if self.recorder is None:
            shapes = [v.shape for v in variables]
            dtypes = [tf.float32] * len(shapes)
            self.recorder = Recorder(shapes, dtypes, self._every, 0, 8, self._mode == "xla", False)
        return self.recorder

    def _apply(self, kernel: Any, bias: Any) -> None:
        with tap(self.optimizer, self._recorder_for, lambda: self.probe()):
            self.optimizer.apply([kernel, bias], [self.kernel, self.bias])

    def __call__(self, kernel: Any, bias: Any = None) -> list[Row]:
        """Applies gradients; all rows so far."""
        constants = [None if g is None else tf.constant(g) for g in (kernel, bias)]
        self._step(*constants)
        return self.rows()

    def rows(self) -> list[Row]:
        assert self.recorder is not None
        return self.recorder.read(0)[1]


def column(row: Row, name: str, variable: int = 0) -> float:
    return float(row.floats[variable, FLOATS.index(name)])


@pytest.mark.smoke
@pytest.mark.parametrize("mode", MODES)
def test_gradients_weights_and_updates(mode: str) -> None:
    tapped = Tapped(keras.optimizers.SGD(RATE), mode)
    (row,) = tapped(GRADIENT, np.full(4, 2.0, np.float32))
    assert row.update == 0
    assert column(row, "rms") == pytest.approx(rms(GRADIENT))
    assert column(row, "mean") == pytest.approx(GRADIENT.mean())
    assert column(row, "min") == -3
    assert column(row, "max") == 1
    assert column(row, "rms_after_clipping") == pytest.approx(rms(GRADIENT))
    assert column(row, "weight_rms") == pytest.approx(rms(KERNEL))
    assert column(row, "update_rms") == pytest.approx(RATE * rms(GRADIENT))
    assert column(row, "rms", 1) == 2
    assert column(row, "update_rms", 1) == pytest.approx(0.2)
    np.testing.assert_allclose(tapped.kernel, KERNEL - RATE * GRADIENT, rtol=1e-6)
    assert [r.update for r in tapped(GRADIENT, np.ones(4, np.float32))] == [0, 1]


OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(RATE),
    "adamw": lambda: keras.optimizers.AdamW(RATE, weight_decay=0.5),
    "rmsprop": lambda: keras.optimizers.RMSprop(RATE, momentum=0.9),
    "clipped": lambda: keras.optimizers.SGD(RATE, momentum=0.9, clipnorm=0.5),
    "ema": lambda: keras.optimizers.SGD(RATE, use_ema=True, ema_overwrite_frequency=2),
}


@pytest.mark.parametrize("mode", ["graph", "xla"])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_the_update_is_measured_from_the_weights(name: str, mode: str) -> None:
    tapped = Tapped(OPTIMIZERS[name](), mode)
    for step in range(3):
        before = tapped.kernel.numpy()
        row = tapped(GRADIENT * (step + 1), np.ones(4, np.float32))[-1]
        moved = tapped.kernel.numpy().astype(np.float64) - before
        assert row.update == step
        assert column(row, "weight_rms") == pytest.approx(rms(before), rel=1e-5)
        assert column(row, "update_rms") == pytest.approx(rms(moved), rel=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_the_update_includes_the_constraint(mode: str) -> None:
    constraint = keras.constraints.MaxNorm(0.5)
    tapped = Tapped(keras.optimizers.SGD(1e-3), mode, constraint)
    (row,) = tapped(GRADIENT, np.ones(4, np.float32))
    moved = tapped.kernel.numpy() - KERNEL
    assert rms(moved) > 0.5
    assert column(row, "update_rms") == pytest.approx(rms(moved), rel=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        ({"clipnorm": 0.5}, 0.5 / math.sqrt(12)),
        ({"clipvalue": 1.5}, rms(np.clip(GRADIENT, -1.5, 1.5))),
        ({"global_clipnorm": 0.5}, 0.5 * rms(GRADIENT) / math.hypot(np.linalg.norm(GRADIENT), 4)),
        ({"clipnorm": 1e3}, rms(GRADIENT)),
    ],
)
def test_before_and_after_clipping(clip: dict[str, float], expected: float, mode: str) -> None:
    tapped = Tapped(keras.optimizers.SGD(RATE, **clip), mode)
    (row,) = tapped(GRADIENT, np.full(4, 2.0, np.float32))
    assert column(row, "rms") == pytest.approx(rms(GRADIENT))
    assert column(row, "rms_after_clipping") == pytest.approx(expected, rel=1e-5)
    assert column(row, "update_rms") == pytest.approx(RATE * expected, rel=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_the_loss_scale_factor_is_taken_out(mode: str) -> None:
    tapped = Tapped(keras.optimizers.SGD(RATE, loss_scale_factor=512.0, clipnorm=0.5), mode)
    (row,) = tapped(512 * GRADIENT, np.ones(4, np.float32))
    assert column(row, "rms") == pytest.approx(rms(GRADIENT))
    assert column(row, "rms_after_clipping") == pytest.approx(0.5 / math.sqrt(12))


@pytest.mark.smoke
@pytest.mark.parametrize("mode", MODES)
def test_with_accumulation_the_mean_gradient_of_each_update_is_seen(mode: str) -> None:
    optimizer = keras.optimizers.SGD(RATE, gradient_accumulation_steps=4)
    tapped = Tapped(optimizer, mode)
    scales = [1.0, -2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 2.0]
    for scale in scales:
        before = tapped.kernel.numpy()
        rows = tapped(scale * GRADIENT, np.ones(4, np.float32))
    assert [row.update for row in rows] == [0, 1]
    assert column(rows[0], "rms") == pytest.approx(1.5 * rms(GRADIENT), rel=1e-5)
    assert column(rows[1], "rms") == pytest.approx(0.5 * rms(GRADIENT), rel=1e-5)
    moved = tapped.kernel.numpy() - before
    assert column(rows[1], "update_rms") == pytest.approx(rms(moved), rel=1e-4)


@pytest.mark.skipif(
    keras.__version__.startswith("3.4."), reason="Keras clips each part before it is added up"
)
@pytest.mark.parametrize("mode", MODES)
def test_what_is_accumulated_is_clipped_when_it_is_applied(mode: str) -> None:
    optimizer = keras.optimizers.SGD(RATE, gradient_accumulation_steps=2, clipnorm=1.0)
    tapped = Tapped(optimizer, mode)
    tapped(GRADIENT, np.ones(4, np.float32))
    (row,) = tapped(3 * GRADIENT, np.ones(4, np.float32))
    assert column(row, "rms") == pytest.approx(2 * rms(GRADIENT), rel=1e-5)
    assert column(row, "rms_after_clipping") == pytest.approx(1 / math.sqrt(12), rel=1e-5)
    assert column(row, "update_rms") == pytest.approx(RATE / math.sqrt(12), rel=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_a_sparse_gradient_counts_the_rows_that_are_not_there(mode: str) -> None:
    optimizer = keras.optimizers.SGD(RATE)
    table = keras.Variable(np.ones((5, 2), np.float32), name="table")
    made: list[Recorder] = []

    def recorder_for(variables: list[Any], missing: list[Any]) -> Recorder:
        if not made:  # A function that makes variables is traced twice.
            made.append(Recorder([(5, 2)], [tf.float32], 1, 0, 1, mode == "xla", False))
        return made[0]

    def apply(values: tf.Tensor) -> None:
        slices = tf.IndexedSlices(values, tf.constant([1, 3, 1]), tf.constant([5, 2]))
        with tap(optimizer, recorder_for):
            optimizer.apply([slices], [table])

    step = apply if mode == "eager" else tf.function(apply, jit_compile=mode == "xla")
    step(tf.constant([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]))
    (row,) = made[0].read(0)[1]
    dense = np.array([[0, 0], [2, 4], [0, 0], [3, 4], [0, 0]])
    assert column(row, "rms") == pytest.approx(rms(dense))
    assert row.counts[0, 256] == 6
    np.testing.assert_allclose(table, 1 - RATE * dense, rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_a_variable_without_a_gradient_is_reported_as_missing(mode: str) -> None:
    tapped = Tapped(keras.optimizers.SGD(RATE), mode)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        (row,) = tapped(GRADIENT, None)
    assert row.floats.shape[0] == 1
    assert [v.name for v in tapped.missing] == ["bias"]
    assert (tapped.bias.numpy() == 1).all()


@pytest.mark.parametrize("mode", MODES)
def test_nan_and_inf_are_counted_and_passed_on(mode: str) -> None:
    broken = GRADIENT.copy()
    broken[0, 0], broken[1, 1], broken[2, 2] = math.nan, math.inf, -math.inf
    tapped = Tapped(keras.optimizers.SGD(RATE), mode)
    (row,) = tapped(broken, np.ones(4, np.float32))
    assert column(row, "nan_count") == 1
    assert column(row, "inf_count") == 2
    assert column(row, "rms") == pytest.approx(rms(broken[np.isfinite(broken)]))
    assert np.isnan(tapped.kernel.numpy()).sum() == 1
    assert np.isinf(tapped.kernel.numpy()).sum() == 2


@pytest.mark.smoke
@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_within_a_loss_scaling_wrapper_gradients_are_unscaled(mode: str) -> None:
    inner = keras.optimizers.SGD(RATE)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=256.0)
    assert unwrapped(optimizer) is inner
    tapped = Tapped(optimizer, mode)
    (row,) = tapped(256 * GRADIENT, np.ones(4, np.float32))
    assert column(row, "rms") == pytest.approx(rms(GRADIENT))
    # Its overflow is the wrapper's business: the step is skipped, and so is the row.
    broken = GRADIENT.copy()
    broken[0, 0] = math.inf
    assert len(tapped(broken, np.ones(4, np.float32))) == 1
    assert iterations_variable(inner).numpy() == 1


@pytest.mark.smoke
def test_the_optimizer_is_untouched_outside_of_the_block() -> None:
    optimizer = keras.optimizers.Adam(RATE)
    optimizer.build([keras.Variable(KERNEL)])
    attributes, variables = set(vars(optimizer)), len(optimizer.variables)

    def fail() -> None:
        with tap(optimizer, lambda variables, missing: None):
            assert "apply" in vars(optimizer)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert set(vars(optimizer)) == attributes
    assert len(optimizer.variables) == variables


def test_an_apply_of_the_users_own_is_called_and_restored() -> None:
    optimizer = keras.optimizers.SGD(RATE)
    calls: list[int] = []
    untouched = optimizer.apply

    def own(grads: Any, trainable_variables: Any = None) -> None:
        calls.append(len(grads))
        untouched(grads, trainable_variables)

    optimizer.apply = own
    tapped = Tapped(optimizer, "eager")
    assert len(tapped(GRADIENT, np.ones(4, np.float32))) == 1
    assert calls == [2]
    assert optimizer.apply is own


@pytest.mark.smoke
@pytest.mark.parametrize("mode", MODES)
def test_a_probe_is_recorded_as_it_is_before_the_update(mode: str) -> None:
    tapped = Tapped(keras.optimizers.SGD(RATE), mode)
    traces: list[int] = []

    def probe() -> tf.Tensor:
        traces.append(1)
        return tf.stack([tf.reduce_sum(tapped.kernel.value), 7.0])

    tapped.probe = probe
    expected = []
    for _ in range(3):
        expected.append([pytest.approx(tapped.kernel.numpy().sum(), rel=1e-5), 7.0])
        rows = tapped(GRADIENT, np.ones(4, np.float32))
    assert traces
    assert [row.probed.tolist() for row in rows if row.probed is not None] == expected
    assert tapped.kernel.numpy().sum() != expected[-1][0]


@pytest.mark.smoke
@pytest.mark.parametrize("mode", MODES)
def test_a_probe_runs_on_recorded_steps_only(mode: str) -> None:
    tapped = Tapped(keras.optimizers.SGD(RATE), mode, every=3)
    runs = tf.Variable(0.0)

    def probe() -> tf.Tensor:
        return tf.reshape(runs.assign_add(1.0), [1])

    tapped.probe = probe
    for _ in range(5):
        rows = tapped(GRADIENT, np.ones(4, np.float32))
    assert [row.update for row in rows] == [0, 3]
    assert runs.numpy() == 2
    assert [row.probed.tolist() for row in rows if row.probed is not None] == [[1.0], [2.0]]


@pytest.mark.parametrize("mode", MODES)
def test_without_a_probe_nothing_of_it_is_recorded(mode: str) -> None:
    (row,) = Tapped(keras.optimizers.SGD(RATE), mode)(GRADIENT, np.ones(4, np.float32))
    assert row.probed is None


@pytest.mark.parametrize("mode", MODES)
def test_two_taps_see_the_same(mode: str) -> None:
    tapped = Tapped(keras.optimizers.Adam(RATE, clipnorm=1.0), mode)
    other = Recorder([(3, 4), (4,)], [tf.float32] * 2, 1, 0, 1, mode == "xla", False)
    direct = tapped._apply

    @contextlib.contextmanager
    def outer() -> Iterator[None]:
        with tap(tapped.optimizer, lambda variables, missing: other):
            yield

    def apply(*gradients: Any) -> None:
        with outer():
            direct(*gradients)

    tapped._step = apply if mode == "eager" else tf.function(apply, jit_compile=mode == "xla")
    (row,) = tapped(GRADIENT, np.ones(4, np.float32))
    (outer_row,) = other.read(0)[1]
    np.testing.assert_array_equal(row.floats, outer_row.floats)
    np.testing.assert_array_equal(row.counts, outer_row.counts)


def test_an_unrecorded_call_is_passed_on() -> None:
    optimizer = keras.optimizers.SGD(RATE)
    kernel = keras.Variable(KERNEL)
    with tap(optimizer, lambda variables, missing: None):
        optimizer.apply_gradients([(tf.constant(GRADIENT), kernel)])
    np.testing.assert_allclose(kernel, KERNEL - RATE * GRADIENT, rtol=1e-6)


def test_variables_of_an_optimizer_that_is_built_need_not_be_given() -> None:
    tapped = Tapped(keras.optimizers.SGD(RATE), "eager")
    tapped.optimizer.build([tapped.kernel, tapped.bias])
    with tap(tapped.optimizer, tapped._recorder_for):
        tapped.optimizer.apply([tf.constant(GRADIENT), tf.ones(4)])
    (row,) = tapped.rows()
    assert column(row, "rms") == pytest.approx(rms(GRADIENT))


@pytest.mark.parametrize("mode", ["graph", "xla"])
@pytest.mark.parametrize("make", [keras.optimizers.Adam, keras.optimizers.SGD])
def test_a_trace_that_is_thrown_away_is_not_tapped(make: Callable[..., Any], mode: str) -> None:
    """Adam makes slots in its first trace, SGD none."""
    tapped = Tapped(make(RATE), mode)
    found, asked = tapped._recorder_for, []

    def recorder_for(variables: list[Any], missing: list[Any]) -> Recorder:
        asked.append(variables)
        return found(variables, missing)

    tapped._recorder_for = recorder_for  # type: ignore[method-assign]
    for calls in (1, 2):
        assert len(tapped(GRADIENT, np.ones(4, np.float32))) == calls
    assert len(asked) == 1


@pytest.mark.smoke
def test_iterations_count_calls_in_every_release() -> None:
    tapped = Tapped(keras.optimizers.SGD(RATE, gradient_accumulation_steps=2), "eager")
    for _ in range(3):
        tapped(GRADIENT, np.ones(4, np.float32))
    assert iterations_variable(tapped.optimizer).numpy() == 3


def traced_operations(
    optimizer: Any, gradient: Callable[[Any], Any], probe: Callable[[], Any] = lambda: None
) -> list[str]:
    """What stands outside of any branch where each traced step is recorded."""
    kernel = keras.Variable(KERNEL)
    recorder = Recorder([kernel.shape], [tf.float32], 1, 0, 1, xla=False, always=True)

    @tf.function
    def step(x: tf.Tensor) -> None:
        with tap(optimizer, lambda variables, missing: recorder, probe):
            optimizer.apply([gradient(x)], [kernel])

    x = tf.constant(GRADIENT)
    operations = step.get_concrete_function(x).graph.get_operations()
    step(x)
    (row,) = recorder.read(0)[1]
    assert column(row, "rms") == pytest.approx(rms(gradient(x)))
    return [operation.type for operation in operations]


@pytest.mark.parametrize(
    ("optimizer", "gradient", "apart"),
    [
        (keras.optimizers.SGD, lambda x: x, False),
        (keras.optimizers.SGD, lambda x: tf.matmul(x, tf.eye(4)), False),
        # What is computed from the gradients once more is made one with training's own outside.
        (keras.optimizers.SGD, lambda x: x * 2.0, True),
        (lambda: keras.optimizers.SGD(clipnorm=1.0), lambda x: x, True),
        (lambda: keras.optimizers.SGD(clipvalue=1.0), lambda x: x, True),
    ],
)
def test_gradients_are_read_outside_of_a_branch_where_nothing_is_computed_again(
    optimizer: Callable[[], Any], gradient: Callable[[Any], Any], apart: bool
) -> None:
    assert ("L2Loss" in traced_operations(optimizer(), gradient)) is not apart


def test_the_probe_is_within_a_branch_even_so() -> None:
    types = traced_operations(
        keras.optimizers.SGD(), lambda x: x, lambda: tf.reshape(tf.math.erfinv([0.5]), [1])
    )
    assert "L2Loss" in types
    assert "Erfinv" not in types
