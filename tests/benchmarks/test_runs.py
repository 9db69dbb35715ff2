"""The labelled runs: their table, data and models."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import runs


def test_names_are_unique():
    names = Counter(run.name for run in runs.RUNS)
    assert set(names.values()) == {1}


@pytest.mark.parametrize("kind", sorted({run.kind for run in runs.RUNS}))
def test_each_kind_is_in_both_parts(kind):
    parts = Counter(run.part for run in runs.RUNS if run.kind == kind)
    assert set(parts) == {"choose", "held out"}
    assert 0.3 <= parts["choose"] / parts.total() <= 0.7


def test_sick_runs_have_a_remedy_of_fields_that_exist():
    fields = {field.name for field in dataclasses.fields(runs.Run)}
    for run in runs.RUNS:
        assert set(run.remedy) <= fields
        assert bool(run.remedy) == (run.kind in ("vanishing", "exploding", "dying", "saturated"))


@pytest.mark.parametrize("name", runs.DATA)
def test_data(name):
    x, y = runs.DATA[name]()
    assert len(x) == len(y) > 200
    assert x.dtype in (np.float32, np.int32)
    assert np.all(np.isfinite(x))
    assert runs.constant_loss(name) > 0


def test_the_constant_loss_is_that_of_the_best_constant_prediction():
    _, y = runs.DATA["digits"]()
    shares = np.bincount(y) / len(y)
    assert runs.constant_loss("digits") == pytest.approx(-np.mean(np.log(shares[y])))
    _, y = runs.DATA["co2"]()
    assert runs.constant_loss("co2") == pytest.approx(np.mean((y - y.mean()) ** 2), rel=1e-4)


def test_batches_are_noisy_only_once_the_monitor_looks():
    run = next(run for run in runs.RUNS if run.noise and run.before)
    x, noisy = runs.batches(run)
    same, clean = runs.batches(dataclasses.replace(run, noise=0.0))
    assert np.array_equal(x, same)
    assert len(x) == run.batch * (run.before + run.steps)
    split = run.before * run.batch
    assert np.array_equal(noisy[:split], clean[:split])
    # One wrong label in ten is the right one by chance.
    assert np.mean(noisy[split:] != clean[split:]) == pytest.approx(0.9 * run.noise, abs=0.02)


def test_the_seed_decides_the_start_and_the_order():
    run = runs.RUNS[0]
    for seed, same in ((run.seed, True), (run.seed + 1, False)):
        other = dataclasses.replace(run, seed=seed)
        first, second = runs.model(run).get_weights()[0], runs.model(other).get_weights()[0]
        assert np.array_equal(first, second) == same
        assert np.array_equal(runs.batches(run)[0], runs.batches(other)[0]) == same


def test_layers_of_one_initialiser_start_unlike_each_other():
    weights = runs.model(next(run for run in runs.RUNS if "N(0, 0.01)" in run.name)).get_weights()
    assert not np.array_equal(weights[2], weights[4])
