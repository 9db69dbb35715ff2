"""What TensorBoard holds comes back as the readings that were written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.compat.proto import types_pb2
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.context import RequestContext

from keras_vanish.diagnosis import diagnose
from keras_vanish.interventions import Intervention
from keras_vanish.logs.event_writer import EventWriter
from keras_vanish.logs.events import read
from keras_vanish.logs.histograms import Histograms
from keras_vanish.logs.step_events import StepEvents
from keras_vanish.logs.tfrecord import frame
from keras_vanish.records.bins import BINS
from keras_vanish.records.readings import Reading
from keras_vanish.tensorboard_tab.source import Source, StoredRun

Make = Callable[..., Any]


@pytest.fixture
def seen(provider_of: Make) -> Callable[..., StoredRun | None]:
    """`seen(log_dir, run="gradients", probed=True)`: the run as the tab sees it."""

    def run(log_dir: Path, run: str = "gradients", probed: bool = True) -> StoredRun | None:
        return Source(provider_of(log_dir)).run(RequestContext(), "", run, probed)

    return run


@pytest.fixture
def probed_readings(make_reading: Make, make_probed: Make) -> list[Reading]:
    return [
        make_reading(
            step=10 * step,
            rms=[1e-9, 1e-5, 1e-2],
            probed=make_probed(profiles={"dense_0": [3, 4], "dense_2": [1, 2, step]}),
        )
        for step in range(30)
    ]


def test_readings_come_back(
    tmp_path: Path, write_run: Make, seen: Make, probed_readings: list[Reading]
) -> None:
    write_run(tmp_path, probed_readings)
    assert list(seen(tmp_path).readings) == probed_readings


def test_recurrent_layers_are_in_the_order_in_which_data_flows(
    tmp_path: Path, write_run: Make, seen: Make, make_reading: Make, make_probed: Make
) -> None:
    names = [f"lstm_{number}" for number in range(8)]
    probed = make_probed(
        rms=[1] * 8, names=names, profiles={name: [1, 2] for name in reversed(names)}
    )
    write_run(tmp_path, [make_reading(probed=probed)])
    assert list(seen(tmp_path).readings[0].timesteps) == names


def test_what_the_probe_saw_is_left_out_where_it_is_not_asked_for(
    tmp_path: Path, write_run: Make, seen: Make, probed_readings: list[Reading]
) -> None:
    write_run(tmp_path, probed_readings)
    plain = [replace(reading, probed=None) for reading in probed_readings]
    assert list(seen(tmp_path, probed=False).readings) == plain


def test_layers_may_change(tmp_path: Path, write_run: Make, seen: Make, make_reading: Make) -> None:
    readings = [make_reading(step=0, rms=[1, 1]), make_reading(step=1, rms=[1, 1, 1])]
    write_run(tmp_path, readings)
    assert list(seen(tmp_path).readings) == readings


def test_of_a_step_written_twice_the_later_one_counts(
    tmp_path: Path, write_run: Make, seen: Make, make_reading: Make
) -> None:
    first = [make_reading(step=step, rms=[1, 1]) for step in range(3)]
    again = make_reading(step=1, rms=[2, 2], wall_time=1.8e9)
    write_run(tmp_path, first).close()
    write_run(tmp_path, [again])
    assert list(seen(tmp_path).readings) == [first[0], again, first[2]]


def test_interventions_come_back(
    tmp_path: Path, write_run: Make, seen: Make, make_reading: Make
) -> None:
    done = [
        Intervention(3, "clip", "the norm was <b>5</b>", {"norm": 5.0}, {"norm": 1.0}),
        Intervention(7, "lower_rate", "the loss rose", {"rate": 0.1}, {"rate": 0.05}, dry_run=True),
    ]
    write_run(tmp_path, [make_reading()], interventions=done)
    assert list(seen(tmp_path).interventions) == done
    # They stand among the readings, and are none.
    assert [diagnosis.step for diagnosis in read(tmp_path)] == [0]


def test_there_is_no_run_that_is_not_there(
    tmp_path: Path, write_run: Make, seen: Make, make_reading: Make
) -> None:
    write_run(tmp_path, [make_reading()])
    assert seen(tmp_path, "elsewhere") is None


def test_a_run_is_read_again_only_when_there_is_more(
    tmp_path: Path, write_run: Make, provider_of: Make, make_reading: Make
) -> None:
    writer = write_run(tmp_path, [make_reading(step=0)])
    provider = provider_of(tmp_path)
    source, asked = Source(provider), (RequestContext(), "", "gradients")
    first = source.run(*asked)
    assert source.run(*asked) is first
    revision = source.revisions(*asked[:2])["gradients"]
    writer.write(diagnose(make_reading(step=1)), None, "healthy")
    provider._multiplexer.Reload()
    second = source.run(*asked)
    assert [reading.step for reading in second.readings] == [0, 1]
    assert source.revisions(*asked[:2])["gradients"] != revision


def damaged(data: bytes, damage: Callable[[Event], None]) -> bytes:
    event = Event.FromString(data)
    damage(event)
    return event.SerializeToString()


def wrong_shape(event: Event) -> None:
    event.summary.value[0].tensor.tensor_shape.dim[0].size = 6
    event.summary.value[0].tensor.tensor_shape.dim[1].size //= 2


def wrong_type(event: Event) -> None:
    tensor = event.summary.value[0].tensor
    tensor.Clear()
    tensor.dtype = types_pb2.DT_STRING
    tensor.string_val.append(b"no number")


def wrong_version(event: Event) -> None:
    event.summary.value[0].metadata.plugin_data.content = b'{"version":99}'


@pytest.mark.parametrize("damage", [wrong_shape, wrong_type, wrong_version])
def test_what_is_not_as_this_version_writes_it_is_passed_over(
    tmp_path: Path, seen: Make, make_reading: Make, damage: Callable[[Event], None]
) -> None:
    event = StepEvents().event(diagnose(make_reading(rms=[1, 1, 1])), None, "healthy")
    (tmp_path / "gradients").mkdir()
    data = frame(Event(file_version="brain.Event:2").SerializeToString())
    data += frame(damaged(event.SerializeToString(), damage))
    (tmp_path / "gradients" / "events.out.tfevents.1.host.1.0").write_bytes(data)
    run = seen(tmp_path)
    assert run.readings == ()


def test_histograms_are_those_of_the_layer(
    tmp_path: Path, provider_of: Make, make_reading: Make
) -> None:
    counts = np.zeros([3, BINS])
    counts[:, 100] = 8
    names = ("a", "a/b")
    histograms = Histograms(("a", "a/b", "a/b"), ("kernel", "kernel", "bias"), (8, 8, 8), counts)
    reading = make_reading(names=names, rms=[1, 1])
    writer = EventWriter(tmp_path)
    writer.write(diagnose(reading), histograms, "healthy")
    source = Source(provider_of(tmp_path))
    found = source.histograms(RequestContext(), "", "gradients", reading, "a")
    assert list(found) == ["kernel"]
    found = source.histograms(RequestContext(), "", "gradients", reading, "a/b")
    assert list(found) == ["bias", "kernel"]
    assert found["bias"][0].numpy[:, 2].tolist() == [8]


@pytest.mark.parametrize("prefix", ["gradient_flow/", "gradient_flow/activations/"])
def test_columns_are_read_by_name(
    tmp_path: Path, seen: Make, make_reading: Make, make_probed: Make, prefix: str
) -> None:
    """The last column missing, an unknown one in front, and all in another order."""
    reading = make_reading(update_rms=0.25, probed=make_probed(attention_entropy=0.5))
    event = StepEvents().event(diagnose(reading), None, "healthy")
    value = next(v for v in event.summary.value if v.tag.startswith(prefix))
    plugin, tensor = value.metadata.plugin_data, value.tensor
    fields = json.loads(plugin.content)
    fields["columns"] = ["from_the_future", *fields["columns"][-2::-1]]
    plugin.content = json.dumps(fields).encode()
    table = np.frombuffer(tensor.tensor_content, "<f8").reshape(3, -1)
    table = np.insert(table[:, -2::-1], 0, -1.0, axis=1)
    tensor.tensor_content = table.tobytes()
    assert tensor.tensor_shape.dim[1].size == table.shape[1]
    (tmp_path / "gradients").mkdir()
    first = Event(file_version="brain.Event:2")
    first.source_metadata.writer = "keras_vanish"
    data = frame(first.SerializeToString()) + frame(event.SerializeToString())
    (tmp_path / "gradients" / "events.out.tfevents.1.host.1.0").write_bytes(data)
    (found,) = seen(tmp_path).readings
    assert [found] == [diagnosis.reading for diagnosis in read(tmp_path)]
    changed, whole = found.table, reading.table
    if "activations" in prefix:
        assert np.array_equal(changed, whole)
        changed, whole = found.probed.table, reading.probed.table
    assert np.isnan(changed[:, -1]).all()
    assert not np.isnan(whole[:, -1]).any()
    np.testing.assert_array_equal(changed[:, :-1], whole[:, :-1])
