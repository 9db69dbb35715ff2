from __future__ import annotations

import dataclasses
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from keras_vanish.records.activations import ActivationReading
from keras_vanish.records.columns import ACTIVATION_COLUMNS, BINS, FLOATS, ZERO_BIN
from keras_vanish.records.combining import combine
from keras_vanish.records.layers import LayerInfo
from keras_vanish.records.probed import Probed
from keras_vanish.records.readings import LayerReading, Reading
from keras_vanish.records.recurrent import RecurrentReading
from keras_vanish.records.rows import from_rows
from keras_vanish.records.statistics import COLUMNS, Statistics

Array = npt.NDArray[Any]
MakeReading = Callable[..., Reading]
MISSING = Statistics(5.0, *[math.nan] * (len(COLUMNS) - 1))


def rms_of(x: Array) -> float:
    return math.sqrt(math.fsum(np.square(x)) / len(x)) if len(x) else math.nan


def statistics_of(gradient: Array, weights: Array, update: Array) -> Statistics:
    """The definitions, applied to all entries at once in float64."""
    finite = gradient[np.isfinite(gradient)]
    size, absolute = len(gradient), np.abs(gradient)
    nonzero = absolute > 0
    return Statistics(
        size=size,
        gradient_rms=rms_of(finite),
        gradient_norm=rms_of(finite) * math.sqrt(len(finite)),
        gradient_norm_after_clipping=rms_of(np.nan_to_num(gradient, posinf=1, neginf=-1) / 2)
        * math.sqrt(size),
        gradient_mean=math.fsum(finite) / len(finite) if len(finite) else math.nan,
        gradient_min=min(finite, default=math.nan),
        gradient_max=max(finite, default=math.nan),
        zero_fraction=float(np.mean(gradient == 0)),
        float16_underflow=float(np.mean(nonzero & (absolute < 2.0**-25))),
        bfloat16_underflow=float(np.mean(nonzero & (absolute < 2.0**-126))),
        nan_count=float(np.isnan(gradient).sum()),
        inf_count=float(np.isinf(gradient).sum()),
        weight_rms=rms_of(weights),
        update_rms=rms_of(update),
    )


def assert_equal(got: Statistics, wanted: Statistics, but: tuple[str, ...] = ()) -> None:
    for name in COLUMNS:
        if name not in but:
            value, expected = getattr(got, name), getattr(wanted, name)
            # A mean of entries that cancel is as exact as the entries are.
            norm = np.nan_to_num(wanted.gradient_norm)
            slack = 1e-12 * norm if name == "gradient_mean" else 0.0
            # Below 1e-150 the squares of the reference leave float64.
            np.testing.assert_allclose(
                value, expected, rtol=1e-9, atol=slack + 1e-140, err_msg=name
            )


finite = st.one_of(
    st.just(0.0), st.floats(-1e30, 1e30), st.floats(-1e-20, 1e-20), st.floats(-1.0, 1.0)
)
anything = st.one_of(finite, st.sampled_from([math.nan, math.inf, -math.inf]))
variable = st.lists(st.tuples(anything, finite, finite), min_size=1, max_size=6)


@settings(deadline=None)
@given(st.lists(variable, min_size=1, max_size=5))
@example([[(math.nan, 1.0, 0.1)], [(math.inf, 0.0, 0.0), (-math.inf, 0.0, 0.0)]])
@example([[(math.nan, 1.0, 0.1)], [(3.0, 0.0, 0.0), (1e-30, 2.0, 0.0)]])
def test_combining_equals_the_statistics_of_everything_at_once(variables: list[Any]) -> None:
    parts = [np.array(v, np.float64).T for v in variables]
    together = statistics_of(*np.concatenate(parts, axis=1))
    assert_equal(combine(statistics_of(*part) for part in parts), together)


@pytest.mark.smoke
def test_squares_outside_of_float64_do_not_spoil_a_combined_rms() -> None:
    for scale in (1e-200, 1e200):
        one = statistics_of(np.ones(2), np.ones(2), np.ones(2))
        part = dataclasses.replace(
            one, gradient_rms=scale, gradient_norm=scale, weight_rms=scale, update_rms=scale
        )
        both = combine([part, part])
        assert both.weight_rms == pytest.approx(scale, rel=1e-12)
        assert both.update_rms == pytest.approx(scale, rel=1e-12)
        assert both.gradient_norm == pytest.approx(math.sqrt(2) * scale, rel=1e-12)


@pytest.mark.smoke
def test_parts_without_a_gradient_are_left_out() -> None:
    part = statistics_of(np.array([1.0, 0.0, -2.0]), np.ones(3), np.ones(3))
    for parts in ([part, MISSING], [MISSING, part], [MISSING, part, MISSING]):
        assert_equal(combine(parts), part, but=("size",))


@pytest.mark.smoke
@pytest.mark.parametrize("count", [1, 3])
def test_all_missing_is_nan_and_not_zero(count: int) -> None:
    combined = combine([MISSING] * count)
    assert combined.size == 5 * count
    values = dataclasses.asdict(combined)
    assert all(math.isnan(values[name]) for name in COLUMNS if name != "size")


def test_infinite_counts_of_a_file_are_no_warning() -> None:
    table = np.zeros([2, len(COLUMNS)])
    table[:, COLUMNS.index("size")] = table[:, COLUMNS.index("inf_count")] = math.inf
    reading = Reading(0, 0.0, ("a", "b"), (1, 1), table)
    assert reading.model.inf_count == math.inf
    assert math.isnan(reading.model.gradient_rms)


def test_a_layer_with_a_part_missing_counts_for_what_it_has() -> None:
    a = statistics_of(np.array([1.0, 0.0]), np.ones(2), np.ones(2))
    b = statistics_of(np.array([4.0, 3.0, 3.0]), np.ones(3) * 7, np.ones(3))
    nested = combine([combine([a, MISSING]), combine([b])])
    assert_equal(nested, combine([a, b]), but=("size",))


@pytest.mark.smoke
def test_update_ratio_is_missing_where_all_weights_are_zero() -> None:
    one = statistics_of(np.ones(2), np.ones(2) * 4, np.ones(2))
    assert one.update_ratio == 0.25
    assert math.isnan(dataclasses.replace(one, weight_rms=0.0).update_ratio)
    assert math.isnan(dataclasses.replace(one, weight_rms=math.nan).update_ratio)
    assert math.isnan(dataclasses.replace(one, update_rms=math.nan).update_ratio)


def test_nonfinite_counts_nan_and_inf() -> None:
    gradient = np.array([math.nan, math.inf, -math.inf, 1.0])
    assert statistics_of(gradient, np.ones(4), np.ones(4)).nonfinite_count == 3
    assert math.isnan(MISSING.nonfinite_count)


@pytest.mark.smoke
def test_weights_are_nonfinite_only_where_they_were_seen() -> None:
    one = statistics_of(np.ones(2), np.ones(2) * 4, np.ones(2))
    assert not one.weights_nonfinite
    for lost in (math.nan, math.inf):
        assert dataclasses.replace(one, weight_rms=lost).weights_nonfinite
    assert not MISSING.weights_nonfinite
    assert math.isnan(MISSING.weight_rms)


def row_of(
    gradient: Array, weight_rms: float = 2.0, update_rms: float = 0.5
) -> tuple[Array, Array]:
    """The floats and counts that a recorded step leaves for one variable."""
    gradient = gradient.astype(np.float32)
    finite = gradient[np.isfinite(gradient)].astype(np.float64)
    known = len(finite) > 0
    floats = {
        "rms": rms_of(finite),
        "mean": finite.mean() if known else math.nan,
        "min": finite.min() if known else math.nan,
        "max": finite.max() if known else math.nan,
        "nan_count": np.isnan(gradient).sum(),
        "inf_count": np.isinf(gradient).sum(),
        "rms_after_clipping": rms_of(gradient.astype(np.float64)) / 2,
        "weight_rms": weight_rms,
        "update_rms": update_rms,
    }
    counts = np.zeros(BINS, np.float32)
    for bits in np.abs(gradient).view(np.int32):
        counts[ZERO_BIN if bits == 0 else bits >> 23] += 1
    return np.array([floats[name] for name in FLOATS], np.float32), counts


def layer_of(name: str, *indices_and_sizes: tuple[int, int], units: int = 3) -> LayerInfo:
    indices, sizes = zip(*indices_and_sizes)
    variables = tuple(f"v{i}" for i in indices)
    return LayerInfo(name, variables, tuple(indices), tuple(sizes), units)


@pytest.mark.smoke
def test_rows_become_the_layers_that_own_them() -> None:
    gradients = [np.array([3.0, 4.0]), np.array([0.0, 1e-9, -5.0]), np.array([7.0])]
    floats, counts = map(np.stack, zip(*[row_of(g) for g in gradients]))
    layers = [layer_of("late", (2, 1), units=9), layer_of("early", (0, 2), (1, 3))]
    reading = from_rows(7, 1.5, layers, floats, counts)
    assert (reading.step, reading.wall_time) == (7, 1.5)
    assert reading.names == ("late", "early")
    assert reading.units == (9, 3)
    late, early = reading.layers
    assert (late.name, late.depth, late.units) == ("late", 0, 9)
    assert (early.name, early.depth, early.units) == ("early", 1, 3)
    assert late.size == 1
    assert late.gradient_norm == late.gradient_rms == 7
    assert early.size == 5
    assert early.gradient_norm == pytest.approx(math.sqrt(50))
    assert early.gradient_rms == pytest.approx(math.sqrt(10))
    assert early.gradient_norm_after_clipping == pytest.approx(math.sqrt(50) / 2)
    assert (early.gradient_min, early.gradient_max) == (-5, 4)
    assert early.gradient_mean == pytest.approx(2 / 5)
    assert early.zero_fraction == pytest.approx(0.2)
    assert early.float16_underflow == pytest.approx(0.2)
    assert early.bfloat16_underflow == 0
    assert early.update_ratio == 0.25


def test_rows_of_a_gradient_that_is_not_finite() -> None:
    floats, counts = row_of(np.array([math.nan, 3.0, math.inf, 4.0]))
    (layer,) = from_rows(0, 0.0, [layer_of("d", (0, 4))], floats[None], counts[None]).layers
    assert (layer.nan_count, layer.inf_count) == (1, 1)
    assert layer.gradient_norm == pytest.approx(5)
    assert math.isnan(layer.gradient_norm_after_clipping)


def test_a_row_of_nan_is_a_variable_without_a_gradient() -> None:
    floats, counts = map(np.stack, zip(row_of(np.array([3.0, 4.0])), row_of(np.ones(2))))
    floats[1], counts[1] = math.nan, math.nan
    layers = [layer_of("both", (0, 2), (1, 2)), layer_of("none", (1, 2))]
    both, none = from_rows(0, 0.0, layers, floats, counts).layers
    assert both.gradient_norm == pytest.approx(5)
    assert both.zero_fraction == 0
    assert none.size == 2
    assert all(math.isnan(getattr(none, name)) for name in COLUMNS if name != "size")


def test_shares_are_missing_where_nothing_was_sampled() -> None:
    floats, counts = row_of(np.array([3.0, 4.0]))
    layers = [layer_of("d", (0, 2))]
    (layer,) = from_rows(0, 0.0, layers, floats[None], np.zeros_like(counts)[None]).layers
    assert layer.gradient_max == 4
    assert math.isnan(layer.zero_fraction)
    assert math.isnan(layer.float16_underflow)
    assert math.isnan(layer.bfloat16_underflow)


float32s = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(-1.0, 1.0, width=32),
    st.floats(-1.0, 1.0, width=32).map(lambda v: v * 2.0**-24),
    st.floats(-1.0, 1.0, width=32).map(lambda v: v * 2.0**-125),
)


@settings(deadline=None)
@given(st.lists(float32s, min_size=1, max_size=40))
def test_underflow_shares_are_those_of_a_cast(values: list[float]) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    gradient = np.array(values, np.float32)
    # A tie between zero and the smallest subnormal number shares its bin with what
    # rounds up; the definition is "below 2**-25".
    gradient[np.abs(gradient) == 2.0**-25] = 1.0
    floats, counts = row_of(gradient)
    layers = [layer_of("d", (0, len(gradient)))]
    (layer,) = from_rows(0, 0.0, layers, floats[None], counts[None]).layers
    with np.errstate(all="ignore"):
        in_float16 = gradient.astype(np.float16)
    smallest = float(ml_dtypes.finfo(ml_dtypes.bfloat16).smallest_normal)
    nonzero = gradient != 0
    flushed = nonzero & (np.abs(gradient) < smallest)
    assert layer.float16_underflow == pytest.approx(np.mean(nonzero & (in_float16 == 0)))
    assert layer.bfloat16_underflow == pytest.approx(np.mean(flushed))
    assert layer.zero_fraction == pytest.approx(np.mean(~nonzero))


def make(table: Array | None = None, **changes: Any) -> Reading:
    fields = {
        "step": 3,
        "wall_time": 2.0,
        "names": ("a", "b"),
        "units": (4, 5),
        "table": np.arange(2.0 * len(COLUMNS)).reshape(2, -1) if table is None else table,
    }
    return Reading(**{**fields, **changes})


@pytest.mark.smoke
def test_a_reading_cannot_be_changed() -> None:
    reading = make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        reading.step = 4  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        reading.table[0, 0] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        reading.layers[0].name = "c"  # type: ignore[misc]


def test_a_reading_is_independent_of_the_array_it_was_made_of() -> None:
    base = np.zeros((3, len(COLUMNS)))
    reading = make(base[:2])
    base[:] = 1.0
    assert not reading.table.any()
    whole = np.zeros((2, len(COLUMNS)))
    make(whole)
    whole[:] = 1.0  # the caller's own array stays as it was


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("changes", "received"),
    [
        ({"names": ("a",)}, r"1 names, 2 widths and a table of shape \(2, 14\)"),
        ({"units": (4,)}, r"2 names, 1 widths and a table of shape \(2, 14\)"),
        ({"table": np.zeros((2, 13))}, r"2 names, 2 widths and a table of shape \(2, 13\)"),
        ({"table": np.zeros(28)}, r"2 names, 2 widths and a table of shape \(28,\)"),
    ],
)
def test_shapes_must_agree(changes: dict[str, Any], received: str) -> None:
    message = "one name, one width and one row of 14 numbers a layer. Received: " + received
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_equality_looks_at_all_fields_and_takes_nan_for_nan() -> None:
    table = np.full((2, len(COLUMNS)), math.nan)
    reading = make(table)
    assert reading == make(table.copy())
    changed = table.copy()
    changed[1, 2] = 0.0
    assert reading != make(changed)
    for changes in ({"step": 4}, {"wall_time": 1.0}, {"names": ("a", "c")}, {"units": (4, 6)}):
        assert reading != make(table.copy(), **changes)
    assert reading != "a reading"


@pytest.mark.smoke
def test_layers_are_named_records_of_the_rows_in_order() -> None:
    reading = make()
    first, second = reading.layers
    assert isinstance(first, LayerReading)
    assert (second.name, second.depth, second.units) == ("b", 1, 5)
    for layer, row in zip((first, second), reading.table):
        assert [getattr(layer, name) for name in COLUMNS] == row.tolist()
        assert all(type(getattr(layer, name)) is float for name in COLUMNS)


def test_the_model_is_all_layers_together() -> None:
    parts = [
        statistics_of(np.array([1.0, -8.0]), np.ones(2), np.ones(2)),
        statistics_of(np.array([math.nan, 2.0, 0.0]), np.ones(3) * 3, np.zeros(3)),
    ]
    model = make(np.array([dataclasses.astuple(part) for part in parts])).model
    assert not isinstance(model, LayerReading)
    assert_equal(model, combine(parts))
    assert model.gradient_norm == pytest.approx(math.sqrt(69))
    assert (model.gradient_min, model.gradient_max, model.nan_count) == (-8, 2, 1)


# The probe


@pytest.mark.parametrize(
    ("rms", "horizon"),
    [
        ([1.0, 1.0, 1.0], 2),
        ([1.0, 0.009, 0.02, 1.0], 1),  # What comes again further back does not count.
        ([0.011, 0.1, 1.0], 2),
        ([1e-3, 1e-3, 1.0], 0),
        ([math.inf, 1.0], 1),
        ([math.nan, 0.5, 1.0], 1),
        ([1.0], 0),
        ([], math.nan),
        ([1.0, 0.0], math.nan),
        ([1.0, math.nan], math.nan),
        ([1.0, math.inf], math.nan),
    ],
)
def test_horizon(rms: list[float], horizon: float) -> None:
    assert RecurrentReading(tuple(rms)).horizon == pytest.approx(horizon, nan_ok=True)


@given(
    st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=20),
    st.floats(-12, 12).map(lambda exponent: 10.0**exponent),
)
def test_horizon_does_not_depend_on_the_scale(rms: list[float], factor: float) -> None:
    # Values that a rounding moves over the limit are left out.
    assume(all(abs(value / rms[-1] - 0.01) > 1e-6 for value in rms))
    scaled = RecurrentReading(tuple(value * factor for value in rms))
    assert scaled.horizon == RecurrentReading(tuple(rms)).horizon


def test_what_the_probe_saw(make_probed: Callable[..., Probed], make_reading: MakeReading) -> None:
    probed = make_probed(
        rms=[1e-3, 2e-3], names=["a", "b/c"], dead_fraction=[math.nan, 0.5], profiles={"a": [1, 2]}
    )
    reading = make_reading(probed=probed)
    first, second = reading.activations
    assert (first.name, first.depth, first.gradient_rms) == ("a", 0, 1e-3)
    assert (second.name, second.depth, second.dead_fraction) == ("b/c", 1, 0.5)
    assert math.isnan(first.dead_fraction)
    assert reading.timesteps == {"a": RecurrentReading((1.0, 2.0))}


def test_without_the_probe(make_reading: MakeReading) -> None:
    assert make_reading().activations == ()
    assert make_reading().timesteps == {}


def test_readings_with_and_without_the_probe_differ(
    make_probed: Callable[..., Probed], make_reading: MakeReading
) -> None:
    probed = make_probed(profiles={"a": [1, 2]})
    assert probed == make_probed(profiles={"a": [1, 2]})
    assert make_reading(probed=probed) != make_reading()
    for other in (
        make_probed(profiles={"a": [1, 3]}),
        make_probed(profiles={"b": [1, 2]}),
        make_probed(profiles={"a": [1, 2]}, loss=3.0),
        make_probed(profiles={"a": [1, 2]}, shuffled_loss=3.0),
        make_probed(profiles={"a": [1, 2]}, output_rms=2.0),
        make_probed(profiles={"a": [1, 2]}, names=["x", "y", "z"]),
    ):
        assert probed != other


def test_what_the_probe_saw_can_be_pickled_and_not_be_changed(
    make_probed: Callable[..., Probed],
) -> None:
    probed = make_probed(profiles={"a": [1, 2]})
    assert pickle.loads(pickle.dumps(probed)) == probed
    with pytest.raises(ValueError, match="read-only"):
        probed.table[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        probed.profiles["a"][0] = 1


def test_a_probe_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"Received: 1 names and a table of shape \(1, 3\)"):
        Probed(1.0, 2.0, ("a",), np.zeros((1, 3)), {})
    with pytest.raises(ValueError, match=r"an array of shape \(2, 2\) for 'a'"):
        Probed(1.0, 2.0, (), np.zeros((0, len(ACTIVATION_COLUMNS))), {"a": np.zeros((2, 2))})


def test_rows_are_in_the_order_of_the_fields() -> None:
    # A record is made from a row by position.
    names = [field.name for field in dataclasses.fields(ActivationReading)]
    assert names == ["name", "depth", *ACTIVATION_COLUMNS]
    names = [field.name for field in dataclasses.fields(LayerReading)]
    assert names == [*COLUMNS, "name", "depth", "units"]
