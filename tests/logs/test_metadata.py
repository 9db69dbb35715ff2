from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np
import pytest
from event_files import event_of
from factories import MakeReading
from hypothesis import given
from hypothesis import strategies as st

from keras_vanish.diagnosis import diagnose
from keras_vanish.logs.decoding import readings
from keras_vanish.logs.metadata import Description, described_by
from keras_vanish.logs.tags import Kind, tag_of
from keras_vanish.records.activations import ACTIVATION_COLUMNS
from keras_vanish.records.statistics import COLUMNS


def test_a_tag_stands_for_one_set_of_layers(make_reading: MakeReading) -> None:
    def tag(**arguments: object) -> str:
        return str(event_of(diagnose(make_reading(**arguments))).summary.value[0].tag)

    assert tag(step=1) == tag(step=2)
    assert len({tag(), tag(rms=[1, 2]), tag(units=7), tag(names=["a", "b", "c"])}) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "the metadata is not JSON"),
        (b"\xff", "the metadata is not JSON"),
        (b"[]", "version None"),
        (b'{"version":2}', "version 2, this keras-vanish reads version 1"),
        (b'{"version":1,"columns":["a"]}', "the names None and the units None"),
        (b'{"version":1,"columns":[]}', "the columns [], not 1 to 1000 different names"),
        (b'{"version":1,"columns":["a","a"]}', "the columns ['a', 'a']"),
        (b'{"version":1,"columns":["a",1]}', "the columns ['a', 1]"),
        (b'{"version":1,"columns":"ab"}', "the columns 'ab'"),
        (b'{"version":1}', "the columns None"),
    ],
)
def test_metadata_of_another_kind(make_reading: MakeReading, content: bytes, message: str) -> None:
    event = event_of(diagnose(make_reading()))
    event.summary.value[0].metadata.plugin_data.content = content
    with pytest.raises(ValueError, match=re.escape(message)):
        list(readings([event.SerializeToString()]))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"dense_0"', b"7", "the names [7, 'dense_1', 'dense_2']"),
        (b"[32,32,32]", b'"32"', "the units '32'"),
        (b"[32,32,32]", b"[32,32]", "3 names, 2 widths"),
        (b'"dense_0",', b"", "2 names, 3 widths and a table of shape (3, 14)"),
    ],
)
def test_metadata_that_contradicts_the_table(
    make_reading: MakeReading, old: bytes, new: bytes, message: str
) -> None:
    event = event_of(diagnose(make_reading()))
    plugin = event.summary.value[0].metadata.plugin_data
    assert old in plugin.content
    plugin.content = plugin.content.replace(old, new)
    with pytest.raises(ValueError, match=re.escape(message)):
        list(readings([event.SerializeToString()]))


def test_too_many_columns(make_reading: MakeReading) -> None:
    content = json.dumps({"version": 1, "columns": [f"c{n}" for n in range(1001)]}).encode()
    with pytest.raises(ValueError, match="not 1 to 1000 different names"):
        described_by("gradient_flow/0", content)


def described(kind: Kind, columns: Sequence[str]) -> Description:
    fields = {"version": 1, "columns": columns, "names": ["a", "b"], "units": [1, 2]}
    return described_by(tag_of(kind, "0"), json.dumps(fields).encode())


KINDS = [("record", COLUMNS), ("activations", ACTIVATION_COLUMNS)]


@pytest.mark.parametrize(("kind", "columns"), KINDS)
def test_a_table_of_this_version_stays_the_same_array(kind: Kind, columns: tuple[str, ...]) -> None:
    table = np.ones([2, len(columns)])
    assert described(kind, columns).arranged(table) is table


@pytest.mark.parametrize(("kind", "columns"), KINDS)
@given(data=st.data())
def test_columns_in_any_order_some_missing_and_some_unknown(
    kind: Kind, columns: tuple[str, ...], data: st.DataObject
) -> None:
    kept = data.draw(st.lists(st.sampled_from(columns), unique=True, min_size=1))
    stored = data.draw(st.permutations([*kept, *data.draw(UNKNOWN)]))
    table = np.arange(2.0 * len(stored)).reshape(2, -1)
    found = described(kind, stored).arranged(table)
    assert found.shape == (2, len(columns))
    for place, name in enumerate(columns):
        wanted = table[:, stored.index(name)] if name in kept else np.full(2, np.nan)
        np.testing.assert_array_equal(found[:, place], wanted)


UNKNOWN = st.lists(st.sampled_from(["hurst", "rank", "", "size_2"]), unique=True)


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (2,), (2, 2), (0, 1), ()])
@pytest.mark.parametrize(("kind", "columns"), KINDS)
def test_a_table_of_other_columns_and_another_shape(
    kind: Kind, columns: tuple[str, ...], shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="the record has .* and the shape"):
        described(kind, columns[:1]).arranged(np.ones(shape))
