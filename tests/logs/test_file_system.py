from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest
import tensorflow as tf

from keras_vanish.logs import file_system as fs


@pytest.fixture(params=["local", "ram"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder that exists, on the machine's own file system and on one of TensorFlow's."""
    if request.param == "local":
        return os.fspath(tmp_path)
    path = f"ram://{uuid.uuid4().hex}"
    tf.io.gfile.makedirs(path)
    return path


def test_what_is_written_is_read(folder: str) -> None:
    path = os.path.join(folder, "file")
    assert not fs.exists(path)
    assert not fs.is_file(path)
    fs.append(path, b"one\n")
    fs.append(path, b"two\xff")
    with fs.opened(path) as file:
        assert file.read(5) == b"one\nt"
        assert file.read() == b"wo\xff"
    assert fs.is_file(path)
    assert not fs.is_file(folder)
    fs.write_whole(path, b"other")
    with fs.opened(path) as file:
        assert file.read() == b"other"
    assert fs.names(folder) == ["file"]
    fs.remove(path)
    assert fs.names(folder) == []


def test_all_folders_are_found(folder: str) -> None:
    for inner in ("a/x", "b"):
        tf.io.gfile.makedirs(os.path.join(folder, inner))
        fs.append(os.path.join(folder, inner, "file"), b"")
    found = {os.path.relpath(directory, folder): names for directory, names in fs.folders(folder)}
    assert {place: names for place, names in found.items() if names} == {
        "a/x": ["file"],
        "b": ["file"],
    }


def test_no_folder_is_found_twice(tmp_path: Path) -> None:
    (tmp_path / "top" / "inner").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "top" / "a link to inner").symlink_to(tmp_path / "top" / "inner")
    (tmp_path / "top" / "inner" / "back").symlink_to(tmp_path / "top")
    (tmp_path / "top" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path)
    (tmp_path / "top" / "nowhere").symlink_to(tmp_path / "nothing")
    found = [os.path.relpath(folder, tmp_path) for folder, _ in fs.folders(str(tmp_path / "top"))]
    assert sorted(found) == ["top", "top/inner", "top/out", "top/out/back"]


def test_errors_are_those_of_the_operating_system(folder: str) -> None:
    missing = os.path.join(folder, "missing", "file")
    with pytest.raises(OSError, match="missing"):
        fs.remove(missing)
    with pytest.raises(OSError, match="missing"), fs.opened(missing) as file:
        file.read()


def test_a_file_system_that_nobody_knows() -> None:
    with pytest.raises(OSError, match="'nonsense' not implemented.*nonsense://x"):
        fs.exists("nonsense://x")


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = os.fspath(tmp_path / "file")
    fs.write_whole(path, b"old")

    def fail(*_: str) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        fs.write_whole(path, b"new")
    with fs.opened(path) as file:
        assert file.read() == b"old"
