"""Everything that TensorBoard shows of a recorded step, as one event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from tensorboard.compat.proto import types_pb2
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto

from keras_vanish.diagnosis import Diagnosis
from keras_vanish.logs import metadata
from keras_vanish.logs.histograms import Histograms, histogram_rows, histogram_tags
from keras_vanish.logs.markdown import markdown
from keras_vanish.logs.messages import HISTOGRAM, SCALAR, TEXT, shape
from keras_vanish.logs.scalars import scalars


class StepEvents:
    """Makes the events of one file: everything that TensorBoard shows of a recorded step.

    Only the first value of a tag carries its metadata. The message of the last step is filled
    in again where the tags are the same: to make sixty values anew, or to look them up, takes
    longer than everything else that is done for a step.
    """

    def __init__(self) -> None:
        self._described: set[str] = set()
        self._tags: list[str] = []
        self._event = Event()
        self._places: list[_Place] = []

    def event(
        self,
        diagnosis: Diagnosis,
        histograms: Histograms | None,
        verdict: str,
        numbers: Mapping[str, float] = MappingProxyType({}),
    ) -> Event:
        """The event of one step, valid until the next call.

        Args:
            diagnosis: The diagnosis of the step.
            histograms: The histograms of its gradients.
            verdict: The run's verdict so far.
            numbers: More scalars of the step, by tag.

        Raises:
            ValueError: If a histogram does not belong to the reading.
        """
        contents = list(_contents(diagnosis, histograms, verdict, numbers))
        tags = [content.tag for content in contents]
        if tags != self._tags:
            self._event, self._places = Event(), []
            for tag, content in zip(tags, contents):
                new = None if tag in self._described else content.metadata
                value = self._event.summary.value.add(tag=tag, metadata=new)
                self._places.append(_Place(value.tensor, content.dtype))
            self._tags = tags
        reading = diagnosis.reading
        self._event.wall_time, self._event.step = reading.wall_time, reading.step
        for place, content in zip(self._places, contents):
            place.fill(content.data)
        return self._event

    def written(self) -> None:
        """Notes that the last event, with its metadata, is in the file."""
        if not self._described.issuperset(self._tags):
            self._described.update(self._tags)
            for value in self._event.summary.value:
                value.ClearField("metadata")


class _Content(NamedTuple):
    tag: str
    metadata: SummaryMetadata
    dtype: int
    data: Any


class _Place:
    """The place of a number, a text or an array in a message; its dtype stays the same."""

    __slots__ = ("_shape", "_single", "_tensor")

    def __init__(self, tensor: TensorProto, dtype: int) -> None:
        tensor.dtype = dtype
        self._tensor, self._single, self._shape = tensor, None, None
        if dtype == types_pb2.DT_FLOAT:
            tensor.float_val.append(0.0)
            self._single = tensor.float_val
        elif dtype == types_pb2.DT_STRING:
            tensor.string_val.append(b"")
            self._single = tensor.string_val

    def fill(self, data: Any) -> None:
        if self._single is not None:
            self._single[0] = data
            return
        self._tensor.tensor_content = data.astype("<f8", copy=False).tobytes()
        if data.shape != self._shape:
            self._shape = data.shape
            self._tensor.tensor_shape.CopyFrom(shape(*data.shape))


def _contents(
    diagnosis: Diagnosis,
    histograms: Histograms | None,
    verdict: str,
    numbers: Mapping[str, float],
) -> Iterator[_Content]:
    reading = diagnosis.reading
    yield _Content(
        *metadata.of_layers(reading.names, reading.units), types_pb2.DT_DOUBLE, reading.table
    )
    if reading.probed is not None:
        probed = reading.probed
        yield _Content(*metadata.of_activations(probed.names), types_pb2.DT_DOUBLE, probed.table)
        yield _Content(
            *metadata.of_losses(),
            types_pb2.DT_DOUBLE,
            np.array([probed.loss, probed.shuffled_loss]),
        )
        for name, profile in probed.profiles.items():
            yield _Content(*metadata.of_profile(name), types_pb2.DT_DOUBLE, profile)
    for tag, number in [*scalars(diagnosis).items(), *numbers.items()]:
        yield _Content(tag, SCALAR, types_pb2.DT_FLOAT, number)
    text = markdown(diagnosis, verdict).encode("utf-8", "backslashreplace")
    yield _Content("gradients/diagnosis", TEXT, types_pb2.DT_STRING, text)
    if histograms is not None:
        tags = histogram_tags(reading.names, histograms.layers, histograms.variables)
        for tag, rows in zip(tags, histogram_rows(histograms)):
            if rows is not None:
                yield _Content(tag, HISTOGRAM, types_pb2.DT_DOUBLE, rows)
