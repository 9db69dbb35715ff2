from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from event_files import files, write
from factories import MakeReading
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from processes import run_python

from keras_vanish.logs.events import read
from keras_vanish.logs.tfrecord import frame, records
from keras_vanish.records.activations import ACTIVATION_COLUMNS
from keras_vanish.records.probed import Probed
from keras_vanish.records.readings import Reading
from keras_vanish.records.statistics import COLUMNS


@st.composite
def any_reading(draw: st.DrawFn) -> Reading:
    count = draw(st.sampled_from([1, 2, 3, 11, 101, 300]))
    special = st.sampled_from([0.0, np.nan, np.inf, 1e-300, 5e-324, 1.0])
    values = st.one_of(special, st.floats(0, 1, width=32))
    names = st.text(st.characters(), max_size=8)
    return Reading(
        step=draw(st.integers(0, 2**63 - 1)),
        wall_time=draw(st.floats(0, 1e11)),
        names=tuple(draw(st.lists(names, min_size=count, max_size=count))),
        units=tuple(draw(st.lists(st.integers(1, 2**40), min_size=count, max_size=count))),
        table=draw(arrays(np.float64, (count, len(COLUMNS)), elements=values)),
        probed=draw(st.none() | any_probed()),
    )


@st.composite
def any_probed(draw: st.DrawFn) -> Probed:
    count = draw(st.integers(0, 3))
    values = st.one_of(st.sampled_from([0.0, np.nan, np.inf, 5e-324]), st.floats(0, 1, width=32))
    names = st.text(st.characters(), max_size=8)
    profile = arrays(np.float64, st.integers(0, 5), elements=values)
    return Probed(
        loss=draw(values),
        shuffled_loss=draw(values),
        names=tuple(draw(st.lists(names, min_size=count, max_size=count))),
        table=draw(arrays(np.float64, (count, len(ACTIVATION_COLUMNS)), elements=values)),
        profiles=draw(st.dictionaries(names, profile, max_size=2)),
    )


@settings(deadline=None, max_examples=40)
@given(st.lists(any_reading(), min_size=1, max_size=3, unique_by=lambda r: r.step))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_any_reading_comes_back_bit_for_bit(readings: list[Reading]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), *readings)
        found = [diagnosis.reading for diagnosis in read(folder)]
    expected = sorted(readings, key=lambda reading: reading.step)
    assert found == expected
    for one, other in zip(found, expected):
        assert one.table.tobytes() == other.table.tobytes()


def test_diagnoses_are_made_again(tmp_path: Path, make_reading: MakeReading) -> None:
    history = write(tmp_path, make_reading(step=3, rms=[1e-9, 1e-8, 1e-3, 1e-3]))
    assert read(tmp_path) == history
    assert history[0].verdict == "vanishing"


def test_no_step_is_lost_when_the_layers_change(tmp_path: Path, make_reading: MakeReading) -> None:
    few, many = make_reading(step=0, rms=[1, 1]), make_reading(step=1, rms=[1, 1, 1])
    again = make_reading(step=2, rms=[1, 1])
    write(tmp_path, few, many, again)
    assert [diagnosis.reading for diagnosis in read(tmp_path)] == [few, many, again]


def test_read_takes_the_log_dir_the_run_or_a_folder_above(
    tmp_path: Path, make_reading: MakeReading
) -> None:
    history = write(tmp_path / "logs" / "a", make_reading())
    for folder in (tmp_path, tmp_path / "logs", tmp_path / "logs" / "a"):
        assert read(folder) == history
    assert read(str(tmp_path / "logs" / "a" / "gradients")) == history


def test_of_a_step_written_twice_the_later_one_counts(
    tmp_path: Path, make_reading: MakeReading
) -> None:
    write(tmp_path, *(make_reading(step=step, rms=[1, 1]) for step in range(3)))
    (old,) = files(tmp_path)
    # The order of names is not that of creation.
    old.rename(old.with_name("z" + old.name))
    write(tmp_path, make_reading(step=1, rms=[2, 2]))
    found = [diagnosis.reading.layers[1].gradient_rms for diagnosis in read(tmp_path)]
    assert found == [1, 2, 1]


def test_several_runs(tmp_path: Path, make_reading: MakeReading) -> None:
    write(tmp_path / "a", make_reading())
    write(tmp_path / "b", make_reading())
    message = "several runs in .* Received: a, b. Read one of these folders"
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder. Received: '.*nowhere'. Pass"):
        read(tmp_path / "nowhere")


def test_no_run(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "events.out.tfevents.1.other").write_bytes(frame(b""))
    message = f"in the folder or below it. Received: '{tmp_path}'. Pass the log_dir"
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        read(tmp_path)


def test_a_file_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="No run"):
        read(tmp_path / "file")


def test_a_killed_writer_loses_only_the_step_it_was_writing(
    tmp_path: Path, make_reading: MakeReading
) -> None:
    history = write(tmp_path, *(make_reading(step=step, rms=[1, 1]) for step in range(3)))
    (path,) = files(tmp_path)
    data = path.read_bytes()
    last = len(frame(list(records(str(path)))[-1]))
    for size in range(len(data) - last, len(data)):
        path.write_bytes(data[:size])
        assert read(tmp_path) == history[:-1]
    path.write_bytes(data)
    assert read(tmp_path) == history


def test_a_damaged_file(tmp_path: Path, make_reading: MakeReading) -> None:
    write(tmp_path, *(make_reading(step=step) for step in range(3)))
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    for position in (5, len(whole) // 2):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        message = f"cannot be read: the checksum .* Received: {path}. If a newer"
        with pytest.raises(ValueError, match=message):
            read(tmp_path)


def test_a_file_of_another_version(tmp_path: Path, make_reading: MakeReading) -> None:
    write(tmp_path, make_reading())
    (path,) = files(tmp_path)
    # As long as the original, so that only the checksum has to be made anew.
    changed = [data.replace(b'"version":1', b'"version":9') for data in records(str(path))]
    path.write_bytes(b"".join(map(frame, changed)))
    with pytest.raises(ValueError, match=f"has version 9.* Received: {path}. If a newer"):
        read(tmp_path)


def test_reading_does_not_import_tensorflow(tmp_path: Path, make_reading: MakeReading) -> None:
    write(tmp_path, make_reading())
    code = (
        "import sys; from keras_vanish.logs.events import read; "
        f"print(len(read({str(tmp_path)!r})), 'tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    done = run_python(code)
    assert done.stdout.split() == ["1", "False", "False"], done.stderr
