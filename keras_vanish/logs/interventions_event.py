"""What was done to a run at one step, as one event."""

from __future__ import annotations

from collections.abc import Sequence

from tensorboard.compat.proto import types_pb2
from tensorboard.compat.proto.event_pb2 import Event

from keras_vanish.interventions import Intervention
from keras_vanish.logs.markdown import escaped
from keras_vanish.logs.messages import DONE, TEXT, shape
from keras_vanish.logs.tags import INTERVENTIONS


def interventions_event(interventions: Sequence[Intervention], wall_time: float) -> Event:
    """The event that says what was done at one step, as text and as JSON.

    Args:
        interventions: What was done.
        wall_time: Seconds since 1970.
    """
    event = Event(wall_time=wall_time, step=interventions[0].step)
    text = "\n".join(f"- {escaped(intervention.sentence())}" for intervention in interventions)
    value = event.summary.value.add(tag="gradients/interventions", metadata=TEXT)
    value.tensor.dtype = types_pb2.DT_STRING
    value.tensor.string_val[:] = (text.encode("utf-8", "backslashreplace"),)
    value = event.summary.value.add(tag=INTERVENTIONS, metadata=DONE)
    value.tensor.dtype = types_pb2.DT_STRING
    value.tensor.tensor_shape.CopyFrom(shape(len(interventions)))
    value.tensor.string_val[:] = [
        intervention.to_json().encode("utf-8", "backslashreplace") for intervention in interventions
    ]
    return event
