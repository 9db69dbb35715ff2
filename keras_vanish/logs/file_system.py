"""Folders and files of runs, local ones and remote ones.

Local files are read with Python's own means. A path such as `gs://bucket/logs` or `ram://logs`
belongs to TensorFlow's file systems, and TensorFlow is imported for it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from tensorboard.compat import tf


def is_remote(path: str) -> bool:
    """Whether a path names another file system than the machine's own."""
    return "://" in path


def usable(log_dir: str | os.PathLike[str]) -> str:
    """Checks that a directory stands or can be made at a path; returns the path as a string.

    Raises:
        ValueError: If a file stands there, or the path names an unknown file system.
    """
    path = os.fspath(log_dir)
    if isinstance(log_dir, PurePath) and _MANGLED.match(path):
        raise ValueError(
            "A pathlib.Path cannot hold the address of a file system: it turns :// into :/. "
            f"Received: log_dir={log_dir!r}. Give it as a string."
        )
    try:
        stands = is_file(path)
    except OSError as error:
        if isinstance(error.__cause__, tf.errors.UnimplementedError):
            raise ValueError(
                f"TensorFlow does not know the file system of log_dir. Received: "
                f"log_dir={path!r}. Use one of {tf.io.gfile.get_registered_schemes()}, or "
                "install tensorflow-io, which has more, and import it."
            ) from error
        stands = False  # It may be there when it is needed.
    if stands:
        raise ValueError(
            f"log_dir must be a directory, but a file stands there. Received: "
            f"log_dir={path!r}. Remove the file or choose another path."
        )
    return path


#: `gs://bucket` after a `pathlib.Path` had it; not `C:/`.
_MANGLED = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")


def unused(prefix: str, after: int) -> tuple[int, str]:
    """The first number above `after` whose path is free, and that path."""
    for number in itertools.count(after + 1):
        path = f"{prefix}{number}"
        try:
            taken = exists(path)
        except OSError:
            taken = False
        if not taken:
            return number, path
    raise AssertionError


@contextlib.contextmanager
def os_errors(path: str) -> Iterator[None]:
    """Turns the errors of TensorFlow's file systems into an OSError."""
    if not is_remote(path):
        yield
        return
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(f"{error} (on {path})") from error


@contextlib.contextmanager
def opened(path: str) -> Iterator[Any]:
    """Opens a file to read bytes from.

    Raises:
        OSError: If it cannot be read.
    """
    with os_errors(path), (tf.io.gfile.GFile if is_remote(path) else open)(path, "rb") as file:
        yield file


def exists(path: str) -> bool:
    """Whether there is such a file or folder.

    Raises:
        OSError: If the file system does not tell.
    """
    with os_errors(path):
        return bool(tf.io.gfile.exists(path)) if is_remote(path) else os.path.exists(path)


def is_file(path: str) -> bool:
    """Whether a path is a file that can be read to its end: no folder and no pipe.

    Raises:
        OSError: If the file system does not tell.
    """
    if not is_remote(path):
        return os.path.isfile(path)
    with os_errors(path):
        return tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path)


def names(directory: str) -> list[str]:
    """The names of the files and folders in a folder.

    Raises:
        OSError: If it cannot be listed.
    """
    if not is_remote(directory):
        return os.listdir(directory)
    with os_errors(directory):
        return [name.rstrip("/") for name in tf.io.gfile.listdir(directory)]


def folders(top: str) -> Iterator[tuple[str, list[str]]]:
    """Yields each folder from `top` on, with the names of its files.

    Links are followed. No folder comes twice, as links may lead in circles.

    Raises:
        OSError: If a file system other than the machine's own does not answer.
    """
    if not is_remote(top):
        yield from _local_folders(top)
        return
    with os_errors(top):
        for directory, _, files in tf.io.gfile.walk(top):
            yield directory.rstrip("/"), files


def _local_folders(top: str) -> Iterator[tuple[str, list[str]]]:
    seen = set[tuple[int, int]]()

    def is_new(path: str) -> bool:
        with contextlib.suppress(OSError):
            status = os.stat(path)
            key = (status.st_dev, status.st_ino)
            if key not in seen:
                seen.add(key)
                return True
        return False

    starts = [top]
    while starts:
        links = []
        for start in filter(is_new, starts):
            for directory, inner, files in os.walk(start):
                yield directory, files
                paths = [(name, os.path.join(directory, name)) for name in inner]
                links += [path for _, path in paths if os.path.islink(path)]
                inner[:] = [n for n, path in paths if not os.path.islink(path) and is_new(path)]
        starts = links


def append(path: str, data: bytes) -> None:
    """Adds to the end of a file, and makes the file if there is none.

    Args:
        path: The file, in a folder that exists.
        data: The bytes to add.

    Raises:
        OSError: If it cannot be written.
    """
    with os_errors(path), (tf.io.gfile.GFile if is_remote(path) else open)(path, "ab") as file:
        file.write(data)


def remove(path: str) -> None:
    """Removes a file.

    Raises:
        OSError: If it cannot be removed.
    """
    with os_errors(path):
        (tf.io.gfile.remove if is_remote(path) else os.remove)(path)


def write_whole(path: str, data: bytes) -> None:
    """Replaces a file at once: a reader, or a crash, finds the old one or the new one.

    Args:
        path: The file, in a folder that exists.
        data: The whole content.

    Raises:
        OSError: If it cannot be written. The old file is left then.
    """
    new = f"{path}.new"
    if not is_remote(path):
        with open(new, "wb") as file:
            file.write(data)
        os.replace(new, path)
        return
    with os_errors(path):
        with tf.io.gfile.GFile(new, "wb") as file:
            file.write(data)
        tf.io.gfile.rename(new, path, overwrite=True)
