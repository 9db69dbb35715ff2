from __future__ import annotations

import math
from collections.abc import Callable

from factories import MakeReading

from keras_vanish.diagnosis import diagnose
from keras_vanish.logs.histograms import Histograms
from keras_vanish.logs.step_events import StepEvents

MakeHistogram = Callable[..., Histograms]


def test_only_the_first_value_of_a_tag_carries_metadata(
    histogram: MakeHistogram, make_reading: MakeReading
) -> None:
    diagnosis = diagnose(make_reading())
    events = StepEvents()
    described = []
    for shown in (None, histogram(_100=1), histogram(_100=1), histogram(_100=1)):
        event = events.event(diagnosis, shown, "healthy")
        described.append([value.tag for value in event.summary.value if value.HasField("metadata")])
        events.written()
    assert len(described[0]) > 10
    assert described[1:] == [["gradients/00_dense_0/kernel"], [], []]


def test_metadata_comes_again_until_it_is_written(make_reading: MakeReading) -> None:
    diagnosis = diagnose(make_reading())
    events = StepEvents()
    for _ in range(2):
        event = events.event(diagnosis, None, "healthy")
        assert all(value.HasField("metadata") for value in event.summary.value)


def test_a_message_used_again_holds_the_step_and_no_more(
    histogram: MakeHistogram, make_reading: MakeReading
) -> None:
    """Also where values come and go, and where a histogram changes its size."""
    events = StepEvents()
    steps = [
        (make_reading(step=1, rms=[1e-3, 2e-3]), histogram(_90=1, _99=1)),
        (make_reading(step=2, rms=[4e-3, 5e-3]), histogram(_95=1)),
        (make_reading(step=3, rms=[math.nan, 5e-3]), None),
        (make_reading(step=4, rms=[1e-9, 5e-3]), histogram(_95=1)),
    ]
    for reading, shown in steps:
        diagnosis = diagnose(reading)
        again = events.event(diagnosis, shown, "healthy")
        events.written()
        fresh = StepEvents().event(diagnosis, shown, "healthy")
        for value in (*again.summary.value, *fresh.summary.value):
            value.ClearField("metadata")
        assert again == fresh
