from __future__ import annotations

from keras_vanish.interventions import Intervention
from keras_vanish.logs.interventions_event import interventions_event
from keras_vanish.logs.messages import DONE, TEXT


def test_what_was_done_is_there_for_people_and_for_programs() -> None:
    done = [
        Intervention(7, "clip", "the norm of <b> was 5", {"norm": 5.0}, {"norm": 1.0}),
        Intervention(7, "skip", "NaN in \ud800"),
    ]
    event = interventions_event(done, 12.5)
    assert (event.step, event.wall_time) == (7, 12.5)
    text, programs = event.summary.value
    assert (text.tag, text.metadata) == ("gradients/interventions", TEXT)
    (markdown,) = text.tensor.string_val
    first, second = markdown.decode().split("\n")
    assert first.startswith("- Step 7: clipped the gradient")
    assert "&#60;b&#62;" in first
    assert second.startswith("- Step 7: skipped the update")
    assert (programs.tag, programs.metadata) == ("gradient_flow/interventions", DONE)
    assert [dim.size for dim in programs.tensor.tensor_shape.dim] == [2]
    assert Intervention.from_json(programs.tensor.string_val[0].decode()) == done[0]
