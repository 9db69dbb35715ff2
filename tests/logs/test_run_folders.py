from __future__ import annotations

import shutil
from pathlib import Path

from event_files import files, write
from factories import MakeReading

from keras_vanish.logs.run_folders import runs
from keras_vanish.logs.tfrecord import frame


def test_runs(tmp_path: Path, make_reading: MakeReading) -> None:
    write(tmp_path / "b", make_reading())
    write(tmp_path / "a" / "x", make_reading())
    (tmp_path / "a" / "train").mkdir()
    (tmp_path / "a" / "train" / "events.out.tfevents.1.other").write_bytes(frame(b""))
    (tmp_path / "a" / "train" / "events.out.tfevents.2.damaged").write_bytes(b"x" * 50)
    assert runs(tmp_path) == {
        "a/x": str(tmp_path / "a" / "x" / "gradients"),
        "b": str(tmp_path / "b" / "gradients"),
    }
    assert list(runs(tmp_path / "b")) == ["."]
    assert list(runs(tmp_path / "b" / "gradients")) == ["."]


def test_runs_finds_a_folder_that_was_renamed(tmp_path: Path, make_reading: MakeReading) -> None:
    write(tmp_path, make_reading())
    (tmp_path / "gradients").rename(tmp_path / "first")
    write(tmp_path, make_reading())
    assert runs(tmp_path) == {
        ".": str(tmp_path / "gradients"),
        "first": str(tmp_path / "first"),
    }


def test_a_folder_that_is_a_run_and_holds_one(tmp_path: Path, make_reading: MakeReading) -> None:
    write(tmp_path, make_reading())
    shutil.copy(files(tmp_path)[0], tmp_path)
    assert runs(tmp_path) == {".": str(tmp_path), "gradients": str(tmp_path / "gradients")}
