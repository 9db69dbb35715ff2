"""Parts of messages that many values in event files share."""

from __future__ import annotations

import functools

from tensorboard.compat.proto import summary_pb2
from tensorboard.compat.proto.summary_pb2 import SummaryMetadata
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.histogram import metadata as histogram_plugin
from tensorboard.plugins.scalar import metadata as scalar_plugin
from tensorboard.plugins.text import metadata as text_plugin

from keras_vanish.logs.histograms import AXIS
from keras_vanish.logs.tags import PLUGIN


def _with_class(metadata: SummaryMetadata, data_class: int) -> SummaryMetadata:
    # Without a data class TensorBoard does not show a value.
    metadata.data_class = data_class
    return metadata


SCALAR = _with_class(scalar_plugin.create_summary_metadata("", ""), summary_pb2.DATA_CLASS_SCALAR)
TEXT = _with_class(text_plugin.create_summary_metadata("", ""), summary_pb2.DATA_CLASS_TENSOR)
HISTOGRAM = _with_class(
    histogram_plugin.create_summary_metadata("", AXIS), summary_pb2.DATA_CLASS_TENSOR
)
#: Interventions for programs; their text is announced as `TEXT`.
DONE = SummaryMetadata(
    plugin_data=SummaryMetadata.PluginData(plugin_name=PLUGIN),
    data_class=summary_pb2.DATA_CLASS_TENSOR,
)


@functools.lru_cache(maxsize=1024)
def shape(*sizes: int) -> TensorShapeProto:
    """The shape of a tensor as a message."""
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in sizes])
