"""What the metadata of a record says of it: layers, units, and the names of its columns.

A table is read by the names of its columns. A release may add or drop columns without a new
`VERSION`: a missing column is NaN, and an unknown one is left out. `VERSION` rises only where a
column or a record changes its meaning.
"""

from __future__ import annotations

import functools
import json
import reprlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorboard.compat.proto import summary_pb2
from tensorboard.compat.proto.summary_pb2 import SummaryMetadata

from keras_vanish.logs.tags import PLUGIN, Kind, kind_of, tag_of
from keras_vanish.records.activations import ACTIVATION_COLUMNS
from keras_vanish.records.columns import by_name
from keras_vanish.records.statistics import COLUMNS

VERSION = 1

#: The columns of a table in a `Reading`, by what the record holds.
_WANTED: Mapping[Kind, tuple[str, ...]] = {"record": COLUMNS, "activations": ACTIVATION_COLUMNS}

# The longest metadata that is read, in bytes: it holds the names of the layers.
_LONGEST = 2**24

# More columns than any version will have.
_MOST_COLUMNS = 1000


@functools.lru_cache(maxsize=8)
def of_layers(names: tuple[str, ...], units: tuple[int, ...]) -> tuple[str, SummaryMetadata]:
    """Tag and metadata of the statistics of layers."""
    return _written("record", {"columns": COLUMNS, "names": names, "units": units})


@functools.lru_cache(maxsize=8)
def of_activations(names: tuple[str, ...]) -> tuple[str, SummaryMetadata]:
    """Tag and metadata of what the probe saw of layers' outputs."""
    return _written("activations", {"columns": ACTIVATION_COLUMNS, "names": names})


@functools.cache
def of_losses() -> tuple[str, SummaryMetadata]:
    """Tag and metadata of the probe's two losses."""
    return _written("loss", {})


@functools.lru_cache(maxsize=1024)
def of_profile(name: str) -> tuple[str, SummaryMetadata]:
    """Tag and metadata of a recurrent layer's gradient through time."""
    return _written("profile", {"name": name})


def _written(kind: Kind, fields: dict[str, Any]) -> tuple[str, SummaryMetadata]:
    content = json.dumps({"version": VERSION, **fields}, separators=(",", ":")).encode()
    plugin = SummaryMetadata.PluginData(plugin_name=PLUGIN, content=content)
    metadata = SummaryMetadata(plugin_data=plugin, data_class=summary_pb2.DATA_CLASS_TENSOR)
    # TensorBoard keeps the metadata of a tag's first event in a run, over all its files.
    # So a tag stands for one set of layers, whichever process wrote it.
    return tag_of(kind, f"{zlib.crc32(content):08x}"), metadata


@dataclass(frozen=True)
class Description:
    """What the metadata of a record says.

    Attributes:
        kind: What the record holds.
        names: The layers that it is about; a profile has one.
        units: The width of each layer's output; only for `"record"`.
        columns: The names of the table's columns; only for `"record"` and `"activations"`.
    """

    kind: Kind
    names: tuple[str, ...] = ()
    units: tuple[int, ...] = ()
    columns: tuple[str, ...] = ()

    def arranged(self, table: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The record's table with the columns of this version, whichever version wrote it.

        Args:
            table: Float64 array of shape `[layers, len(columns)]`; it is not trusted. A table
                with the columns of this version is returned as it is, whatever its shape.

        Returns:
            Float64 array of shape `[layers, columns of this version]`, NaN where a column is
            missing.

        Raises:
            ValueError: If the table has other than one row a layer and one column a name.
        """
        wanted = _WANTED.get(self.kind, ())
        if self.columns == wanted:
            return table
        if table.shape[:1] != (len(self.names),):
            # Before it is arranged: the result may be far larger than what was stored.
            raise ValueError(f"the record has {len(self.names)} names and the shape {table.shape}")
        return by_name(table, self.columns, wanted)


def described_by(tag: str, content: bytes) -> Description:
    """Reads the metadata of a record.

    Args:
        tag: The record's tag.
        content: The metadata's content; it is not trusted.

    Raises:
        ValueError: If the content is not valid metadata of this version.
    """
    kind = kind_of(tag)
    if kind == "interventions":
        return Description(kind)
    fields = _fields(content)
    if kind == "loss":
        return Description(kind)
    if kind == "profile":
        name = fields.get("name")
        if not isinstance(name, str):
            raise ValueError(f"the record has the name {reprlib.repr(name)}")
        return Description(kind, (name,))
    columns = _columns(fields.get("columns"))
    names: Any = fields.get("names")
    units: Any = fields.get("units")
    plain = kind == "activations"
    if not _all_of(str, names) or not (plain or _all_of(int, units)):
        raise ValueError(
            f"the record has the names {reprlib.repr(names)} and the units {reprlib.repr(units)}"
        )
    if plain:
        return Description(kind, tuple(names), columns=columns)
    if not names:
        raise ValueError("the record has no layer")
    if not all(0 <= width < 2**63 for width in units):
        raise ValueError(f"the record has the units {reprlib.repr(units)}")
    return Description(kind, tuple(names), tuple(units), columns)


def _fields(content: bytes) -> dict[str, Any]:
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
    found: dict[str, Any] = fields
    return found


def _columns(columns: Any) -> tuple[str, ...]:
    valid = _all_of(str, columns) and 0 < len(columns) <= _MOST_COLUMNS
    if not valid or len(set(columns)) < len(columns):
        raise ValueError(
            f"the record has the columns {reprlib.repr(columns)}, not 1 to {_MOST_COLUMNS} "
            "different names"
        )
    return tuple(columns)


def _all_of(kind: type, entries: object) -> bool:
    return isinstance(entries, list) and all(type(entry) is kind for entry in entries)
