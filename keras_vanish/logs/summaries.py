"""What one recorded step looks like in an event file: a TensorBoard `Summary`."""

from __future__ import annotations

import functools
import json
import math
import reprlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

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

from keras_vanish.diagnosis import Diagnosis
from keras_vanish.interventions import Intervention
from keras_vanish.records.columns import ACTIVATION_COLUMNS, BINS, EXPONENT_BINS
from keras_vanish.records.readings import COLUMNS, Probed, Reading

#: The plugin that owns the record, and the beginning of the record's tag.
PLUGIN = "gradient_flow"
VERSION = 1
_ACTIVATIONS = f"{PLUGIN}/activations"
_PROFILE = f"{PLUGIN}/profile"
_LOSS = f"{PLUGIN}/loss"
#: What was done, for programs: one string of JSON an intervention.
INTERVENTIONS = f"{PLUGIN}/interventions"

_HISTOGRAM_AXIS = (
    "The axis is log10 of the magnitude of the gradient's entries, before clipping: -9 stands "
    "for 1e-9. Entries that are zero, NaN or infinite are left out. Counts are estimated from "
    "a sample."
)

# Of all bins but that of NaN and Inf.
_EDGES = math.log10(2) * (np.arange(EXPONENT_BINS) - 127)


@dataclass(frozen=True, eq=False)
class Histograms:
    """The sampled histograms of the gradients of all trained variables.

    Attributes:
        layers: The name of each variable's layer, as in the reading.
        variables: Its own name, such as `kernel`.
        sizes: How many entries it has.
        counts: Float array of shape `[variables, BINS]`, as in `capture/columns.py`:
            sampled entries by binary exponent; NaN for a variable without a gradient.
    """

    layers: tuple[str, ...]
    variables: tuple[str, ...]
    sizes: tuple[int, ...]
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
    column = dict(zip(COLUMNS, reading.table.T))
    values = [column["gradient_rms"], reading.update_ratios, column["zero_fraction"]]
    found.update(zip(_layer_tags(reading.names), np.stack(values, 1).ravel().tolist()))
    found |= {f"components/{name}": score for name, score in diagnosis.components.items()}
    if reading.probed is not None:
        table = reading.probed.table[:, [ACTIVATION_COLUMNS.index(name) for name in _PLOTTED]]
        found.update(zip(_activation_tags(reading.probed.names), table.ravel().tolist()))
        for name, recurrent in reading.timesteps.items():
            found[utf8(f"horizon/{name}")] = recurrent.horizon
    return {tag: value for tag, value in found.items() if not math.isnan(value)}


@functools.lru_cache(maxsize=8)
def _layer_tags(names: tuple[str, ...]) -> list[str]:
    kinds = ("gradient_rms", "update_ratio", "zero_fraction")
    return [utf8(f"{kind}/{label}") for label in labels(names) for kind in kinds]


# Of what the probe measures; they are missing where they do not apply.
_PLOTTED = ("gradient_rms", "dead_fraction", "saturated_fraction", "attention_entropy")


@functools.lru_cache(maxsize=8)
def _activation_tags(names: tuple[str, ...]) -> list[str]:
    kinds = ("activation_gradient_rms", *_PLOTTED[1:])
    return [utf8(f"{kind}/{label}") for label in labels(names) for kind in kinds]


@functools.lru_cache(maxsize=8)
def _histogram_tags(
    names: tuple[str, ...], layers: tuple[str, ...], variables: tuple[str, ...]
) -> list[str]:
    label = dict(zip(names, labels(names)))
    for layer in layers:
        if layer not in label:
            raise ValueError(
                "A histogram belongs to a layer of the reading. Received: "
                f"layer={layer!r}. Pass the layer's name as the reading has it."
            )
    return [
        utf8(f"gradients/{label[layer]}/{variable}") for layer, variable in zip(layers, variables)
    ]


def utf8(tag: str) -> str:
    """A tag as an event file holds it: a lone surrogate in a name is no UTF-8."""
    return tag.encode("utf-8", "backslashreplace").decode("utf-8")


def histogram_rows(histograms: Histograms) -> list[npt.NDArray[np.float64] | None]:
    """The histograms as TensorBoard stores them, over log10 of the magnitude.

    Returns:
        For each variable a float64 array of shape `[k, 3]`, rows of left edge, right edge
        and count, scaled from the sample to the variable; None if no entry is finite and
        not zero.

    Raises:
        ValueError: If `counts` has another shape than `[variables, BINS]`.
    """
    counts = np.asarray(histograms.counts, np.float64)
    if counts.shape != (len(histograms.variables), BINS):
        raise ValueError(
            f"Histograms need {BINS} counts a variable. Received: counts of shape "
            f"{counts.shape} for {len(histograms.variables)} variables. Pass rows as "
            "capture/columns.py has them."
        )
    # NaN where the variable has no gradient.
    sampled = counts.sum(1, keepdims=True)
    counts = counts[:, : EXPONENT_BINS - 1]
    filled = counts > 0
    places = np.flatnonzero(filled.any(0))
    if not places.size:
        return [None] * len(counts)
    start, stop = int(places[0]), int(places[-1]) + 1
    rows = np.empty([len(counts), stop - start, 3])
    rows[:, :, 0] = _EDGES[start:stop]
    rows[:, :, 1] = _EDGES[start + 1 : stop + 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.array(histograms.sizes)[:, np.newaxis] / sampled
        rows[:, :, 2] = counts[:, start:stop] * scale
    filled = filled[:, start:stop]
    firsts, lasts = filled.argmax(1), filled.shape[1] - filled[:, ::-1].argmax(1)
    return [
        row[first:last] if some else None
        for row, first, last, some in zip(rows, firsts, lasts, np.any(filled, axis=1))
    ]


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


class StepEvents:
    """Makes the events of one file: everything that TensorBoard shows of a recorded step.

    Only the first value of a tag carries its metadata. The message of the step before is
    filled in again where it has the same tags: making sixty values takes longer than all
    else that is done for a step, and so would finding them in it.
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
        """The event of one step; it is valid until the next call.

        Args:
            diagnosis: The diagnosis of the step.
            histograms: Its histograms.
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
                metadata = None if tag in self._described else content.metadata
                value = self._event.summary.value.add(tag=tag, metadata=metadata)
                self._places.append(_Place(value.tensor, content.dtype))
            self._tags = tags
        reading = diagnosis.reading
        self._event.wall_time, self._event.step = reading.wall_time, reading.step
        for place, content in zip(self._places, contents):
            place.fill(content.data)
        return self._event

    def written(self) -> None:
        """Tells that the last event is in the file, with the metadata in it."""
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
    """Where in a message a number, a text or an array stands, of the same dtype each time."""

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
            self._tensor.tensor_shape.CopyFrom(_shape(*data.shape))


def _contents(
    diagnosis: Diagnosis,
    histograms: Histograms | None,
    verdict: str,
    numbers: Mapping[str, float],
) -> Iterator[_Content]:
    reading = diagnosis.reading
    yield _Content(
        *_record_metadata(reading.names, reading.units), types_pb2.DT_DOUBLE, reading.table
    )
    if reading.probed is not None:
        probed = reading.probed
        tag, metadata = _activations_metadata(probed.names)
        yield _Content(tag, metadata, types_pb2.DT_DOUBLE, probed.table)
        yield _Content(
            *_loss_metadata(), types_pb2.DT_DOUBLE, np.array([probed.loss, probed.shuffled_loss])
        )
        for name, profile in probed.profiles.items():
            yield _Content(*_profile_metadata(name), types_pb2.DT_DOUBLE, profile)
    for tag, number in [*scalars(diagnosis).items(), *numbers.items()]:
        yield _Content(tag, _SCALAR, types_pb2.DT_FLOAT, number)
    text = markdown(diagnosis, verdict).encode("utf-8", "backslashreplace")
    yield _Content("gradients/diagnosis", _TEXT, types_pb2.DT_STRING, text)
    if histograms is not None:
        tags = _histogram_tags(reading.names, histograms.layers, histograms.variables)
        for tag, rows in zip(tags, histogram_rows(histograms)):
            if rows is not None:
                yield _Content(tag, _HISTOGRAM, types_pb2.DT_DOUBLE, rows)


def interventions_event(interventions: Sequence[Intervention], wall_time: float) -> Event:
    """The event that tells what was done at one step, as text and as JSON.

    Args:
        interventions: What was done.
        wall_time: Seconds since 1970.
    """
    event = Event(wall_time=wall_time, step=interventions[0].step)
    text = "\n".join(f"- {_escaped(intervention.sentence())}" for intervention in interventions)
    value = event.summary.value.add(tag="gradients/interventions", metadata=_TEXT)
    value.tensor.dtype = types_pb2.DT_STRING
    value.tensor.string_val[:] = (text.encode("utf-8", "backslashreplace"),)
    value = event.summary.value.add(tag=INTERVENTIONS, metadata=_INTERVENTIONS)
    value.tensor.dtype = types_pb2.DT_STRING
    value.tensor.tensor_shape.CopyFrom(_shape(len(interventions)))
    value.tensor.string_val[:] = [
        intervention.to_json().encode("utf-8", "backslashreplace") for intervention in interventions
    ]
    return event


def _with_class(metadata: SummaryMetadata, data_class: int) -> SummaryMetadata:
    # Without a data class TensorBoard does not show a value.
    metadata.data_class = data_class
    return metadata


_SCALAR = _with_class(scalar_plugin.create_summary_metadata("", ""), summary_pb2.DATA_CLASS_SCALAR)
_TEXT = _with_class(text_plugin.create_summary_metadata("", ""), summary_pb2.DATA_CLASS_TENSOR)
_HISTOGRAM = _with_class(
    histogram_plugin.create_summary_metadata("", _HISTOGRAM_AXIS), summary_pb2.DATA_CLASS_TENSOR
)
_INTERVENTIONS = SummaryMetadata(
    plugin_data=SummaryMetadata.PluginData(plugin_name=PLUGIN),
    data_class=summary_pb2.DATA_CLASS_TENSOR,
)


@functools.lru_cache(maxsize=1024)
def _shape(*sizes: int) -> TensorShapeProto:
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in sizes])


@functools.lru_cache(maxsize=8)
def _record_metadata(names: tuple[str, ...], units: tuple[int, ...]) -> tuple[str, SummaryMetadata]:
    return _metadata(PLUGIN, {"columns": COLUMNS, "names": names, "units": units})


@functools.lru_cache(maxsize=8)
def _activations_metadata(names: tuple[str, ...]) -> tuple[str, SummaryMetadata]:
    return _metadata(_ACTIVATIONS, {"columns": ACTIVATION_COLUMNS, "names": names})


@functools.cache
def _loss_metadata() -> tuple[str, SummaryMetadata]:
    return _metadata(_LOSS, {})


@functools.lru_cache(maxsize=1024)
def _profile_metadata(name: str) -> tuple[str, SummaryMetadata]:
    return _metadata(_PROFILE, {"name": name})


def _metadata(prefix: str, fields: dict[str, Any]) -> tuple[str, SummaryMetadata]:
    content = json.dumps({"version": VERSION, **fields}, separators=(",", ":")).encode()
    plugin = SummaryMetadata.PluginData(plugin_name=PLUGIN, content=content)
    metadata = SummaryMetadata(plugin_data=plugin, data_class=summary_pb2.DATA_CLASS_TENSOR)
    # TensorBoard keeps the metadata of a tag's first event in a run, over all its files.
    # So a tag stands for one set of layers, whichever process wrote it.
    return f"{prefix}/{zlib.crc32(content):08x}", metadata


def readings(events: Iterable[bytes]) -> Iterator[Reading]:
    """The readings in the events of one file, in the order of the file.

    Args:
        events: Serialised `Event` messages; what they hold is not trusted.

    Raises:
        ValueError: If a record is not as this version writes it.
    """
    contents: dict[str, bytes] = {}
    described: dict[str, Any] = {}
    for data in events:
        event = parsed_event(data)
        record: tuple[tuple[str, ...], tuple[int, ...], npt.NDArray[np.float64]] | None = None
        activations: tuple[tuple[str, ...], npt.NDArray[np.float64]] | None = None
        profiles: dict[str, npt.NDArray[np.float64]] = {}
        losses = (math.nan, math.nan)
        for value in event.summary.value:
            if value.tag == INTERVENTIONS:
                continue
            if value.metadata.plugin_data.plugin_name == PLUGIN:
                contents.setdefault(value.tag, value.metadata.plugin_data.content)
            elif not value.tag.startswith(f"{PLUGIN}/"):
                continue
            if value.tag not in described:
                if value.tag not in contents:
                    raise ValueError(f"the tag {reprlib.repr(value.tag)} has no metadata")
                described[value.tag] = described_by(value.tag, contents[value.tag])
            description, table = described[value.tag], _table(value.tensor)
            if value.tag.startswith(f"{_PROFILE}/"):
                profiles[description] = _natural(table)
            elif value.tag.startswith(f"{_LOSS}/"):
                losses = _two(table)
            elif value.tag.startswith(f"{_ACTIVATIONS}/"):
                activations = description, _natural(table, ACTIVATION_COLUMNS)
            else:
                record = (*description, _natural(table, COLUMNS))
        if record is not None:
            probed = None if activations is None else Probed(*losses, *activations, profiles)
            yield Reading(event.step, event.wall_time, *record, probed)


def parsed_event(data: bytes) -> Event:
    """The event that `data` holds.

    Raises:
        ValueError: If it holds none.
    """
    try:
        return Event.FromString(data)
    except DecodeError as error:
        raise ValueError(f"a record is not a TensorBoard event ({error})") from error


#: The longest description of a record that is read, in bytes: it holds the names of the layers.
_LONGEST = 2**24


def described_by(tag: str, content: bytes) -> Any:
    """What the metadata of a record says.

    Args:
        tag: The record's tag.
        content: The metadata's content; it is not trusted.

    Returns:
        Names and units of the layers for the record itself, names for that of activations,
        the layer's name for a profile, None for the losses.

    Raises:
        ValueError: If it is not as this version writes it.
    """
    if len(content) > _LONGEST:
        raise ValueError(f"the metadata has {len(content)} bytes")
    try:
        fields = json.loads(content)
    except (RecursionError, ValueError) as error:
        raise ValueError(f"the metadata is not JSON ({error})") from error
    version = fields.get("version") if isinstance(fields, dict) else None
    if version != VERSION:
        raise ValueError(
            f"the record has version {reprlib.repr(version)}, this keras-vanish reads version "
            f"{VERSION}"
        )
    if tag.startswith(f"{_PROFILE}/"):
        name = fields.get("name")
        if not isinstance(name, str):
            raise ValueError(f"the record has the name {reprlib.repr(name)}")
        return name
    if tag.startswith(f"{_LOSS}/"):
        return None
    of_activations = tag.startswith(f"{_ACTIVATIONS}/")
    columns = fields.get("columns")
    if columns != list(ACTIVATION_COLUMNS if of_activations else COLUMNS):
        raise ValueError(f"the record has the columns {reprlib.repr(columns)}")
    names, units = fields.get("names"), fields.get("units")
    if not _all_of(str, names) or not (of_activations or _all_of(int, units)):
        raise ValueError(
            f"the record has the names {reprlib.repr(names)} and the units {reprlib.repr(units)}"
        )
    if of_activations:
        return tuple(names)
    if not names:
        raise ValueError("the record has no layer")
    if not all(0 <= width < 2**63 for width in units):
        raise ValueError(f"the record has the units {reprlib.repr(units)}")
    return tuple(names), tuple(units)


def _all_of(kind: type, entries: object) -> bool:
    return isinstance(entries, list) and all(type(entry) is kind for entry in entries)


def _two(table: npt.NDArray[np.float64]) -> tuple[float, float]:
    if table.shape != (2,):
        raise ValueError(f"the record of the losses has the shape {table.shape}")
    return float(table[0]), float(table[1])


#: All else that is recorded is a magnitude, a share or a count.
_SIGNED = ("gradient_mean", "gradient_min", "gradient_max", "preactivation_mean")


def _natural(
    table: npt.NDArray[np.float64], columns: Sequence[str] = ()
) -> npt.NDArray[np.float64]:
    """The table, if only numbers that may be negative are."""
    negative = np.atleast_2d(table < 0).any(0)
    if columns and table.ndim == 2 and table.shape[1] == len(columns):
        negative &= ~np.isin(columns, _SIGNED)
    if negative.any():
        raise ValueError("the record has negative numbers where there can be none")
    return table


def _table(tensor: TensorProto) -> npt.NDArray[np.float64]:
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
