"""Scoring on constructed results, and a few quick runs from end to end."""

import dataclasses
import json
import math

import detection
import keras
import numpy as np
import outcomes
import pytest
import scoring

from keras_vanish import GradientMonitor
from keras_vanish.diagnosis import diagnose

OURS = scoring.OURS


def result(kind, *alarms, part="choose", last=100):
    """A result with these alarms of ours, as (step, way)."""
    return scoring.Result(
        name=kind,
        kind=kind,
        part=part,
        justified=True,
        last=last,
        alarms={rule: list(alarms) for rule in scoring.RULES},
        vanishing=0.1,
        exploding=0.1,
        verdict="healthy",
    )


MIXED = [
    result("vanishing", (20, "vanishing"), (30, "vanishing")),
    result("dying", (0, "exploding"), (60, "vanishing")),
    result("saturated", (10, "exploding")),
    result("exploding"),
    result("healthy", (10, "vanishing")),
    result("healthy"),
    result("healing", (10, "vanishing")),
    result("healing", (100, "vanishing")),
]


def test_recall_counts_runs_with_the_right_alarm():
    assert scoring.recall(MIXED, OURS) == 2 / 4
    assert math.isnan(scoring.recall([result("healthy")], OURS))


def test_precision_counts_wrong_ways_and_false_alarms():
    # Right: vanishing, dying. Wrong: saturated, healthy, the second healing one.
    assert scoring.precision(MIXED, OURS) == 2 / 5
    assert math.isnan(scoring.precision([result("healthy")], OURS))


def test_an_early_alarm_of_a_healing_run_is_not_false():
    assert [r.false_alarm(OURS) for r in MIXED[4:]] == [True, False, False, True]


def test_detection_is_at_the_first_right_alarm():
    assert [r.detected(OURS) for r in MIXED[:5]] == [20, 60, None, None, None]


def test_confusion():
    table = scoring.confusion(MIXED, OURS)
    assert {kind: dict(counts) for kind, counts in table.items()} == {
        "vanishing": {"vanishing": 1},
        "dying": {"vanishing": 1},
        "saturated": {"exploding": 1},
        "exploding": {"healthy": 1},
        "healthy": {"vanishing": 1, "healthy": 1},
        "healing": {"healthy": 1, "vanishing": 1},
    }


def test_the_report_leaves_out_what_is_not_justified():
    left_out = dataclasses.replace(result("healthy", (0, "exploding")), justified=False)
    text = scoring.report([*MIXED, left_out], markdown=True)
    assert "8 of 9 labels are justified" in text
    assert f"| {OURS} | 0.40 | 0.50 | 1.00 | 0.00 | 1.00 | 0.00 | 1/2 | 0/0 | 1/2 |" in text
    assert f"| {OURS} | 40 | 60 |" in text
    assert "- exploding, choose: exploding: missed, called nothing" in text
    assert "- healthy, choose: healthy: false alarm, vanishing from step 10" in text
    assert "- dying, choose: dying: late, at step 60" in text
    assert "- healing, choose: healing: early alarm, vanishing until step 10" in text


OUTCOME = outcomes.Outcome(
    start=0.0,
    fifth=0.0,
    end=0.1,
    twin=0.9,
    peak=1.0,
    early_fifth=0.01,
    early=0.1,
    late=0.1,
    dead=0.0,
    flat=0.0,
)


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        ("vanishing", {}, True),
        ("vanishing", {"end": 0.46}, False),
        ("vanishing", {"twin": 0.29, "end": 0.0}, False),
        ("vanishing", {"twin": math.nan}, False),
        ("exploding", {"peak": math.inf, "end": -math.inf}, True),
        ("exploding", {"peak": 2.9}, False),
        ("dying", {"dead": 0.9}, True),
        ("dying", {"dead": 0.89}, False),
        ("saturated", {"flat": 0.5}, True),
        ("saturated", {"flat": 0.49}, False),
        ("healthy", {"end": 0.5}, True),
        ("healthy", {"end": 0.49}, False),
        ("converged", {"start": 0.9, "end": 0.95}, True),
        ("converged", {"start": 0.9, "end": 0.89}, False),
        ("converged", {"start": 0.89, "end": 0.95}, False),
        ("healing", {"end": 0.9, "fifth": 0.1}, True),
        ("healing", {"end": 0.9, "fifth": 0.2}, False),
        ("healing", {"end": 0.9, "fifth": 0.1, "early_fifth": 0.03}, False),
        ("healing", {"end": 0.4, "fifth": 0.0}, False),
    ],
)
def test_justified(kind, fields, expected):
    assert outcomes.justified(kind, dataclasses.replace(OUTCOME, **fields)) == expected


def test_our_alarms_are_those_of_the_steadied_verdict(make_reading):
    rms = [(1e-3,) * 3, (1e-9, 1e-5, 1e-3), (1e-9, 1e-5, 1e-3), (1e-9, 1e-5, 1e-3)]
    history = [diagnose(make_reading(step=10 * n, rms=row)) for n, row in enumerate(rms)]
    run = detection.named(detection.REPRESENTATIVE[0])
    found = scoring.result_of("a run", run, history, OUTCOME, {})
    assert found.alarms[OURS] == [(30, "vanishing")]
    assert found.vanishing == max(d.vanishing_score for d in history)


@pytest.mark.soak
def test_the_observer_leaves_training_as_it_is():
    run = dataclasses.replace(detection.named("CNN, 8 deep, BatchNorm, Adam, seed 0"), steps=12)
    kept = []

    class Keep(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            kept.append(self.model.get_weights())

    for callbacks in ([], [outcomes.Observer(run)]):
        outcomes.fit(run, [*callbacks, Keep()])
    assert all(np.array_equal(a, b) for a, b in zip(*kept))


@pytest.mark.soak
def test_the_observer_sees_the_gradients_of_training():
    run = dataclasses.replace(detection.named("CNN, 8 deep, BatchNorm, Adam, seed 0"), steps=12)
    monitor, observer = GradientMonitor(None, update_freq=10), outcomes.Observer(run)
    outcomes.fit(run, [monitor, observer])
    assert [d.step for d in monitor.history] == [o.step for o in observer.seen] == [0, 10]
    for diagnosis, observation in zip(monitor.history, observer.seen):
        norms = [variable.norm for variable in observation.variables]
        assert math.hypot(*norms) == pytest.approx(diagnosis.reading.global_norm, rel=1e-3)


def test_saved_runs_are_diagnosed_again(tmp_path, monkeypatch):
    name = "sigmoid MLP, 2 deep, Adam, seed 0"
    short = dataclasses.replace(detection.named(name), steps=30)
    monkeypatch.setattr(detection, "named", lambda _: short)
    trained, outcome = detection.measure(name, str(tmp_path))
    again, same = detection.measured(name, str(tmp_path))
    assert (again.last, again.vanishing, again.verdict) == (20, trained.vanishing, trained.verdict)
    assert again.alarms.keys() == trained.alarms.keys() == set(scoring.RULES)
    assert json.dumps(dataclasses.asdict(same)) == json.dumps(dataclasses.asdict(outcome))


@pytest.fixture(scope="module")
def quick_runs():
    return detection.representative()


@pytest.mark.soak
def test_labels_of_the_quick_runs_are_justified(quick_runs):
    assert [r.name for r in quick_runs if not r.justified] == []


@pytest.mark.soak
def test_healthy_quick_runs_raise_no_alarm(quick_runs):
    healthy = [r for r in quick_runs if r.kind == "healthy"]
    assert len(healthy) == 2
    assert [r.name for r in healthy if r.false_alarm(OURS)] == []


@pytest.mark.soak
def test_sick_quick_runs_are_detected(quick_runs):
    sick = [r for r in quick_runs if r.expected]
    assert len(sick) == 5
    assert [r.name for r in sick if r.detected(OURS) is None] == []


@pytest.mark.soak
def test_the_quick_runs_cover_the_kinds(quick_runs):
    kinds = {r.kind for r in quick_runs}
    assert kinds == {"vanishing", "exploding", "dying", "saturated", "healthy"}
