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


def test_a_tag_stands_for_one_set_of_layers(make_reading: MakeReading) -> None:
    def tag(**arguments: object) -> str:
        return str(event_of(diagnose(make_reading(**arguments))).summary.value[0].tag)

    assert tag(step=1) == tag(step=2)
    assert len({tag(), tag(rms=[1, 2]), tag(units=7), tag(names=["a", "b", "c"])}) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "the metadata is not JSON"),
        (b"\xff", "the metadata is not JSON"),
        (b"[]", "version None"),
        (b'{"version":2}', "version 2, this keras-vanish reads version 1"),
        (b'{"version":1,"columns":["a"]}', "the columns ['a']"),
    ],
)
def test_metadata_of_another_kind(make_reading: MakeReading, content: bytes, message: str) -> None:
    event = event_of(diagnose(make_reading()))
    event.summary.value[0].metadata.plugin_data.content = content
    with pytest.raises(ValueError, match=re.escape(message)):
        list(readings([event.SerializeToString()]))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"dense_0"', b"7", "the names [7, 'dense_1', 'dense_2']"),
        (b"[32,32,32]", b'"32"', "the units '32'"),
        (b"[32,32,32]", b"[32,32]", "3 names, 2 widths"),
        (b'"dense_0",', b"", "2 names, 3 widths and a table of shape (3, 14)"),
    ],
)
def test_metadata_that_contradicts_the_table(
    make_reading: MakeReading, old: bytes, new: bytes, message: str
) -> None:
    event = event_of(diagnose(make_reading()))
    plugin = event.summary.value[0].metadata.plugin_data
    assert old in plugin.content
    plugin.content = plugin.content.replace(old, new)
    with pytest.raises(ValueError, match=re.escape(message)):
        list(readings([event.SerializeToString()]))
