from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.distribution.distributions_plugin import DistributionsPlugin
from tensorboard.plugins.histogram.histograms_plugin import HistogramsPlugin
from tensorboard.plugins.scalar.scalars_plugin import ScalarsPlugin
from tensorboard.plugins.text.text_plugin import TextPlugin
from tensorboard.util.tensor_util import make_ndarray

from keras_vanish.diagnosis.diagnosis import Diagnosis, diagnose
from keras_vanish.logs.event_writer import EventWriter
from keras_vanish.logs.events import read, verdict_of
from keras_vanish.logs.histograms import Histograms
from keras_vanish.logs.run_folders import runs
from keras_vanish.logs.scalars import scalars
from keras_vanish.logs.tfrecord import frame, records
from keras_vanish.records.columns import ACTIVATION_COLUMNS, BINS
from keras_vanish.records.probed import Probed
from keras_vanish.records.readings import Reading
from keras_vanish.records.statistics import COLUMNS

# What TensorBoard vendors warns about itself when it cleans HTML.
pytestmark = pytest.mark.filterwarnings("ignore:html5lib's sanitizer is deprecated")

MakeReading = Callable[..., Reading]


def write(
    log_dir: Path, *readings: Reading, histograms: Histograms | None = None
) -> list[Diagnosis]:
    """Writes readings with a writer of their own; returns their diagnoses."""
    history = [diagnose(reading) for reading in readings]
    writer = EventWriter(log_dir)
    for diagnosis in history:
        writer.write(diagnosis, histograms, "healthy")
    writer.close()
    return history


def files(log_dir: Path) -> list[Path]:
    return sorted((log_dir / "gradients").iterdir())


# Reading back


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


# Damage


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


# Writing


def test_nothing_is_made_before_the_first_write(tmp_path: Path) -> None:
    EventWriter(tmp_path / "logs").close()
    assert not (tmp_path / "logs").exists()


def test_a_step_is_on_disk_when_write_returns(tmp_path: Path, make_reading: MakeReading) -> None:
    writer = EventWriter(tmp_path)
    for step in range(3):
        writer.write(diagnose(make_reading(step=step)), None, "healthy")
        assert len(read(tmp_path)) == step + 1
    assert len(files(tmp_path)) == 1
    writer.close()
    writer.close()


def test_every_writer_has_its_own_file(tmp_path: Path, make_reading: MakeReading) -> None:
    write(tmp_path, make_reading(step=0))
    write(tmp_path, make_reading(step=1))
    first, second = files(tmp_path)
    pattern = rf"events\.out\.tfevents\.\d{{10}}\..+\.{os.getpid()}\.\d+"
    assert re.fullmatch(pattern, first.name)
    assert re.fullmatch(pattern, second.name)


def test_write_after_close(tmp_path: Path, make_reading: MakeReading) -> None:
    writer = EventWriter(tmp_path)
    writer.write(diagnose(make_reading(step=0)), None, "healthy")
    writer.close()
    writer.write(diagnose(make_reading(step=1)), None, "healthy")
    writer.close()
    assert [diagnosis.step for diagnosis in read(tmp_path)] == [0, 1]


def test_an_error_after_close_leaves_the_closed_file(
    tmp_path: Path, make_reading: MakeReading, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> bytes:
        raise OSError("no space")

    writer = EventWriter(tmp_path)
    writer.write(diagnose(make_reading(step=0)), None, "healthy")
    writer.close()
    monkeypatch.setattr(writer, "_open", fail)
    with pytest.raises(OSError, match="no space"):
        writer.write(diagnose(make_reading(step=1)), None, "healthy")
    assert len(read(tmp_path)) == 1


@pytest.mark.parametrize("what", ["the file", "the folder"])
def test_a_file_that_disappears(tmp_path: Path, make_reading: MakeReading, what: str) -> None:
    writer = EventWriter(tmp_path / "logs")
    writer.write(diagnose(make_reading(step=0)), None, "healthy")
    (path,) = files(tmp_path / "logs")
    path.unlink()
    if what == "the folder":
        shutil.rmtree(tmp_path / "logs")
    message = f"it has disappeared since the last write. Received: {path}. Step 1 is not in it"
    with pytest.raises(OSError, match=re.escape(message)):
        writer.write(diagnose(make_reading(step=1)), None, "healthy")
    writer.write(diagnose(make_reading(step=2)), None, "healthy")
    writer.close()
    assert [diagnosis.step for diagnosis in read(tmp_path / "logs")] == [2]


def test_a_log_dir_that_cannot_be_made(tmp_path: Path, make_reading: MakeReading) -> None:
    (tmp_path / "file").touch()
    writer = EventWriter(tmp_path / "file")
    for _ in range(2):
        with pytest.raises(OSError, match="Cannot write .* Received: .*file/gradients. Step 0"):
            writer.write(diagnose(make_reading()), None, "healthy")
    (tmp_path / "file").unlink()
    writer.write(diagnose(make_reading()), None, "healthy")
    writer.close()
    assert len(read(tmp_path / "file")) == 1


def test_a_full_disk(tmp_path: Path, make_reading: MakeReading) -> None:
    writer = EventWriter(tmp_path)
    diagnoses = [diagnose(make_reading(step=step)) for step in range(4)]
    writer.write(diagnoses[0], None, "healthy")
    size = files(tmp_path)[0].stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (size + 100, 100):
        # No file may grow beyond the limit: what fits is written, then an error.
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(OSError, match="Step 1 is not in it; .* the disk has space"):
                writer.write(diagnoses[1], None, "healthy")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (half_written,) = files(tmp_path)
    assert half_written.stat().st_size > size
    writer.write(diagnoses[2], None, "healthy")
    writer.write(diagnoses[3], None, "healthy")
    writer.close()
    assert read(tmp_path) == [diagnoses[0], *diagnoses[2:]]


def test_an_error_in_a_histogram_leaves_the_file_whole(
    tmp_path: Path, make_reading: MakeReading
) -> None:
    writer = EventWriter(tmp_path)
    stray = Histograms(("elsewhere",), ("kernel",), (3,), np.ones([1, BINS]))
    for step in range(2):
        writer.write(diagnose(make_reading(step=step)), None, "healthy")
        with pytest.raises(ValueError, match="elsewhere"):
            writer.write(diagnose(make_reading(step=9)), stray, "healthy")
    writer.close()
    assert [diagnosis.step for diagnosis in read(tmp_path)] == [0, 1]
    assert len(files(tmp_path)) == 1


# As TensorBoard sees it


def counts(*bins: int) -> np.ndarray:
    array = np.zeros(BINS, np.float32)
    array[list(bins)] = 5
    return array


@pytest.fixture
def board(tmp_path: Path, make_reading: MakeReading) -> tuple[TBContext, list[Diagnosis]]:
    """What TensorBoard serves of a run of three steps, and its history."""
    readings = [
        make_reading(step=10 * step, rms=[np.nan if step == 1 else 1e-3, 2e-3]) for step in range(3)
    ]
    histograms = Histograms(
        ("dense_1", "dense_1"),
        ("kernel", "bias"),
        (100, 100),
        np.stack([counts(90, 97), counts(256)]),
    )
    history = write(tmp_path, *readings, histograms=histograms)
    multiplexer = EventMultiplexer(tensor_size_guidance={})
    multiplexer.AddRunsFromDirectory(str(tmp_path)).Reload()
    provider = MultiplexerDataProvider(multiplexer, str(tmp_path))
    return TBContext(logdir=str(tmp_path), data_provider=provider), history


def test_tensorboard_plots_the_scalars(board: tuple[TBContext, list[Diagnosis]]) -> None:
    context, history = board
    plugin = ScalarsPlugin(context)
    shown = plugin.index_impl(RequestContext(), "")["gradients"]
    assert set(shown) == set().union(*(scalars(diagnosis) for diagnosis in history))
    for tag in shown:
        points, _ = plugin.scalars_impl(RequestContext(), tag, "gradients", "", "json")
        expected = [
            [diagnosis.reading.wall_time, diagnosis.step, np.float32(scalars(diagnosis)[tag])]
            for diagnosis in history
            if tag in scalars(diagnosis)
        ]
        assert [list(point) for point in points] == expected
    missing, _ = plugin.scalars_impl(
        RequestContext(), "gradient_rms/00_dense_0", "gradients", "", "json"
    )
    assert [point[1] for point in missing] == [0, 20]


def test_tensorboard_shows_the_histograms(board: tuple[TBContext, list[Diagnosis]]) -> None:
    context, _ = board
    plugin = HistogramsPlugin(context)
    shown = plugin.index_impl(RequestContext(), "")["gradients"]
    assert list(shown) == ["gradients/01_dense_1/kernel"]
    description = shown["gradients/01_dense_1/kernel"]["description"]
    assert "log10 of the magnitude" in description
    assert "Entries that are zero" in description
    steps, _ = plugin.histograms_impl(
        RequestContext(), "gradients/01_dense_1/kernel", "gradients", "", downsample_to=100
    )
    assert [step for _, step, _ in steps] == [0, 10, 20]
    rows = np.array(steps[0][2])
    assert rows.shape == (8, 3)
    assert rows[0, 0] == pytest.approx(np.log10(2.0 ** (90 - 127)))
    assert rows[:, 2].tolist() == [50, 0, 0, 0, 0, 0, 0, 50]


def test_tensorboard_shows_the_distributions(board: tuple[TBContext, list[Diagnosis]]) -> None:
    context, _ = board
    plugin = DistributionsPlugin(context)
    assert list(plugin.index_impl(RequestContext(), "")["gradients"]) == [
        "gradients/01_dense_1/kernel"
    ]
    steps, _ = plugin.distributions_impl(
        RequestContext(), "gradients/01_dense_1/kernel", "gradients", ""
    )
    assert [step for _, step, _ in steps] == [0, 10, 20]


def test_tensorboard_shows_the_text(board: tuple[TBContext, list[Diagnosis]]) -> None:
    context, _ = board
    plugin = TextPlugin(context)
    assert plugin.index_impl(RequestContext(), "") == {"gradients": ["gradients/diagnosis"]}
    steps = plugin.text_impl(
        RequestContext(), "gradients", "gradients/diagnosis", "", enable_markdown=True
    )
    assert [step["step"] for step in steps] == [0, 10, 20]
    assert "<strong>Gradients reach the whole network.</strong>" in steps[0]["text"]


def test_tensorboard_has_the_record(tmp_path: Path, make_reading: MakeReading) -> None:
    first, second = make_reading(step=0, rms=[1, 1]), make_reading(step=1, rms=[1, 1, 1])
    write(tmp_path, first)
    write(tmp_path, second, replace(first, step=2))
    accumulator = EventAccumulator(str(tmp_path / "gradients"), tensor_size_guidance={})
    accumulator.Reload()
    contents = accumulator.PluginTagToContent("gradient_flow")
    assert len(contents) == 2
    by_names = {content.count(b"dense_"): tag for tag, content in contents.items()}
    events = accumulator.Tensors(by_names[2])
    assert [event.step for event in events] == [0, 2]
    np.testing.assert_array_equal(make_ndarray(events[0].tensor_proto), first.table)
    assert [event.step for event in accumulator.Tensors(by_names[3])] == [1]


# The run's verdict


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], "unknown"),
        (["vanishing"], "unknown"),
        (["vanishing"] * 2, "vanishing"),
        (["healthy"] * 5 + ["vanishing"] * 2, "healthy"),
        (["healthy"] * 5 + ["vanishing"] * 3, "vanishing"),
        (["healthy", "nonfinite"], "nonfinite"),
    ],
)
def test_verdict_of(make_reading: MakeReading, verdicts: list[Any], expected: str) -> None:
    diagnosis = diagnose(make_reading())
    history = [replace(diagnosis, verdict=verdict) for verdict in verdicts]
    assert verdict_of(history) == expected


# Imports


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_reading_does_not_import_tensorflow(tmp_path: Path, make_reading: MakeReading) -> None:
    write(tmp_path, make_reading())
    code = (
        "import sys; from keras_vanish.logs.events import read; "
        f"print(len(read({str(tmp_path)!r})), 'tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    done = run(code)
    assert done.stdout.split() == ["1", "False", "False"], done.stderr


def test_writing_does_not_need_tensorflow(tmp_path: Path, make_reading: MakeReading) -> None:
    """Where the import of TensorFlow fails, TensorBoard's own file access is used."""
    write(tmp_path / "a", make_reading())
    code = f"""
import sys
sys.modules["tensorflow"] = None
from keras_vanish.logs.event_writer import EventWriter
from keras_vanish.logs.events import read
(diagnosis,) = read({str(tmp_path / "a")!r})
writer = EventWriter({str(tmp_path / "b")!r})
writer.write(diagnosis, None, "healthy")
writer.write(diagnosis, None, "healthy")
writer.close()
print(read({str(tmp_path / "b")!r}) == [diagnosis])
"""
    done = run(code)
    assert done.stdout.split() == ["True"], done.stderr
