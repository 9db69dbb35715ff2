"""Whatever stands in a log directory, `read` and `report` give an answer or a clear error."""

from __future__ import annotations

import functools
import io
import json
import os
import struct
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import MakeReading
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.compat.proto import types_pb2
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.tensor_pb2 import TensorProto

from keras_vanish.cli import main
from keras_vanish.diagnosis import diagnose
from keras_vanish.interventions import Intervention
from keras_vanish.logs.event_writer import EventWriter
from keras_vanish.logs.events import read
from keras_vanish.logs.interventions_log import NAME, append
from keras_vanish.logs.tags import PLUGIN
from keras_vanish.logs.tfrecord import checksum, frame, records
from keras_vanish.records.activations import ACTIVATION_COLUMNS
from keras_vanish.records.probed import Probed
from keras_vanish.records.statistics import COLUMNS

MIB = 2**20


@functools.cache
def whole_run(make_reading: MakeReading, make_probed: Callable[..., Probed]) -> tuple[bytes, ...]:
    """The records of a run's event file."""
    with tempfile.TemporaryDirectory() as folder:
        writer = EventWriter(folder)
        for step in range(3):
            probed = make_probed(profiles={"dense_1": [1e-3, 1e-2, 1.0]})
            writer.write(diagnose(make_reading(step=step, probed=probed)), None, "healthy")
        writer.close()
        (path,) = Path(folder, "gradients").iterdir()
        return tuple(records(os.fspath(path)))


def placed(folder: str | Path, data: bytes) -> Path:
    """Puts an event file where a run's is expected."""
    path = Path(folder, "gradients", "events.out.tfevents.1.hostile")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def answered(folder: str | Path) -> str:
    """What `report` says; it must be a table, or one line that names what was received."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main(["report", os.fspath(folder)])
    if status == 0:
        assert not err.getvalue()
        assert len(out.getvalue().splitlines()) >= 2
        return ""
    assert status == 2
    assert err.getvalue().startswith("keras-vanish: ")
    assert "Received: " in err.getvalue()
    assert err.getvalue().count("\n") == 1
    assert len(err.getvalue()) < 2000
    return err.getvalue()


@contextmanager
def little_memory(limit: int = 16 * MIB) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


# Bytes


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_bytes_that_are_changed(
    make_reading: MakeReading, make_probed: Callable[..., Probed], data: st.DataObject
) -> None:
    whole = b"".join(map(frame, whole_run(make_reading, make_probed)))
    changed = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 3)) if changed else 0):
        changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        placed(folder, bytes(changed))
        answered(folder)


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_records_that_are_changed_and_checksums_that_fit(
    make_reading: MakeReading, make_probed: Callable[..., Probed], data: st.DataObject
) -> None:
    run = [bytearray(record) for record in whole_run(make_reading, make_probed)]
    for _ in range(data.draw(st.integers(1, 4))):
        record = data.draw(st.sampled_from(run))
        if not record:
            continue
        place = data.draw(st.integers(0, len(record) - 1))
        if data.draw(st.booleans()):
            record[place] ^= 1 << data.draw(st.integers(0, 7))
        else:
            end = place + data.draw(st.integers(1, 8))
            record[place:end] = data.draw(st.binary(max_size=16))
    with tempfile.TemporaryDirectory() as folder:
        placed(folder, b"".join(frame(bytes(record)) for record in run))
        answered(folder)


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=40)
def test_any_bytes_in_one_record(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        placed(folder, frame(Event(file_version="brain.Event:2").SerializeToString()))
        placed(folder, frame(content))
        answered(folder)


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**60, 2**40, 2**31])
def test_a_length_that_no_record_has(tmp_path: Path, length: int) -> None:
    head = struct.pack("<Q", length)
    placed(tmp_path, head + struct.pack("<I", checksum(head)) + b"x" * 100)
    with little_memory():
        said = answered(tmp_path)
    assert f"the record at byte 0 says that it has {length} bytes" in said


def test_a_length_beyond_the_end_takes_no_memory(
    tmp_path: Path, make_reading: MakeReading, make_probed: Callable[..., Probed]
) -> None:
    head = struct.pack("<Q", 2**31 - 1)
    end = head + struct.pack("<I", checksum(head)) + b"x" * 100
    placed(tmp_path, b"".join(map(frame, whole_run(make_reading, make_probed))) + end)
    with little_memory():
        assert len(read(tmp_path)) == 3


# Messages


def record_event(
    tensor: TensorProto | None = None,
    content: bytes | None = None,
    tag: str = f"{PLUGIN}/0",
    **fields: Any,
) -> Event:
    """The event of one record, whole but for what is given."""
    named: dict[str, Any] = {"version": 1, "columns": COLUMNS, "names": ["a", "b"], "units": [1, 2]}
    named.update(fields)
    event = Event(step=1, wall_time=1.0)
    value = event.summary.value.add(tag=tag)
    value.metadata.plugin_data.plugin_name = PLUGIN
    if content is None:
        content = json.dumps(named, ensure_ascii=True).encode()
    value.metadata.plugin_data.content = content
    value.tensor.CopyFrom(tensor if tensor is not None else of_table(np.ones((2, len(COLUMNS)))))
    return event


def of_table(table: np.ndarray, *shape: int, dtype: int = types_pb2.DT_DOUBLE) -> TensorProto:
    """A tensor as this package writes it, with any shape and type."""
    tensor = TensorProto(dtype=dtype, tensor_content=np.asarray(table, "<f8").tobytes())
    for size in shape or table.shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def written(folder: Path, *events: Event) -> Path:
    first = Event(file_version="brain.Event:2", wall_time=1.0)
    first.source_metadata.writer = "keras_vanish"
    return placed(folder, b"".join(frame(e.SerializeToString()) for e in (first, *events)))


ONES = np.ones((2, len(COLUMNS)))


def test_the_record_that_these_tests_spoil_is_a_good_one(tmp_path: Path) -> None:
    written(tmp_path, record_event())
    assert answered(tmp_path) == ""
    assert read(tmp_path)[0].reading.names == ("a", "b")


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (of_table(ONES, dtype=types_pb2.DT_FLOAT), "of type 1 for the shape"),
        (of_table(ONES, dtype=types_pb2.DT_STRING), "of type 7 for the shape"),
        (of_table(ONES, dtype=9999), "of type 9999 for the shape"),
        (of_table(ONES, 2**40, 2**40), "bytes of type 2 for the shape"),
        (of_table(ONES, -2, -len(COLUMNS)), "bytes of type 2 for the shape"),
        (of_table(np.empty(0), 0, 2**62), "The event file cannot be read"),
        (of_table(ONES, *[1] * 70), "the record has 70 dimensions"),
        (of_table(ONES, *[2**62] * 20_000), "the record has 20000 dimensions"),
        (of_table(ONES[:1]), "2 names, 2 widths and a table of shape"),
        (of_table(ONES[:, :3]), "2 names, 2 widths and a table of shape"),
        (of_table(ONES.ravel()), "2 names, 2 widths and a table of shape"),
        (of_table(-ONES), "negative numbers where there can be none"),
        (TensorProto(), "the record is 0 bytes of type 0"),
    ],
)
def test_tensors_that_are_no_table(tmp_path: Path, tensor: TensorProto, said: str) -> None:
    written(tmp_path, record_event(tensor))
    with little_memory():
        assert said in answered(tmp_path)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"names": [float("nan"), 1]}, "the record has the names [nan, 1]"),
        ({"names": [], "units": []}, "the record has no layer"),
        ({"names": None}, "the record has the names None"),
        ({"names": "ab"}, "the record has the names 'ab'"),
        ({"names": {"a": 1, "b": 2}}, "the record has the names {"),
        ({"names": ["a"]}, "1 names, 2 widths"),
        ({"names": ["x" * 10] * 100_000}, "100000 names, 2 widths"),
        ({"names": list(range(100_000))}, "the record has the names [0, 1, 2, 3"),
        ({"units": [1.5, 2]}, "the units [1.5, 2]"),
        ({"units": [True, 2]}, "the units [True, 2]"),
        ({"units": [-1, 2]}, "the units [-1, 2]"),
        ({"units": [10**400, 2]}, "the units [1000"),
        ({"units": [1, 2, 3]}, "2 names, 3 widths"),
        ({"version": 2}, "the record has version 2, this keras-vanish reads version 1"),
        ({"version": "x" * 10**6}, "the record has version 'xxx"),
        ({"version": [[[[1]]]]}, "the record has version [[[[1]]]]"),
        ({"columns": []}, "the record has the columns []"),
        ({"columns": ["a"] * 10**6}, "the record has the columns ['a', 'a'"),
        ({"columns": ["size", "size"]}, "the record has the columns ['size', 'size']"),
        ({"columns": [*COLUMNS, 1]}, "not 1 to 1000 different names"),
        ({"columns": [f"c{n}" for n in range(10**5)]}, "not 1 to 1000 different names"),
        ({"columns": [*COLUMNS, "more"]}, "the record has 15 columns and the shape (2, 14)"),
        ({"columns": ["more"], "names": ["a"] * 5, "units": [1] * 5}, "5 names and the shape"),
    ],
)
def test_metadata_that_no_record_has(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    written(tmp_path, record_event(**fields))
    assert said in answered(tmp_path)


@pytest.mark.parametrize("missing", COLUMNS)
def test_any_column_may_be_missing(tmp_path: Path, missing: str) -> None:
    columns = [name for name in COLUMNS if name != missing]
    written(tmp_path, record_event(of_table(ONES[:, 1:]), columns=columns))
    assert answered(tmp_path) == ""
    (diagnosis,) = read(tmp_path)
    assert np.isnan(getattr(diagnosis.reading.layers[0], missing))


@pytest.mark.parametrize("columns", [["unknown"], ["size"], ["gradient_rms"]])
def test_all_columns_but_one_may_be_missing(tmp_path: Path, columns: list[str]) -> None:
    written(tmp_path, record_event(of_table(ONES[:, :1]), columns=columns))
    assert answered(tmp_path) == ""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the metadata is not JSON"),
        (b"\xff\xfe", "the metadata is not JSON"),
        (b"[" * 200_000, "the metadata is not JSON"),
        (b"[" * 200_000 + b"]" * 200_000, "the metadata is not JSON"),
        (b'{"a":' * 200_000 + b"1" + b"}" * 200_000, "the metadata is not JSON"),
        (b"9" * 100_000, "the metadata is not JSON"),
        (b'{"version": 1' + b"0" * 4000 + b"}", "the record has version 1000"),
        (b"[" + b"[]," * 6 * MIB + b"[]]", "the metadata has 18874372 bytes"),
        (b"null", "the record has version None"),
        (b"NaN", "the record has version None"),
    ],
)
def test_metadata_that_is_no_json_or_a_bomb(tmp_path: Path, content: bytes, said: str) -> None:
    written(tmp_path, record_event(content=content))
    with little_memory(64 * MIB):
        assert said in answered(tmp_path)


def test_a_record_without_its_metadata(tmp_path: Path) -> None:
    event = record_event()
    event.summary.value[0].ClearField("metadata")
    written(tmp_path, event)
    assert "the tag 'gradient_flow/0' has no metadata" in answered(tmp_path)


def test_a_message_within_a_message_a_thousand_times(tmp_path: Path) -> None:
    content = b""
    for _ in range(3000):  # TensorProto.variant_val.tensors, of VariantTensorDataProto
        inner = b"\x1a" + _varint(len(content)) + content
        content = b"\x7a" + _varint(len(inner)) + inner
    value = b"\x42" + _varint(len(content)) + content
    summary = b"\x0a" + _varint(len(value)) + value
    path = written(tmp_path)
    path.write_bytes(path.read_bytes() + frame(b"\x2a" + _varint(len(summary)) + summary))
    assert "a record is not a TensorBoard event" in answered(tmp_path)


def _varint(number: int) -> bytes:
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    return bytes([*data, number])


TABLES = st.sampled_from([0.0, 5e-324, 1e-300, 1.0, 1e300, np.inf, np.nan, -0.0, 2.0**53])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@st.composite
def events(draw: st.DrawFn) -> Event:
    """An event with what belongs into a reading, in any state."""
    names = draw(st.lists(st.text(max_size=4), max_size=4))
    rows = draw(st.integers(0, 4)) if draw(st.booleans()) else len(names)
    tags = {f"{PLUGIN}/0": COLUMNS, f"{PLUGIN}/activations/0": ACTIVATION_COLUMNS}
    tag = draw(st.sampled_from([*tags, f"{PLUGIN}/profile/0", f"{PLUGIN}/loss/0"]))
    fields = {
        "version": 1,
        "columns": tags.get(tag),
        "names": names,
        "units": draw(st.lists(st.integers(0, 2**63 - 1), min_size=len(names), max_size=5)),
        "name": draw(st.text(max_size=4)),
    }
    if draw(st.integers(0, 3)) == 0:
        fields[draw(st.sampled_from(sorted(fields)))] = draw(JSON)
    if tag in tags and draw(st.booleans()):
        known = st.lists(st.sampled_from([*tags[tag], "x", "y"]), unique=True)
        fields["columns"] = tags[tag] = tuple(draw(known))
    wide = len(tags.get(tag, ()))
    shape = (rows, wide) if wide else (draw(st.integers(0, 4)),)
    values = draw(st.lists(TABLES, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    event = record_event(of_table(np.reshape(np.array(values, float), shape)), tag=tag, **fields)
    event.step, event.wall_time = draw(st.integers(-(2**63), 2**63 - 1)), draw(st.floats())
    return event


@settings(deadline=None, max_examples=60)
@given(st.lists(events(), max_size=4), st.booleans())
def test_any_numbers_names_and_metadata(found: list[Event], together: bool) -> None:
    if together and found:
        for other in found[1:]:
            found[0].summary.value.extend(other.summary.value)
        found = found[:1]
    with tempfile.TemporaryDirectory() as folder:
        written(Path(folder), *found)
        answered(folder)


def test_thousands_of_layers_and_a_name_of_a_million_characters(tmp_path: Path) -> None:
    count = 10_000
    names = [f"layer_{i}" for i in range(count - 1)] + ["x" * 10**6]
    table = np.full((count, len(COLUMNS)), np.nan)
    table[:, COLUMNS.index("nan_count")] = 1
    table[:, COLUMNS.index("inf_count")] = 0
    event = record_event(of_table(table), names=names, units=[1] * count)
    written(tmp_path, event)
    assert answered(tmp_path) == ""
    assert len(read(tmp_path)[0].reading.names) == count


# Journals


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_line_in_a_journal(line: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        written(Path(folder), record_event())
        Path(folder, "gradients", NAME).write_bytes(line + b"\n")
        answered(folder)


@pytest.mark.parametrize(
    "spoiled",
    [
        {"step": "7"},
        {"step": None},
        {"reason": 7},
        {"dry_run": 1},
        {"before": {"a": 10**400}},
        {"before": {"a": [1]}},
        {"before": []},
        {"action": "x" * 10**6},
        {"action": [[]]},
        {"more": 1},
    ],
)
def test_a_journal_that_is_spoiled(tmp_path: Path, spoiled: dict[str, Any]) -> None:
    written(tmp_path, record_event())
    line = json.loads(Intervention(1, "clip", "large").to_json()) | spoiled
    (tmp_path / "gradients" / NAME).write_text(json.dumps(line) + "\n")
    assert "The journal cannot be read: Not the line of an intervention" in answered(tmp_path)


def test_a_journal_that_is_nested_too_deeply(tmp_path: Path) -> None:
    written(tmp_path, record_event())
    (tmp_path / "gradients" / NAME).write_bytes(b"[" * 200_000 + b"\n")
    assert "The journal cannot be read" in answered(tmp_path)


def test_control_characters_of_a_journal_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, record_event(names=["\x1b[31mred", "\u202eback"]))
    append(os.fspath(tmp_path / "gradients"), [Intervention(1, "clip", "\x1b]0;title\x07 large")])
    assert main(["report", os.fspath(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\u202e"} & set(output)
    assert "[31mred" in output


# Folders


def test_a_pipe_is_no_event_file(tmp_path: Path) -> None:
    written(tmp_path, record_event())
    os.mkfifo(tmp_path / "gradients" / "events.out.tfevents.2.pipe")
    assert answered(tmp_path) == ""
    os.mkfifo(tmp_path / "gradients" / f"{NAME}.pipe")
    os.rename(tmp_path / "gradients" / f"{NAME}.pipe", tmp_path / "gradients" / NAME)
    assert answered(tmp_path) == ""


def test_links_that_lead_in_circles(tmp_path: Path) -> None:
    written(tmp_path, record_event())
    for name in ("a", "b", "gradients/c"):
        (tmp_path / name).symlink_to(tmp_path)
    assert answered(tmp_path) == ""


def test_an_error_is_one_line_whatever_the_path(tmp_path: Path) -> None:
    folder = tmp_path / "two\nlines\x1b[2J"
    folder.mkdir()
    placed(folder, b"x" * 40)
    assert "\\n" in answered(folder)
    assert "\x1b" not in answered(folder)
