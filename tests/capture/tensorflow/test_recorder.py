from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_vanish.capture.tensorflow import recorder as recorder_module
from keras_vanish.capture.tensorflow.recorder import NEVER, Recorder
from keras_vanish.records.bins import BINS
from keras_vanish.records.statistics import FLOATS

SHAPES = [(2, 3), (4,)]


def recorder(every: int = 1, first: int = 0, slots: int = 2, xla: bool = False) -> Recorder:
    return Recorder(SHAPES, [tf.float32] * 2, every, first, slots, xla, always=False)


def write(
    target: Recorder,
    update: int,
    gradient: float = 1.0,
    clipped: float | None = None,
    before: float = 1.0,
    after: float = 1.5,
    probed: list[float] | None = None,
) -> None:
    def constants(value: float) -> list[tf.Tensor]:
        return [tf.fill(shape, tf.constant(value)) for shape in SHAPES]

    number = tf.constant(update, tf.int64)
    target.keep_probed(None if probed is None else tf.constant(probed))
    read = target.before(
        constants(gradient),
        None if clipped is None else constants(clipped),
        constants(before),
    )
    target.keep(read)
    target.after(number, constants(after))


@pytest.mark.smoke
@pytest.mark.usefixtures("cpu")
def test_a_row_holds_what_was_written() -> None:
    target = recorder()
    write(target, 5, gradient=-2.0, clipped=-0.5, before=4.0, after=4.25)
    (row,) = target.read(0)[1]
    assert row.update == 5
    assert row.floats.shape == (2, len(FLOATS))
    assert row.counts.shape == (2, BINS)
    for floats, counts, size in zip(row.floats, row.counts, (6, 4)):
        assert dict(zip(FLOATS, floats.tolist())) == {
            "rms": 2.0,
            "mean": -2.0,
            "min": -2.0,
            "max": -2.0,
            "nan_count": 0.0,
            "inf_count": 0.0,
            "rms_after_clipping": 0.5,
            "weight_rms": 4.0,
            "update_rms": 0.25,
        }
        assert counts[128] == counts.sum() == size


def test_without_clipping_the_clipped_rms_is_that_of_the_gradient() -> None:
    target = recorder()
    write(target, 0, gradient=3.0)
    (row,) = target.read(0)[1]
    assert (row.floats[:, FLOATS.index("rms_after_clipping")] == 3.0).all()


def test_a_row_that_is_not_complete_is_not_counted() -> None:
    target = recorder()
    write(target, 0)
    ones = [tf.ones(shape) for shape in SHAPES]
    target.keep(target.before(ones, None, ones))
    assert target.read(0)[0] == 1
    assert target.due_at() == 1


@pytest.mark.usefixtures("cpu")
def test_after_n_writes_the_slots_hold_the_last_ones_oldest_first() -> None:
    target = recorder(slots=3)
    for update in range(5):
        write(target, update, gradient=float(update))
    written, rows = target.read(0)
    assert written == 5
    assert [row.update for row in rows] == [2, 3, 4]
    assert [row.floats[0, 0] for row in rows] == [2.0, 3.0, 4.0]
    assert [row.update for row in target.read(4)[1]] == [4]
    assert target.read(5) == (5, [])


@pytest.mark.smoke
def test_what_a_probe_found_stays_with_its_row() -> None:
    target = recorder(slots=3)
    for update in range(5):
        write(target, update, gradient=float(update), probed=[update, 10.0 * update])
    rows = target.read(0)[1]
    assert [row.update for row in rows] == [2, 3, 4]
    found = [row.probed for row in rows if row.probed is not None]
    assert [vector.tolist() for vector in found] == [[2.0, 20.0], [3.0, 30.0], [4.0, 40.0]]
    assert all(vector.dtype == np.float32 for vector in found)


@pytest.mark.smoke
def test_without_a_probe_a_row_has_none() -> None:
    target = recorder()
    write(target, 0)
    assert target.read(0)[1][0].probed is None


def test_what_a_probe_found_of_a_row_that_is_not_complete_is_not_read() -> None:
    target = recorder(slots=2)
    write(target, 0, probed=[1.0])
    ones = [tf.ones(shape) for shape in SHAPES]
    target.keep_probed(tf.constant([2.0]))
    target.keep(target.before(ones, None, ones))
    (row,) = target.read(0)[1]
    assert row.probed is not None
    assert row.probed.tolist() == [1.0]


@pytest.mark.parametrize("update", [0, (1 << 20) - 1, 1 << 20, (1 << 24) + 1, 123_456_789_012])
def test_update_numbers_are_exact(update: int) -> None:
    target = recorder()
    write(target, update)
    assert target.read(0)[1][0].update == update


def due(target: Recorder, update: int) -> bool:
    return bool(target.due(tf.constant(update, tf.int64)))


@pytest.mark.smoke
def test_every_n_updates_are_due() -> None:
    target = recorder(every=10, first=3)
    assert [due(target, update) for update in (0, 2, 3, 4)] == [False, False, True, True]
    write(target, 3)
    assert target.due_at() == 13
    assert [due(target, update) for update in (3, 12, 13)] == [False, False, True]


def test_only_arming_makes_an_update_due_where_nothing_repeats() -> None:
    target = recorder(every=NEVER, first=NEVER)
    assert not due(target, 10**9)
    target.arm()
    assert due(target, 0)
    write(target, 7)
    assert not due(target, 8)


def test_arming_comes_before_the_cadence() -> None:
    target = recorder(every=100)
    write(target, 0)
    target.arm()
    assert due(target, 1)
    write(target, 1)
    assert target.due_at() == 101


def test_half_and_double_precision() -> None:
    target = Recorder([(2,), (2,)], [tf.float16, tf.float64], 1, 0, 1, False, always=False)
    weights = [tf.constant([3e4, 3e4], tf.float16), tf.constant([1.0, 1.0], tf.float64)]
    update = tf.constant(0, tf.int64)
    target.keep(target.before(weights, None, weights))
    # Beyond float32's resolution at 1, and float16's range squared.
    target.after(update, [weights[0], weights[1] + 1e-12])
    (row,) = target.read(0)[1]
    np.testing.assert_allclose(row.floats[:, 0], [3e4, 1.0], rtol=1e-3)
    np.testing.assert_allclose(row.floats[:, FLOATS.index("update_rms")], [0, 1e-12], rtol=1e-3)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_conditional_write_within_a_compiled_function(jit_compile: bool) -> None:
    target = recorder(every=3, slots=4, xla=jit_compile)

    @tf.function(jit_compile=jit_compile)
    def step(update: tf.Tensor) -> None:
        gradients = [tf.fill(shape, tf.cast(update, tf.float32)) for shape in SHAPES]

        def record() -> None:
            probed = tf.fill([3], tf.cast(update, tf.float32))
            target.keep_probed(probed)
            target.keep(target.before(gradients, None, gradients))
            target.after(update, gradients)

        tf.cond(target.due(update), record, lambda: None)

    for update in range(8):
        step(tf.constant(update, tf.int64))
    rows = target.read(0)[1]
    assert [row.update for row in rows] == [0, 3, 6]
    assert [row.floats[1, 0] for row in rows] == [0.0, 3.0, 6.0]
    found = [row.probed.tolist() for row in rows if row.probed is not None]
    assert found == [[0.0] * 3, [3.0] * 3, [6.0] * 3]


def test_its_variables_may_be_made_while_a_function_is_traced() -> None:
    made: list[Recorder] = []

    @tf.function
    def step() -> None:
        if not made:
            made.append(recorder())
        write(made[0], 1)

    step()
    assert made[0].read(0)[0] == 1


def test_every_column_of_the_records_is_measured_once() -> None:
    measured = [*recorder_module._BEFORE, *recorder_module._AFTER]
    assert sorted(measured) == sorted(FLOATS)


def test_a_column_that_is_not_measured_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "FLOATS", ("later", *reversed(FLOATS)))
    target = recorder()
    write(target, 0, gradient=2.0, before=4.0, after=4.25)
    (row,) = target.read(0)[1]
    named = dict(zip(recorder_module.FLOATS, row.floats.T))
    assert np.isnan(named["later"]).all()
    assert named["rms"].tolist() == pytest.approx([2.0, 2.0])
    assert named["weight_rms"].tolist() == pytest.approx([4.0, 4.0])
    assert named["update_rms"].tolist() == pytest.approx([0.25, 0.25])
