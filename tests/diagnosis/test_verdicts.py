from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from factories import MakeReading
from hypothesis import given
from hypothesis import strategies as st

from keras_vanish.diagnosis import (
    AGREEING_READINGS,
    Verdict,
    diagnose,
    representative,
    steadied,
    verdict_of,
    verdicts,
    worst_of,
)

VERDICTS: tuple[Verdict, ...] = ("healthy", "vanishing", "exploding", "nonfinite", "unknown")


@pytest.fixture(scope="module")
def run(make_reading: MakeReading) -> Callable[[Sequence[Any]], list[Verdict]]:
    """The run's verdict after each of several readings with these verdicts."""
    bare = diagnose(make_reading())

    def after_each(verdicts: Sequence[Any]) -> list[Verdict]:
        history = [dataclasses.replace(bare, verdict=verdict) for verdict in verdicts]
        found: list[Verdict] = ["unknown"]
        for end in range(1, len(history) + 1):
            found.append(steadied(found[-1], history[:end]))
            # Only the last readings are looked at.
            last = history[max(0, end - AGREEING_READINGS) : end]
            assert steadied(found[-2], last) == found[-1]
        return found[1:]

    return after_each


Run = Callable[[Sequence[Any]], list[Verdict]]


@pytest.mark.smoke
def test_a_run_follows_readings_that_agree(run: Run) -> None:
    assert run(["vanishing"]) == ["unknown"]
    assert run(["vanishing"] * 2) == ["unknown", "vanishing"]
    assert run(["healthy"] * 3 + ["vanishing"] * 3) == (
        ["unknown"] + ["healthy"] * 4 + ["vanishing"]
    )
    assert run(["healthy", "vanishing", "vanishing"])[-1] == "unknown"


@pytest.mark.smoke
def test_alternating_verdicts_do_not_flap(run: Run) -> None:
    assert set(run(["healthy", "vanishing"] * 10)) == {"unknown"}
    settled = run(["healthy"] * 3 + ["vanishing", "healthy"] * 10)
    assert set(settled[1:]) == {"healthy"}


@pytest.mark.smoke
def test_nan_counts_at_once_and_is_left_slowly(run: Run) -> None:
    assert run(["nonfinite"]) == ["nonfinite"]
    assert run(["healthy"] * 5 + ["nonfinite"])[-1] == "nonfinite"
    assert run(["nonfinite", "healthy", "healthy"])[-1] == "nonfinite"
    assert run(["nonfinite", "healthy", "healthy", "healthy"])[-1] == "healthy"


@given(verdicts=st.lists(st.sampled_from(VERDICTS), min_size=1, max_size=40))
def test_a_run_changes_its_verdict_only_for_readings_that_agree(
    run: Run, verdicts: list[Verdict]
) -> None:
    steady = run(verdicts)
    for i in range(len(verdicts)):
        before = steady[i - 1] if i else "unknown"
        last = verdicts[max(0, i + 1 - AGREEING_READINGS) : i + 1]
        agree = len(last) >= 2 and len(set(last)) == 1
        if verdicts[i] == "nonfinite":
            assert steady[i] == "nonfinite"
        elif agree:
            assert steady[i] == verdicts[i]
        else:
            assert steady[i] == before


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], "unknown"),
        (["vanishing"], "unknown"),
        (["vanishing"] * 2, "vanishing"),
        (["healthy"] * 5 + ["vanishing"] * 2, "healthy"),
        (["healthy"] * 5 + ["vanishing"] * 3, "vanishing"),
        (["healthy", "nonfinite"], "nonfinite"),
    ],
)
def test_verdict_of(make_reading: MakeReading, verdicts: list[Any], expected: str) -> None:
    diagnosis = diagnose(make_reading())
    history = [dataclasses.replace(diagnosis, verdict=verdict) for verdict in verdicts]
    assert verdict_of(history) == expected


@pytest.mark.smoke
def test_the_worst_verdict_is_looked_at_first() -> None:
    assert worst_of([]) == "unknown"
    assert worst_of(["healthy", "unknown"]) == "unknown"
    assert worst_of(["vanishing", "exploding", "healthy"]) == "exploding"
    assert worst_of(["exploding", "nonfinite"]) == "nonfinite"


@pytest.mark.smoke
def test_the_last_reading_that_says_what_the_run_does_represents_it(
    make_reading: MakeReading,
) -> None:
    rms = ([1.0, 1.0], [1e-4, 1.0], [1e-5, 1.0], [1.0, 1.0])
    history = [diagnose(make_reading(step=step, rms=r)) for step, r in enumerate(rms)]
    assert representative(history, "vanishing") is history[2]
    assert representative(history, "healthy") is history[3]
    assert representative(history, "exploding") is None
    assert representative([], "healthy") is None


@given(seen=st.lists(st.sampled_from(VERDICTS), max_size=40))
def test_the_verdicts_of_a_run_are_those_after_each_reading(
    make_reading: MakeReading, run: Run, seen: list[Verdict]
) -> None:
    bare = diagnose(make_reading())
    history = [dataclasses.replace(bare, verdict=verdict) for verdict in seen]
    assert verdicts(history) == run(seen)
