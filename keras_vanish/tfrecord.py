"""The framing of event files: records with checksums, one after the other.

A record is its length (uint64, little-endian), the masked CRC-32C of the length, the
data, and the masked CRC-32C of the data:
https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import google_crc32c
from tensorboard.compat.tensorflow_stub import errors
from tensorboard.compat.tensorflow_stub.io import gfile


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
    """The data of each record of a file; a truncated last record ends it silently.

    Raises:
        ValueError: If a checksum does not match.
        OSError: If the file cannot be read.
    """
    try:
        file = gfile.GFile(path, "rb")
        position = 0
        while len(head := file.read(12)) == 12:
            if struct.unpack("<I", head[8:])[0] != checksum(head[:8]):
                raise _damaged(position)
            length = struct.unpack("<Q", head[:8])[0]
            body = file.read(length + 4)
            if len(body) < length + 4:
                return
            data = body[:length]
            if struct.unpack("<I", body[length:])[0] != checksum(data):
                raise _damaged(position)
            yield data
            position += 12 + len(body)
    except errors.OpError as error:
        raise OSError(f"Cannot read {path}: {error}") from error


def _damaged(position: int) -> ValueError:
    return ValueError(f"the checksum of the record at byte {position} does not match")
