"""Diagnoses that are made a few at a time are those of the whole run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from keras_vanish.diagnosis import diagnoses, verdict_of
from keras_vanish.records.readings import Reading
from keras_vanish.tensorboard_tab.scoring import Scoring

Make = Callable[..., Any]


@pytest.fixture
def restless(make_reading: Make, make_probed: Make) -> Callable[[int, int], list[Reading]]:
    """`restless(seed, count)`: a run whose readings seldom agree, recurrent, learning or not."""

    def make(seed: int, count: int) -> list[Reading]:
        random = np.random.default_rng(seed)
        return [
            make_reading(
                step=step,
                rms=random.choice([[1e-3] * 3, [1e-9, 1e-6, 1e-3], [1e3, 1, 1e-3]]),
                nan_count=float(random.random() < 0.05),
                probed=make_probed(
                    loss=1.0,
                    shuffled_loss=random.choice([1.0, 1.2]),
                    profiles={"dense_0": [1e-12, 1e-6, 1.0]},
                ),
            )
            for step in range(count)
        ]

    return make


@pytest.mark.parametrize("seed", range(12))
def test_all_is_as_if_made_at_once(restless: Make, seed: int) -> None:
    run = restless(seed, seed * 2)
    verdict, made, complete = Scoring().of(run, run, 60)
    assert made == diagnoses(run)
    assert verdict == verdict_of(made)
    assert complete


def test_without_time_there_is_the_verdict_and_more_comes_later(make_reading: Make) -> None:
    run = [make_reading(step=step, rms=[1e-9, 1e-6, 1e-3]) for step in range(64)]
    scoring = Scoring()
    verdict, made, complete = scoring.of(run, run, 0)
    assert verdict == "vanishing"
    assert [diagnosis.step for diagnosis in made] == [61, 62, 63]
    assert not complete
    assert scoring.of(run, run, 60)[2]


def test_only_what_is_shown_is_made(restless: Make) -> None:
    run = restless(1, 40)
    _, made, complete = Scoring().of(run, run[::10], 60)
    assert [diagnosis.step for diagnosis in made] == [0, 10, 20, 30]
    assert made == diagnoses(run)[::10]
    assert complete


@pytest.mark.parametrize("seed", range(8))
def test_readings_that_tensorboard_drops_change_what_is_known_of_the_rest(
    restless: Make, seed: int
) -> None:
    run = restless(seed, 12)
    scoring = Scoring()
    scoring.of(run, run, 60)
    rest = run[3::2]
    assert scoring.of(rest, rest, 60)[1] == diagnoses(rest)


def test_a_run_that_grows_keeps_what_was_made(
    restless: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = restless(2, 20)
    scoring = Scoring()
    scoring.of(run[:15], run[:15], 60)
    diagnosed: list[int] = []
    from keras_vanish.tensorboard_tab import scoring as module

    original = module.diagnose

    def counted(reading: Reading, course: Any) -> Any:
        diagnosed.append(reading.step)
        return original(reading, course)

    monkeypatch.setattr(module, "diagnose", counted)
    _, made, _ = scoring.of(run, run, 60)
    assert made == diagnoses(run)
    assert sorted(diagnosed) == [15, 16, 17, 18, 19]
