"""What one recorded step looks like in an event file: a TensorBoard `Summary`."""

from __future__ import annotations

import functools
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto import summary_pb2, types_pb2
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.histogram import metadata as histogram_plugin
from tensorboard.plugins.scalar import metadata as scalar_plugin
from tensorboard.plugins.text import metadata as text_plugin

from keras_vanish.capture.columns import BINS, EXPONENT_BINS
from keras_vanish.diagnosis import Diagnosis
from keras_vanish.reading import COLUMNS, Reading

#: The plugin that owns the record, and the beginning of the record's tag.
PLUGIN = "gradient_flow"
VERSION = 1

_HISTOGRAM_AXIS = (
    "The axis is log10 of the magnitude of the gradient's entries, before clipping: -9 stands "
    "for 1e-9. Entries that are zero, NaN or infinite are left out. Counts are estimated from "
    "a sample."
)

_EDGES = math.log10(2) * (np.arange(EXPONENT_BINS) - 127)
_ROWS = np.stack([_EDGES[:-1], _EDGES[1:], np.zeros(EXPONENT_BINS - 1)], 1)


@dataclass(frozen=True, eq=False)
class Histogram:
    """The sampled histogram of one variable's gradient.

    Attributes:
        layer: Name of the variable's layer, as in the reading.
        variable: Name of the variable, such as `kernel`.
        size: How many entries the variable has.
        counts: Float array of shape `[BINS]`, as in `capture/columns.py`: sampled
            entries by binary exponent; NaN for a variable without a gradient.
    """

    layer: str
    variable: str
    size: int
    counts: npt.NDArray[Any]


def labels(names: Sequence[str]) -> list[str]:
    """Layer names with their depth in front, so that they sort by depth: `03_dense`."""
    digits = max(2, len(str(len(names) - 1)))
    return [f"{depth:0{digits}d}_{name}" for depth, name in enumerate(names)]


def scalars(diagnosis: Diagnosis) -> dict[str, float]:
    """The numbers that TensorBoard plots, by tag; what is missing is left out."""
    reading = diagnosis.reading
    found = {
        "gradients/vanishing_score": diagnosis.vanishing_score,
        "gradients/exploding_score": diagnosis.exploding_score,
        "gradients/global_norm": reading.global_norm,
        "gradients/global_norm_after_clipping": reading.global_norm_after_clipping,
    }
    layers = [
        (layer.gradient_rms, layer.update_ratio, layer.zero_fraction) for layer in reading.layers
    ]
    for tags, values in zip(_layer_tags(reading.names), layers):
        found.update(zip(tags, values))
    return {tag: value for tag, value in found.items() if not math.isnan(value)}


@functools.lru_cache(maxsize=8)
def _layer_tags(names: tuple[str, ...]) -> list[list[str]]:
    kinds = ("gradient_rms", "update_ratio", "zero_fraction")
    return [[f"{kind}/{label}" for kind in kinds] for label in labels(names)]


def histogram_rows(histogram: Histogram) -> npt.NDArray[np.float64] | None:
    """A histogram as TensorBoard stores it, over log10 of the magnitude.

    Returns:
        Float64 array of shape `[k, 3]`, rows of left edge, right edge and count, scaled
        from the sample to the variable; None if no entry is finite and not zero.

    Raises:
        ValueError: If `counts` has another length than `BINS`.
    """
    counts = np.asarray(histogram.counts, np.float64)
    if counts.shape != (BINS,):
        raise ValueError(
            f"A histogram needs {BINS} counts. Received: counts of shape {counts.shape} for "
            f"{histogram.layer}/{histogram.variable}. Pass a row as capture/columns.py has it."
        )
    # NaN where the variable has no gradient.
    sampled = counts.sum()
    if not sampled > 0:
        return None
    filled = counts[: len(_ROWS)].nonzero()[0]
    if not filled.size:
        return None
    bins = slice(filled[0], filled[-1] + 1)
    rows = _ROWS[bins].copy()
    rows[:, 2] = counts[bins] * (histogram.size / sampled)
    return rows


def markdown(diagnosis: Diagnosis, verdict: str) -> str:
    """The diagnosis in plain words, as Markdown."""
    return _markdown(diagnosis.sentence(), verdict, diagnosis.blame, diagnosis.advice)


@functools.lru_cache(maxsize=8)
def _markdown(sentence: str, verdict: str, blame: tuple[str, ...], advice: tuple[str, ...]) -> str:
    parts = [f"**{_escaped(sentence)}**", f"The run so far: {_escaped(verdict)}\\."]
    for title, entries, mark in (
        ("Layers to blame:", blame, "-"),
        ("What to try:", advice, "1."),
    ):
        if entries:
            parts += [title, "\n".join(f"{mark} {_escaped(entry)}" for entry in entries)]
    return "\n\n".join(parts)


# Layer names may hold anything: nothing of them may act as Markdown or HTML.
_ESCAPES = str.maketrans(
    {c: "\\" + c for c in "\\`*_{}[]()#+-.!"} | {c: f"&#{ord(c)};" for c in "<>&|~"}
)


def _escaped(text: str) -> str:
    printable = "".join(c if c.isprintable() else " " for c in text)
    return printable.translate(_ESCAPES)


def step_summary(
    diagnosis: Diagnosis, histograms: Sequence[Histogram], verdict: str, described: set[str]
) -> summary_pb2.Summary:
    """Everything that TensorBoard shows of one recorded step.

    Args:
        diagnosis: The diagnosis of the step.
        histograms: Its histograms.
        verdict: The run's verdict so far.
        described: The tags of which the file has the metadata: only the first value of
            a tag carries it.
    """
    summary = summary_pb2.Summary()
    for tag, tensor, metadata in _values(diagnosis, histograms, verdict):
        # Tags are UTF-8; a lone surrogate in a name is not.
        tag = tag.encode("utf-8", "backslashreplace").decode("utf-8")
        summary.value.add(tag=tag, tensor=tensor, metadata=None if tag in described else metadata)
    return summary


def _values(
    diagnosis: Diagnosis, histograms: Sequence[Histogram], verdict: str
) -> Iterator[tuple[str, TensorProto, SummaryMetadata]]:
    reading = diagnosis.reading
    tag, metadata = _record_metadata(reading.names, reading.units)
    yield tag, _doubles(reading.table), metadata
    for tag, value in scalars(diagnosis).items():
        yield tag, TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[value]), _SCALAR
    text = markdown(diagnosis, verdict).encode("utf-8", "backslashreplace")
    tensor = TensorProto(dtype=types_pb2.DT_STRING, string_val=[text])
    yield "gradients/diagnosis", tensor, _TEXT
    label = dict(zip(reading.names, labels(reading.names)))
    for histogram in histograms:
        if histogram.layer not in label:
            raise ValueError(
                "A histogram belongs to a layer of the reading. Received: "
                f"layer={histogram.layer!r}. Pass the layer's name as the reading has it."
            )
        rows = histogram_rows(histogram)
        if rows is not None:
            tag = f"gradients/{label[histogram.layer]}/{histogram.variable}"
            yield tag, _doubles(rows), _HISTOGRAM


def _with_class(metadata: SummaryMetadata, data_class: int) -> SummaryMetadata:
    # Without a data class TensorBoard does not show a value.
    metadata.data_class = data_class
    return metadata


_SCALAR = _with_class(scalar_plugin.create_summary_metadata("", ""), summary_pb2.DATA_CLASS_SCALAR)
_TEXT = _with_class(text_plugin.create_summary_metadata("", ""), summary_pb2.DATA_CLASS_TENSOR)
_HISTOGRAM = _with_class(
    histogram_plugin.create_summary_metadata("", _HISTOGRAM_AXIS), summary_pb2.DATA_CLASS_TENSOR
)


def _doubles(array: npt.NDArray[np.float64]) -> TensorProto:
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in array.shape])
    content = array.astype("<f8").tobytes()
    return TensorProto(dtype=types_pb2.DT_DOUBLE, tensor_shape=shape, tensor_content=content)


@functools.lru_cache(maxsize=8)
def _record_metadata(names: tuple[str, ...], units: tuple[int, ...]) -> tuple[str, SummaryMetadata]:
    fields = {"version": VERSION, "columns": COLUMNS, "names": names, "units": units}
    content = json.dumps(fields, separators=(",", ":")).encode()
    plugin = SummaryMetadata.PluginData(plugin_name=PLUGIN, content=content)
    metadata = SummaryMetadata(plugin_data=plugin, data_class=summary_pb2.DATA_CLASS_TENSOR)
    # TensorBoard keeps the metadata of a tag's first event in a run, over all its files.
    # So a tag stands for one set of layers, whichever process wrote it.
    return f"{PLUGIN}/{zlib.crc32(content):08x}", metadata


def readings(events: Iterable[bytes]) -> Iterator[Reading]:
    """The readings in the events of one file, in the order of the file.

    Args:
        events: Serialised `Event` messages.

    Raises:
        ValueError: If a record is not as this version writes it.
    """
    layers: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {}
    for data in events:
        event = parsed_event(data)
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == PLUGIN:
                layers.setdefault(value.tag, _parsed(value.metadata.plugin_data.content))
            elif not value.tag.startswith(f"{PLUGIN}/"):
                continue
            if value.tag not in layers:
                raise ValueError(f"the tag {value.tag!r} has no metadata")
            names, units = layers[value.tag]
            yield Reading(event.step, event.wall_time, names, units, _table(value.tensor))


def parsed_event(data: bytes) -> Event:
    """The event that `data` holds.

    Raises:
        ValueError: If it holds none.
    """
    try:
        return Event.FromString(data)
    except DecodeError as error:
        raise ValueError(f"a record is not a TensorBoard event ({error})") from error


def _parsed(content: bytes) -> tuple[tuple[str, ...], tuple[int, ...]]:
    try:
        fields = json.loads(content)
    except ValueError as error:
        raise ValueError(f"the metadata is not JSON ({error})") from error
    version = fields.get("version") if isinstance(fields, dict) else None
    if version != VERSION:
        raise ValueError(
            f"the record has version {version!r}, this keras-vanish reads version {VERSION}"
        )
    if fields.get("columns") != list(COLUMNS):
        raise ValueError(f"the record has the columns {fields.get('columns')!r}")
    names, units = fields.get("names"), fields.get("units")
    if not _all_of(str, names) or not _all_of(int, units):
        raise ValueError(f"the record has the names {names!r} and the units {units!r}")
    return tuple(names), tuple(units)


def _all_of(kind: type, entries: object) -> bool:
    return isinstance(entries, list) and all(type(entry) is kind for entry in entries)


def _table(tensor: TensorProto) -> npt.NDArray[np.float64]:
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    content = tensor.tensor_content
    if tensor.dtype != types_pb2.DT_DOUBLE or len(content) != 8 * math.prod(shape):
        raise ValueError(
            f"the record is {len(content)} bytes of type {tensor.dtype} for the shape {shape}"
        )
    return np.frombuffer(content, "<f8").astype(np.float64).reshape(shape)
