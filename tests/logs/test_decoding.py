from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from tensorboard.compat.proto.event_pb2 import Event

from keras_vanish.diagnosis.diagnosis import Diagnosis, diagnose
from keras_vanish.logs.decoding import readings
from keras_vanish.logs.step_events import StepEvents
from keras_vanish.records.readings import Reading

MakeReading = Callable[..., Reading]


def event_of(diagnosis: Diagnosis) -> Event:
    return StepEvents().event(diagnosis, None, "healthy")


def test_table_of_another_size(make_reading: MakeReading) -> None:
    event = event_of(diagnose(make_reading()))
    event.summary.value[0].tensor.tensor_content = b"12345678"
    with pytest.raises(ValueError, match=re.escape("8 bytes of type 2 for the shape [3, 14]")):
        list(readings([event.SerializeToString()]))


def test_record_without_metadata(make_reading: MakeReading) -> None:
    event = event_of(diagnose(make_reading()))
    event.summary.value[0].ClearField("metadata")
    with pytest.raises(ValueError, match="the tag 'gradient_flow/.*' has no metadata"):
        list(readings([event.SerializeToString()]))


def test_data_that_is_no_event() -> None:
    with pytest.raises(ValueError, match="a record is not a TensorBoard event"):
        list(readings([b"\xff\xff"]))
