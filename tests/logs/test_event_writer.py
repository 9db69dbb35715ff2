from __future__ import annotations

import os
import re
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from event_files import files, write
from factories import MakeReading
from processes import run_python
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

from keras_vanish.diagnosis import Diagnosis, diagnose
from keras_vanish.logs.event_writer import EventWriter
from keras_vanish.logs.events import read
from keras_vanish.logs.histograms import Histograms
from keras_vanish.logs.scalars import scalars
from keras_vanish.records.bins import BINS

# What TensorBoard vendors warns about itself when it cleans HTML.
pytestmark = pytest.mark.filterwarnings("ignore:html5lib's sanitizer is deprecated")


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
    done = run_python(code)
    assert done.stdout.split() == ["True"], done.stderr
