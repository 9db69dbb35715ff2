from __future__ import annotations

from collections.abc import Callable

from factories import MakeReading
from tensorboard.compat.proto import summary_pb2

from keras_vanish.diagnosis import diagnose
from keras_vanish.logs.histograms import Histograms
from keras_vanish.logs.step_events import StepEvents

MakeHistogram = Callable[..., Histograms]


def test_every_value_has_a_data_class(histogram: MakeHistogram, make_reading: MakeReading) -> None:
    """TensorBoard guesses it for its own plugins, and hides other values without one."""
    summary = StepEvents().event(diagnose(make_reading()), histogram(_100=1), "healthy").summary
    found = {
        (value.metadata.plugin_data.plugin_name, value.metadata.data_class)
        for value in summary.value
    }
    scalar, tensor = summary_pb2.DATA_CLASS_SCALAR, summary_pb2.DATA_CLASS_TENSOR
    plugins = {"gradient_flow", "histograms", "text"}
    assert found == {("scalars", scalar)} | {(plugin, tensor) for plugin in plugins}
