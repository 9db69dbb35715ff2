from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from event_files import event_of
from factories import MakeReading
from tensorboard.compat.proto.event_pb2 import Event

from keras_vanish.diagnosis import diagnose
from keras_vanish.logs.decoding import readings
from keras_vanish.logs.step_events import StepEvents
from keras_vanish.logs.tags import Kind, kind_of
from keras_vanish.records.probed import Probed

Array = npt.NDArray[Any]


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


def rewritten(event: Event, kind: Kind, change: Callable[[dict[str, Any], Array], Array]) -> bytes:
    """The event as another version might have written it.

    `change` is given the metadata and the table of one record, and returns the new table.
    """
    (value,) = [v for v in event.summary.value if is_record(v, kind)]
    plugin = value.metadata.plugin_data
    fields = json.loads(plugin.content)
    shape = [dim.size for dim in value.tensor.tensor_shape.dim]
    table = change(fields, np.frombuffer(value.tensor.tensor_content, "<f8").reshape(shape))
    plugin.content = json.dumps(fields).encode()
    value.tensor.tensor_content = np.ascontiguousarray(table, "<f8").tobytes()
    for dim, size in zip(value.tensor.tensor_shape.dim, table.shape):
        dim.size = size
    return event.SerializeToString()


def is_record(value: Any, kind: Kind) -> bool:
    plugin = value.metadata.plugin_data.plugin_name
    return bool(plugin == "gradient_flow" and kind_of(value.tag) == kind)


def one_less(fields: dict[str, Any], table: Array) -> Array:
    del fields["columns"][-1]
    return table[:, :-1]


def one_more(fields: dict[str, Any], table: Array) -> Array:
    # Nobody knows what the new one may be: negative numbers are none of our business.
    fields["columns"].insert(2, "from_the_future")
    return np.insert(table, 2, -1.0, axis=1)


def backwards(fields: dict[str, Any], table: Array) -> Array:
    fields["columns"].reverse()
    return table[:, ::-1]


@pytest.mark.parametrize("kind", ["record", "activations"])
@pytest.mark.parametrize("change", [one_less, one_more, backwards])
def test_columns_are_read_by_name(
    make_reading: MakeReading,
    make_probed: Callable[..., Probed],
    kind: Kind,
    change: Callable[[dict[str, Any], Array], Array],
) -> None:
    probed = make_probed(preactivation_mean=-2.0, attention_entropy=0.5)
    reading = make_reading(probed=probed, update_rms=0.25)
    event = StepEvents().event(diagnose(reading), None, "healthy")
    (found,) = readings([rewritten(event, kind, change)])
    if change is not one_less:
        assert found == reading
        return
    ours = found if kind == "record" else found.probed
    theirs = reading if kind == "record" else probed
    assert ours is not None
    assert np.isnan(ours.table[:, -1]).all()
    assert not np.isnan(theirs.table[:, -1]).any()
    np.testing.assert_array_equal(ours.table[:, :-1], theirs.table[:, :-1])


@pytest.mark.parametrize("kind", ["record", "activations"])
def test_negative_numbers_are_refused_in_any_column_order(
    make_reading: MakeReading, make_probed: Callable[..., Probed], kind: Kind
) -> None:
    def change(fields: dict[str, Any], table: Array) -> Array:
        fields["columns"].reverse()
        return -table[:, ::-1]

    event = StepEvents().event(diagnose(make_reading(probed=make_probed())), None, "healthy")
    with pytest.raises(ValueError, match="negative numbers where there can be none"):
        list(readings([rewritten(event, kind, change)]))
