from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import (
    PyRecordReader_New,
    masked_crc32c,
)

from keras_vanish.logs.tfrecord import checksum, frame, records


@given(st.binary(max_size=3000))
def test_checksum_is_the_one_of_tensorboard(data: bytes) -> None:
    assert checksum(data) == masked_crc32c(data)


def test_tensorboard_reads_what_frame_makes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(frame(b"one") + frame(b"") + frame(b"two" * 1000))
    reader = PyRecordReader_New(str(path))
    found = []
    for _ in range(3):
        reader.GetNext()
        found.append(reader.record())
    assert found == [b"one", b"", b"two" * 1000]
    assert list(records(str(path))) == found


def test_a_file_cut_anywhere_gives_the_whole_records_before(tmp_path: Path) -> None:
    first, second = frame(b"a" * 100), frame(b"b" * 50)
    path = tmp_path / "file"
    for size in range(len(first) + len(second)):
        path.write_bytes((first + second)[:size])
        assert list(records(str(path))) == [b"a" * 100][: size // len(first)]


def test_any_changed_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file"
    whole = frame(b"a" * 100) + frame(b"b" * 50)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 4
        path.write_bytes(damaged)
        start = 0 if position < len(frame(b"a" * 100)) else len(frame(b"a" * 100))
        message = f"the checksum of the record at byte {start} does not match"
        with pytest.raises(ValueError, match=re.escape(message)):
            list(records(str(path)))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Cannot read .*nowhere"):
        list(records(str(tmp_path / "nowhere")))
