"""What was done to a run, from its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from keras_vanish.interventions import Intervention
from keras_vanish.logs.interventions_log import NAME, append, read_interventions

DONE = [
    Intervention(3, "clip", "too large", {"global_norm": 9.0}, {"clipped": 1.0}),
    Intervention(7, "roll_back", "„NaN“ in the loss", {"learning_rate": 0.1}, {}, dry_run=True),
]


def test_what_was_appended_is_read(tmp_path: Path) -> None:
    assert read_interventions(str(tmp_path)) == []
    append(str(tmp_path), DONE[:1])
    append(str(tmp_path), DONE[1:])
    assert read_interventions(str(tmp_path)) == DONE


def test_a_half_written_last_line_is_passed_over(tmp_path: Path) -> None:
    append(str(tmp_path), DONE)
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-9])
    assert read_interventions(str(tmp_path)) == DONE[:1]


@pytest.mark.parametrize("line", [b"{", b"[]", b"\xff", b'{"step": 1}', b'{"action": "x"}'])
def test_a_line_that_is_no_intervention_is_an_error(tmp_path: Path, line: bytes) -> None:
    (tmp_path / NAME).write_bytes(line + b"\n")
    with pytest.raises(ValueError, match="journal cannot be read.*Received: .*Remove the line"):
        read_interventions(str(tmp_path))


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        append(str(tmp_path / "missing"), DONE)


def test_what_follows_a_half_written_line_is_not_lost(tmp_path: Path) -> None:
    append(str(tmp_path), DONE[:1])
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes() + b'{"step": 5, "act')
    append(str(tmp_path), DONE[1:])
    assert read_interventions(str(tmp_path)) == DONE


def test_a_name_that_is_no_unicode(tmp_path: Path) -> None:
    done = [Intervention(1, "reinitialize", "\udc80", {"\udcff": 1.0}, {})]
    append(str(tmp_path), done)
    assert read_interventions(str(tmp_path)) == done
