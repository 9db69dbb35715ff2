"""Diagnoses of a run's readings, made a few at a time.

A reading of 500 layers takes 10 ms to diagnose, so a run of 2,000 readings takes half a minute.
Nobody should wait that long. The newest readings are diagnosed first, because the verdict needs
them. Some all over the run come next, and the ones in between last.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import cast

from keras_vanish.diagnosis import (
    AGREEING_READINGS,
    Diagnosis,
    LearningProgress,
    Verdict,
    diagnose,
    steadied,
)
from keras_vanish.records.readings import Reading

# What is known of a reading when it is diagnosed; of the course, `diagnose` asks for this alone.
_Key = tuple[int, float, bool | None]


class Scoring:
    """The diagnoses of one run, which may grow or lose readings that TensorBoard drops."""

    def __init__(self) -> None:
        self._readings: Sequence[Reading] = ()
        self._courses: list[LearningProgress] = []
        self._known: dict[_Key, Diagnosis] = {}
        self._lock = threading.Lock()

    def of(
        self, readings: Sequence[Reading], shown: Sequence[Reading], seconds: float
    ) -> tuple[Verdict, list[Diagnosis], bool]:
        """The run's verdict, the diagnoses so far, and whether these are all.

        Args:
            readings: The run, oldest first.
            shown: The readings that are asked for, oldest first; part of `readings`.
            seconds: For how long to diagnose. The readings that the verdict needs are always
                diagnosed.
        """
        until = time.monotonic() + seconds
        with self._lock:
            self._take(readings)
            verdict = self._verdict()
            at = {reading.step: place for place, reading in enumerate(readings)}
            places = [at[reading.step] for reading in shown]
            for index in _coarse_to_fine(len(places)):
                if time.monotonic() >= until:
                    break
                self._diagnosis(places[index])
            found = [self._known.get(self._key(place)) for place in places]
            made = [diagnosis for diagnosis in found if diagnosis is not None]
            return verdict, made, len(made) == len(found)

    def _take(self, readings: Sequence[Reading]) -> None:
        if readings is self._readings:
            return
        self._readings, self._courses = readings, []
        course = LearningProgress()
        for reading in readings:
            course = course.after(reading)
            self._courses.append(course)
        present = set(map(self._key, range(len(readings))))
        self._known = {key: found for key, found in self._known.items() if key in present}

    def _key(self, place: int) -> _Key:
        reading = self._readings[place]
        return reading.step, reading.wall_time, self._courses[place].learned

    def _diagnosis(self, place: int) -> Diagnosis:
        key = self._key(place)
        if key not in self._known:
            self._known[key] = diagnose(self._readings[place], self._courses[place])
        return self._known[key]

    def _verdict(self) -> Verdict:
        """`verdict_of` the whole run, from its end: the last readings that settle it."""
        undecided = cast(Verdict, "")
        for end in range(len(self._readings), 0, -1):
            start = max(0, end - AGREEING_READINGS)
            recent = [self._diagnosis(place) for place in range(start, end)]
            verdict = steadied(undecided, recent)
            if verdict != undecided:
                return verdict
        return "unknown"


def _coarse_to_fine(count: int) -> Iterator[int]:
    stride = 1 << max(0, count - 1).bit_length()
    seen: set[int] = set()
    while stride and count:
        for place in range(count - 1, -1, -stride):
            if place not in seen:
                seen.add(place)
                yield place
        stride //= 2
