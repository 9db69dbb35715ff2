"""The further explosions: their table, their bad batches and their half precision."""

import dataclasses
import math
from collections import Counter

import keras
import numpy as np
import pytest
import rescue
import rescue_runs
import runs

EXPLOSIONS = rescue_runs.EXPLOSIONS


def explosion(name):
    (run,) = (run for run in EXPLOSIONS if run.name == name)
    return run


def test_names_are_unique_among_all_runs():
    names = Counter(run.name for run in rescue.every_run())
    assert set(names.values()) == {1}
    assert len(EXPLOSIONS) >= 10
    assert {run.kind for run in EXPLOSIONS} == {"exploding"}


def test_they_are_in_both_parts():
    parts = Counter(run.part for run in EXPLOSIONS)
    assert 0.4 <= parts["choose"] / parts.total() <= 0.6


def test_each_has_a_twin_without_its_fault():
    for run in EXPLOSIONS:
        twin = dataclasses.replace(run, **run.remedy)
        assert twin.bad is None
        assert run.bad is None or set(run.remedy) == {"bad"}


@pytest.mark.parametrize("run", [run for run in EXPLOSIONS if run.bad], ids=lambda run: run.name)
def test_a_bad_batch_is_bad_where_it_says_and_nowhere_else(run):
    x, y = rescue_runs.batches(run)
    clean_x, clean_y = runs.batches(run)
    rows = slice(run.bad.step * run.batch, (run.bad.step + 1) * run.batch)
    others = np.delete(np.arange(len(x)), rows)
    assert np.array_equal(x[others], clean_x[others])
    assert np.array_equal(y[others], clean_y[others])
    if run.bad.inputs != 1:
        assert np.allclose(x[rows], run.bad.inputs * clean_x[rows], equal_nan=True)
        assert np.array_equal(y, clean_y)
    else:
        assert np.allclose(y[rows], run.bad.labels * clean_y[rows])
        assert np.array_equal(x, clean_x)
    assert 0 <= run.bad.step < run.steps


def test_the_data_itself_stays_good():
    run = explosion("NaN in one batch, Adam")
    rescue_runs.batches(run)
    x, _ = runs.DATA[run.data]()
    assert np.all(np.isfinite(x))


def test_infinite_targets_are_not_finite():
    run = explosion("infinite targets in one batch, CO2")
    _, y = rescue_runs.batches(run)
    batch = y[run.bad.step * run.batch :][: run.batch]
    assert math.isinf(run.bad.labels)
    assert not np.any(np.isfinite(batch))


@pytest.mark.parametrize("run", EXPLOSIONS, ids=lambda run: run.name)
def test_they_build_and_so_do_their_twins(run):
    for each in (run, dataclasses.replace(run, **run.remedy)):
        model = runs.model(each)
        assert model.outputs[0].dtype == "float32"
        assert each.optimizer().learning_rate is not None
    keras.backend.clear_session()


def test_half_precision_holds_within_and_ends_after():
    halves = [run for run in EXPLOSIONS if "float16" in run.name]
    assert halves
    for run in halves:
        inner = runs.model(run).layers
        assert {layer.compute_dtype for layer in inner[1:-1]} == {"float16"}
        assert {weight.dtype for layer in inner for weight in layer.weights} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"


def test_the_rate_has_a_peak():
    rate = rescue_runs.peak(0.1, 1000.0, 150, 160)().learning_rate
    schedule = rescue_runs.peak(0.1, 1000.0, 150, 160)()._learning_rate
    assert float(rate) == pytest.approx(0.1)
    found = [float(schedule(step)) for step in (150, 151, 160, 161)]
    assert found == pytest.approx([0.1, 100.0, 100.0, 0.1])
