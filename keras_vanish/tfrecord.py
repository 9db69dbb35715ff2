"""The framing of event files: records with checksums, one after the other.

A record is its length (uint64, little-endian), the masked CRC-32C of the length, the
data, and the masked CRC-32C of the data:
https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from tensorboard.compat.tensorflow_stub import errors
from tensorboard.compat.tensorflow_stub.io import gfile
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli 1993), bits reversed.
_BLOCK = 512
_SHORT = 64


@functools.cache
def _tables() -> tuple[npt.NDArray[np.uint32], list[int]]:
    """What each byte at each place of a block adds to the checksum of the block.

    Returns:
        An array of `_BLOCK * 256` entries, and its first 1024 as a list.
    """
    register = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        register = np.where(register & 1, register >> 1 ^ np.uint32(_POLYNOMIAL), register >> 1)
    last = register
    places = [last]
    for _ in range(_BLOCK - 1):
        register = last[register & 0xFF] ^ (register >> 8)
        places.append(register)
    flat = np.concatenate(places[::-1])
    return flat, flat[:1024].tolist()


def checksum(data: bytes) -> int:
    """The masked CRC-32C of `data`.

    TensorBoard's own is a Python loop over bytes, which would cost more than the rest of
    a recorded step. A CRC is linear: the checksum of a block is the exclusive or of what
    each of its bytes adds.
    """
    if len(data) < _SHORT:
        return int(masked_crc32c(data))
    flat, head = _tables()
    blocks = -(-len(data) // _BLOCK)
    padded = np.zeros(blocks * _BLOCK, np.uint8)
    start = padded.size - len(data)
    padded[start:] = np.frombuffer(data, np.uint8)
    padded[start : start + 4] ^= 0xFF  # The register begins as all ones.
    places = np.arange(0, flat.size, 256) + padded.reshape(blocks, _BLOCK)
    crc = 0
    for part in np.bitwise_xor.reduce(flat[places], axis=1).tolist():
        crc = (
            head[crc & 0xFF]
            ^ head[256 + (crc >> 8 & 0xFF)]
            ^ head[512 + (crc >> 16 & 0xFF)]
            ^ head[768 + (crc >> 24)]
            ^ part
        )
    crc ^= 0xFFFFFFFF
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
