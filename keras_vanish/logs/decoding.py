"""From the events of a file to readings; nothing that a file holds is trusted."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto import types_pb2
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto

from keras_vanish.logs.metadata import Description, described_by
from keras_vanish.logs.tags import INTERVENTIONS, PLUGIN
from keras_vanish.records.activations import ACTIVATION_COLUMNS, SIGNED_ACTIVATIONS
from keras_vanish.records.probed import Probed
from keras_vanish.records.readings import Reading
from keras_vanish.records.statistics import COLUMNS, SIGNED

_Table = npt.NDArray[np.float64]


def readings(events: Iterable[bytes]) -> Iterator[Reading]:
    """The readings in the events of one file, in the order of the file.

    Args:
        events: Serialised `Event` messages.

    Raises:
        ValueError: If a record cannot be read.
    """
    described = _Described()
    for data in events:
        reading = _reading(parsed_event(data), described)
        if reading is not None:
            yield reading


def parsed_event(data: bytes) -> Event:
    """The event that `data` holds.

    Raises:
        ValueError: If it holds none.
    """
    try:
        return Event.FromString(data)
    except DecodeError as error:
        raise ValueError(f"a record is not a TensorBoard event ({error})") from error


class _Described:
    """The descriptions of a file's records: only the first value of a tag has its metadata."""

    def __init__(self) -> None:
        self._contents: dict[str, bytes] = {}
        self._found: dict[str, Description] = {}

    def by(self, value: Summary.Value) -> Description | None:
        """The description of a value; None for a value that is no part of a reading."""
        tag = value.tag
        if tag == INTERVENTIONS:
            return None
        if value.metadata.plugin_data.plugin_name == PLUGIN:
            self._contents.setdefault(tag, value.metadata.plugin_data.content)
        elif not tag.startswith(f"{PLUGIN}/"):
            return None
        if tag not in self._found:
            if tag not in self._contents:
                raise ValueError(f"the tag {reprlib.repr(tag)} has no metadata")
            self._found[tag] = described_by(tag, self._contents[tag])
        return self._found[tag]


def _reading(event: Event, described: _Described) -> Reading | None:
    """The reading that an event holds; None if it holds none."""
    record: tuple[Description, _Table] | None = None
    activations: tuple[Description, _Table] | None = None
    profiles: dict[str, _Table] = {}
    losses = (math.nan, math.nan)
    for value in event.summary.value:
        description = described.by(value)
        if description is None:
            continue
        table = description.arranged(_table(value.tensor))
        if description.kind == "profile":
            profiles[description.names[0]] = _natural(table)
        elif description.kind == "loss":
            losses = _two(table)
        elif description.kind == "activations":
            activations = description, _natural(table, ACTIVATION_COLUMNS)
        else:
            record = description, _natural(table, COLUMNS)
    if record is None:
        return None
    probed = None
    if activations is not None:
        probed = Probed(*losses, activations[0].names, activations[1], profiles)
    layers, table = record
    return Reading(event.step, event.wall_time, layers.names, layers.units, table, probed)


def _two(table: _Table) -> tuple[float, float]:
    if table.shape != (2,):
        raise ValueError(f"the record of the losses has the shape {table.shape}")
    return float(table[0]), float(table[1])


_SIGNED = [*SIGNED, *SIGNED_ACTIVATIONS]


def _natural(table: _Table, columns: Sequence[str] = ()) -> _Table:
    """The table, if only numbers that may be negative are."""
    negative = np.atleast_2d(table < 0).any(0)
    if columns and table.ndim == 2 and table.shape[1] == len(columns):
        negative = negative & ~np.isin(columns, _SIGNED)
    if negative.any():
        raise ValueError("the record has negative numbers where there can be none")
    return table


def _table(tensor: TensorProto) -> _Table:
    content, rank = tensor.tensor_content, len(tensor.tensor_shape.dim)
    if rank > 2:
        raise ValueError(f"the record has {rank} dimensions")
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    whole = min(shape, default=0) >= 0 and len(content) == 8 * math.prod(shape)
    if tensor.dtype != types_pb2.DT_DOUBLE or not whole:
        raise ValueError(
            f"the record is {len(content)} bytes of type {tensor.dtype} for the shape {shape}"
        )
    return np.frombuffer(content, "<f8").astype(np.float64).reshape(shape)
