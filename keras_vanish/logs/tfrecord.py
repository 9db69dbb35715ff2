"""The framing of event files: records with checksums, one after the other.

A record is its length (uint64, little-endian), the masked CRC-32C of the length, the
data, and the masked CRC-32C of the data:
https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import google_crc32c

from keras_vanish.logs.file_system import opened

#: No protocol buffer is longer, in bytes. A record that claims to be longer is not read.
LONGEST = 2**31 - 1

_CHUNK = 2**20


def checksum(data: bytes) -> int:
    """The masked CRC-32C of `data`."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """The record that holds `data`."""
    length = struct.pack("<Q", len(data))
    return b"".join(
        (length, struct.pack("<I", checksum(length)), data, struct.pack("<I", checksum(data)))
    )


def records(path: str) -> Iterator[bytes]:
    """Yields the data of each record of a file; a truncated last record ends it silently.

    Raises:
        ValueError: If a checksum does not match, or a record is too long.
        OSError: If the file cannot be read.
    """
    try:
        with opened(path) as file:
            yield from _records(file)
    except OSError as error:
        raise OSError(f"Cannot read {path}: {error}") from error


def _records(file: Any) -> Iterator[bytes]:
    position = 0
    while len(head := file.read(12)) == 12:
        if struct.unpack("<I", head[8:])[0] != checksum(head[:8]):
            raise _damaged(position)
        length = struct.unpack("<Q", head[:8])[0]
        if length > LONGEST:
            raise ValueError(f"the record at byte {position} says that it has {length} bytes")
        body = _read(file, length + 4)
        if len(body) < length + 4:
            return
        data = body[:length]
        if struct.unpack("<I", body[length:])[0] != checksum(data):
            raise _damaged(position)
        yield data
        position += 12 + len(body)


def _read(file: Any, length: int) -> bytes:
    """At most so many bytes; only bytes that are there take memory."""
    parts = []
    while length > 0 and (part := file.read(min(length, _CHUNK))):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _damaged(position: int) -> ValueError:
    return ValueError(f"the checksum of the record at byte {position} does not match")
