"""What counts as rescued, the report on constructed results, and short trainings."""

import dataclasses
import json
import math

import keras
import numpy as np
import outcomes
import pytest
import rescue
import rescue_runs
import runs

MLP = "sigmoid MLP, 7 deep, Adam, seed 2"
NAN = "NaN in one batch, Adam, seed 0"
FINE = "ReLU MLP, 3 deep, Adam, seed 0"
ALSO_FINE = "ReLU MLP, 1 deep, SGD, seed 0"


def ended(error, points=True, course=(0.0, 0.5, 0.9, 0.9), acts=(), weights="same"):
    return rescue.Ending(error, points, course, acts, weights, seconds=1.0)


@pytest.mark.parametrize(
    ("error", "twin", "points", "expected"),
    [
        (0.05, 0.03, True, True),
        (0.051, 0.03, True, False),
        (0.0, 0.03, True, True),
        (math.inf, 0.03, True, False),
        (math.nan, 0.03, True, False),
        (0.11, 0.1, False, True),
        (0.111, 0.1, False, False),
        (0.0, 0.0, False, True),
        (math.inf, 0.1, False, False),
        (math.nan, 0.1, False, False),
    ],
)
def test_rescued_is_within_two_points_or_a_tenth(error, twin, points, expected):
    assert rescue.rescued(ended(error, points), ended(twin, points)) == expected


@pytest.mark.parametrize(
    ("untouched", "twin", "learned", "expected"),
    [
        (0.9, 0.01, 0.99, True),
        (0.03, 0.01, 0.99, False),
        (0.9, 0.4, 0.5, True),
        (0.9, 0.4, 0.49, False),
        (0.9, 0.4, math.nan, False),
        (math.inf, 0.4, 0.6, True),
    ],
)
def test_a_label_counts_if_the_run_fails_and_the_twin_learns(untouched, twin, learned, expected):
    found = {"untouched": ended(untouched), "twin": ended(twin, course=(0.0, learned))}
    assert rescue.justified(found) == expected


@pytest.mark.parametrize(
    ("course", "mark"),
    [
        ((0.0, 0.5, 0.9, 0.9), 2),
        ((0.9, 0.9), 0),
        ((0.9, 0.1, 0.9, 0.95), 2),
        ((0.9, math.nan, 0.9), 2),
        ((0.0, 0.9, 0.7), None),
        ((math.nan, math.nan), None),
    ],
)
def test_a_goal_is_reached_once_it_is_kept(course, mark):
    assert rescue.reached(course, 0.8) == mark


def test_steps_are_lost_against_the_twin():
    twin = ended(0.0, course=(0.0, 0.8, 1.0, 1.0))
    assert rescue.steps_lost(ended(0.0, course=(0.0, 0.1, 0.2, 0.95)), twin) == rescue.EVERY
    assert rescue.steps_lost(ended(0.0, course=(0.9, 0.9, 0.9, 0.9)), twin) == -2 * rescue.EVERY
    assert rescue.steps_lost(ended(0.0, course=(0.0, 0.1, 0.2, 0.89)), twin) is None


def test_flags_alone_are_on_the_first_seed_only():
    first, second = "NaN in one batch, Adam, seed 0", "NaN in one batch, Adam, seed 100"
    assert set(rescue.chosen(["NaN in one batch, Adam"], seeds=2)) == {first, second}
    assert rescue.settings(first) == tuple(rescue.SETTINGS)
    assert rescue.settings(second) == ("twin", "untouched", "all flags")
    assert rescue.settings(FINE) == ("untouched", "all flags")


def test_runs_are_chosen_by_names_and_kinds():
    names = rescue.chosen(["NaN", "sigmoid MLP"], ["exploding"])
    assert names
    assert all("NaN" in name for name in names)
    assert len(rescue.chosen(kinds=rescue.SICK)) == sum(
        run.kind in rescue.SICK for run in rescue.every_run()
    )


def test_a_run_is_longer_than_in_the_detection_benchmark():
    run = next(run for run in runs.RUNS if run.name == "sigmoid MLP, 7 deep, Adam")
    assert rescue.named(MLP) == dataclasses.replace(run, steps=3 * run.steps)
    assert rescue.named(MLP.replace("seed 2", "seed 102")).seed == 102


def sick(all_flags, alone=0.9, untouched=0.9, acts=(), late=0.9):
    course = (0.0, 0.1, late, 0.9)
    return {
        "twin": ended(0.01),
        "untouched": ended(untouched, course=(0.0,) * 4),
        "all flags": ended(all_flags, course=course, acts=acts),
        **{flag: ended(alone, course=(0.0,) * 4) for flag in rescue.FLAGS},
    }


def test_the_report():
    results = {
        MLP: sick(0.02, acts=[(10, "reinitialize", "At step 10 ..."), (20, "clip", "...")])
        | {"auto_init": ended(0.03)},
        NAN: sick(0.2, acts=[(110, "roll_back", "..."), (130, "roll_back", "...")], late=0.2),
        "tanh MLP, 10 deep, N(0, 0.01), momentum, seed 1": sick(0.01, untouched=0.02),
        FINE: {"untouched": ended(0.01), "all flags": ended(0.01)},
        ALSO_FINE: {
            "untouched": ended(0.01),
            "all flags": ended(0.04, weights="other", acts=[(30, "lower_rate", "...")]),
        },
    }
    text = rescue.report(results)
    assert "2 of 3 sick runs count." in text
    assert "| vanishing | 1 | 0/1 | 1/1 | 0/1 | 0/1 | 0/1 | 1/1 | 0 |" in text
    assert "| exploding | 1 | 0/1 | 0/1 | 0/1 | 0/1 | 0/1 | 0/1 | – |" in text
    assert "| dying | 0 | – | – | – | – | – | – | – |" in text
    assert "| choose | 2 | 0/2 | 1/2 | 0/2 | 0/2 | 0/2 | 1/2 | 0 |" in text
    assert "| all | 2 | 0/2 | 1/2 | 0/2 | 0/2 | 0/2 | 1/2 | 0 |" in text
    assert "| healthy | 2 | 1/2 | 1/2 | 1/2 |" in text
    assert "| converged | 0 | – | – | – |" in text
    faults, left_out = text.split("### Left out")
    assert f"- exploding, choose: {NAN}: twin 1.0%; untouched 90.0%; all flags 20.0%; " in faults
    assert "All flags: roll_back × 2 from step 110." in faults
    assert f"- healthy, held out: {ALSO_FINE}: untouched 1.0%; all flags 4.0%. " in faults
    assert f": {FINE}:" not in text
    assert f": {MLP}:" not in text
    assert "momentum, seed 1: fails no more than its twin; error 2.0%, twin 1.0%." in left_out
    row = f"| vanishing | {MLP} | 1.0% | 90.0% | 2.0% | 90.0% | 90.0% | 90.0% | 3.0% | 0 | "
    assert row + "reinitialize from step 10, clip from step 20 |" in text


def test_a_healthy_run_whose_weights_changed_is_named():
    results = {FINE: {"untouched": ended(0.01), "all flags": ended(0.01, weights="other")}}
    text = rescue.report(results)
    assert "| healthy | 1 | 0/1 | 0/1 | 0/1 |" in text
    assert f": {FINE}:" in text


def test_what_was_saved_is_reported_again():
    acts = [(10, "clip", "At step 10 ...")]
    results = {NAN: sick(math.inf, acts=acts), FINE: {"untouched": ended(0.5)}}
    results[NAN]["twin"] = ended(math.nan)
    earlier = rescue.record(NAN, "twin", ended(0.3))
    lines = [rescue.record(n, s, e) for n, found in results.items() for s, e in found.items()]
    again = rescue.recorded([earlier, *lines])
    assert set(again) == {NAN}, "a run that is not complete is left out"
    assert rescue.report(again) == rescue.report({NAN: results[NAN]})
    assert math.isnan(again[NAN]["twin"].error)
    assert again[NAN]["all flags"].acts == acts


def test_errors_of_classes_and_of_values():
    run = rescue.named(FINE)
    x, y = runs.DATA[run.data]()
    right = np.eye(10)[y]
    right[:400] = np.roll(right[:400], 1, axis=1)
    right[400:800] = math.nan
    error, constant = rescue.errors(run, lambda x, training: right[: len(x)])
    assert error == 0.5
    assert constant == pytest.approx(1 - np.bincount(y).max() / len(y))
    assert rescue.errors(run, lambda x, training: right[: len(x)], 400)[0] == 1

    run = rescue.named("regression, CO2, AdamW, seed 0")
    x, y = runs.DATA[run.data]()
    mean = np.full_like(y, y.mean())
    assert rescue.errors(run, lambda x, training: mean) == (pytest.approx(1.0, rel=1e-4), 1.0)
    assert rescue.errors(run, lambda x, training: mean * math.nan)[0] == math.inf


def shortened(name, **changes):
    return dataclasses.replace(rescue.named(name), **{"steps": 120, **changes})


def test_a_bad_batch_ruins_a_run_and_not_its_twin():
    run = shortened(NAN, bad=rescue_runs.BadBatch(60, inputs=math.nan))
    ruined = rescue.train(run, None)
    twin = rescue.train(dataclasses.replace(run, **run.remedy), None)
    assert len(ruined.course) == len(twin.course) == 4
    assert ruined.course[:2] == twin.course[:2]
    assert ruined.error == 1
    assert twin.error < 0.3
    assert twin.course[-1] > 0.6
    assert ruined.acts == []
    assert json.loads(rescue.record(NAN, "twin", twin))["points"] is True


@pytest.mark.soak
def test_watching_the_course_leaves_training_as_it_is():
    run = shortened("20% wrong labels, late, seed 0", steps=12, before=0)
    x, y = rescue_runs.batches(run)
    model = runs.model(run)
    model.compile(run.optimizer(), outcomes.loss_of(run))
    model.fit(x, y, batch_size=run.batch, shuffle=False, verbose=0)
    plain = rescue.digest(model)
    assert rescue.train(run, None).weights == plain
    assert plain != rescue.digest(runs.model(run))


@pytest.mark.soak
def test_a_healthy_run_is_left_alone_by_all_flags():
    run = shortened(FINE, steps=60)
    plain, flagged = (rescue.train(run, rescue.SETTINGS[s]) for s in ("untouched", "all flags"))
    assert flagged.acts == []
    assert flagged.weights == plain.weights


@pytest.mark.soak
def test_all_flags_rescue_a_run_from_nan():
    run = shortened(NAN, bad=rescue_runs.BadBatch(60, inputs=math.nan))
    found = rescue.train(run, rescue.SETTINGS["all flags"])
    assert found.error < 0.3
    assert found.acts


def test_what_a_training_raises_is_noted(monkeypatch, capsys):
    def fails(run, flags):
        raise ValueError("no such layer")

    monkeypatch.setattr(rescue, "train", fails)
    found = rescue.ending(NAN, "untouched")
    assert found.failure == "ValueError('no such layer')"
    assert "no such layer" in capsys.readouterr().err
    results = {NAN: sick(0.9) | {"all flags": found}}
    assert "all flags ValueError('no such layer')" in rescue.report(results)


@pytest.fixture(autouse=True)
def _clean():
    yield
    keras.backend.clear_session()
