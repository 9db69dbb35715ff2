from __future__ import annotations

import pytest

from keras_vanish.report.sparklines import BLOCKS, MISSING
from keras_vanish.report.terminal import stand_in


def encoded(text: str) -> str:
    """As `stand_in` has it, each character by itself."""
    found = ""
    for start, c in enumerate(text):
        if c.isascii():
            found += c
            continue
        replaced, end = stand_in(UnicodeEncodeError("ascii", text, start, start + 1, "lacks it"))
        assert end == start + 1
        found += replaced
    return found


def test_blocks_keep_their_order() -> None:
    assert encoded(BLOCKS[:-1]) == "1234567"
    assert encoded(BLOCKS[-1]) == "#"


def test_what_is_missing_does_not_look_like_a_block() -> None:
    assert encoded(MISSING) == "."


def test_what_has_no_likeness_is_a_question_mark() -> None:
    assert encoded("é→ü") == "?>?"


def test_several_at_once() -> None:
    assert stand_in(UnicodeEncodeError("ascii", "a█·é", 1, 4, "lacks them")) == ("#.?", 4)


def test_decoding_is_not_its_affair() -> None:
    error = UnicodeDecodeError("ascii", b"\xff", 0, 1, "no")
    with pytest.raises(UnicodeDecodeError):
        stand_in(error)
