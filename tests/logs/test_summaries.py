from __future__ import annotations

import html
import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from tensorboard import plugin_util
from tensorboard.compat.proto import summary_pb2
from tensorboard.compat.proto.event_pb2 import Event

from keras_vanish.diagnosis.diagnosis import Diagnosis, diagnose
from keras_vanish.logs.decoding import readings
from keras_vanish.logs.histograms import Histograms, histogram_rows
from keras_vanish.logs.markdown import markdown
from keras_vanish.logs.scalars import scalars
from keras_vanish.logs.step_events import StepEvents
from keras_vanish.logs.tags import labels
from keras_vanish.records.columns import BINS, ZERO_BIN
from keras_vanish.records.probed import Probed
from keras_vanish.records.readings import Reading

# What TensorBoard vendors warns about itself when it cleans HTML.
pytestmark = pytest.mark.filterwarnings("ignore:html5lib's sanitizer is deprecated")

MakeReading = Callable[..., Reading]


def histogram(size: int = 10, layer: str = "dense_0", **counts: float) -> Histograms:
    """One histogram, with the counts given as `_<bin>=count`."""
    array = np.zeros([1, BINS], np.float32)
    for name, count in counts.items():
        array[0, int(name[1:])] = count
    return Histograms((layer,), ("kernel",), (size,), array)


@pytest.mark.parametrize("count", [1, 9, 10, 100, 101, 200, 1001])
def test_labels_sort_by_depth(count: int) -> None:
    names = [f"layer_{count - i}" for i in range(count)]
    found = labels(names)
    assert sorted(found) == found
    assert [label.partition("_")[2] for label in found] == names


def test_labels_have_as_many_digits_as_needed() -> None:
    assert labels(["a", "b"]) == ["00_a", "01_b"]
    assert labels(["a"] * 100)[-1] == "99_a"
    assert labels(["a"] * 200)[7] == "007_a"


def test_scalars(make_reading: MakeReading) -> None:
    diagnosis = diagnose(
        make_reading(
            rms=[3e-3, 4e-3],
            names=["a", "b/c"],
            gradient_norm_after_clipping=[0.3, 0.4],
            zero_fraction=[0.25, 0],
        )
    )
    found = scalars(diagnosis)
    assert found.pop("gradients/global_norm") == pytest.approx(5e-3 * math.sqrt(1000))
    assert found.pop("gradients/global_norm_after_clipping") == pytest.approx(0.5)
    assert found.pop("update_ratio/00_a") == pytest.approx(1e-3)
    assert found.pop("update_ratio/01_b/c") == pytest.approx(1e-3)
    assert found == {
        "gradients/vanishing_score": diagnosis.vanishing_score,
        "gradients/exploding_score": diagnosis.exploding_score,
        "gradient_rms/00_a": 3e-3,
        "gradient_rms/01_b/c": 4e-3,
        "zero_fraction/00_a": 0.25,
        "zero_fraction/01_b/c": 0.0,
        "components/weights": diagnosis.components["weights"],
        "components/growth": diagnosis.components["growth"],
        "components/update": diagnosis.components["update"],
    }


def test_scalars_of_the_probe(
    make_reading: MakeReading, make_probed: Callable[..., Probed]
) -> None:
    probed = make_probed(
        rms=[3e-3, 4e-3],
        names=["a", "b/c"],
        dead_fraction=[math.nan, 0.5],
        saturated_fraction=[0.25, math.nan],
        profiles={"b/c": [1e-6, 0.5, 1.0]},
    )
    found = scalars(diagnose(make_reading(probed=probed)))
    added = {
        tag: value for tag, value in found.items() if tag not in scalars(diagnose(make_reading()))
    }
    components = [tag for tag in added if tag.startswith("components/")]
    assert components == [f"components/{name}" for name in ("activations", "dead", "saturated")]
    assert {tag: added[tag] for tag in added if tag not in components} == {
        "activation_gradient_rms/00_a": 3e-3,
        "activation_gradient_rms/01_b/c": 4e-3,
        "dead_fraction/01_b/c": 0.5,
        "saturated_fraction/00_a": 0.25,
        "horizon/b/c": 1.0,
    }


def test_missing_scalars_are_left_out(make_reading: MakeReading) -> None:
    reading = make_reading(rms=[math.nan, 1.0], update_rms=[math.nan, 1e-3])
    tags = set(scalars(diagnose(reading)))
    assert "gradient_rms/01_dense_1" in tags
    assert not tags & {
        "gradient_rms/00_dense_0",
        "update_ratio/00_dense_0",
        "gradients/vanishing_score",
    }


def test_histogram_edges_are_log10_of_powers_of_two() -> None:
    (rows,) = histogram_rows(histogram(size=8, _97=2, _99=2))
    assert rows is not None
    expected = np.log10(2.0 ** np.arange(97 - 127, 99 - 126 + 1))
    np.testing.assert_allclose(rows[:, 0], expected[:-1])
    np.testing.assert_allclose(rows[:, 1], expected[1:])
    np.testing.assert_array_equal(rows[:, 2], [4, 0, 4])


def test_histogram_counts_stand_for_the_whole_variable() -> None:
    # A quarter zeros, a quarter NaN: half of the thousand entries remain.
    (rows,) = histogram_rows(histogram(size=1000, _100=2, **{f"_{ZERO_BIN}": 1, "_255": 1}))
    assert rows is not None
    assert rows[:, 2].tolist() == [500]


@pytest.mark.parametrize("bins", [{}, {f"_{ZERO_BIN}": 5}, {"_255": 5}, {"_100": math.nan}])
def test_no_histogram_of_nothing(bins: dict[str, float]) -> None:
    assert histogram_rows(histogram(**bins)) == [None]


def test_each_histogram_has_its_own_range() -> None:
    counts = np.zeros([4, BINS])
    counts[0, [90, 92]] = 1
    counts[1] = math.nan  # No gradient.
    counts[2, ZERO_BIN] = 1
    counts[3, 100] = 2
    first, none, zeros, last = histogram_rows(
        Histograms(("a",) * 4, ("w", "x", "y", "z"), (2, 2, 2, 6), counts)
    )
    assert none is None
    assert zeros is None
    assert first is not None
    assert last is not None
    assert first[:, 2].tolist() == [1, 0, 1]
    assert last[:, 2].tolist() == [6]
    np.testing.assert_allclose(last[0, :2], np.log10(2.0) * np.array([-27, -26]))
    np.testing.assert_allclose(first[0, 0], np.log10(2.0) * -37)


@pytest.mark.parametrize("shape", [(1, 3), (2, BINS), (BINS,)])
def test_histograms_of_another_shape(shape: tuple[int, ...]) -> None:
    message = f"need 257 counts a variable. Received: counts of shape {shape} for 1 variables"
    with pytest.raises(ValueError, match=re.escape(message)):
        histogram_rows(Histograms(("dense_0",), ("kernel",), (3,), np.ones(shape)))


def test_histogram_of_another_layer(make_reading: MakeReading) -> None:
    with pytest.raises(ValueError, match="Received: layer='conv'. Pass the layer's name"):
        StepEvents().event(diagnose(make_reading()), histogram(layer="conv", _9=1), "healthy")


def test_markdown(make_reading: MakeReading) -> None:
    diagnosis = diagnose(make_reading(rms=[1e-9, 1e-8, 1e-3, 1e-3, 1e-3]))
    text = markdown(diagnosis, "vanishing")
    assert diagnosis.verdict == "vanishing"
    assert text.startswith(r"**Gradients vanish on the way to the input\. Starved: dense\_0,")
    assert "The run so far: vanishing\\." in text
    assert "Layers to blame:\n\n- dense\\_0\n- dense\\_1\n\n" in text
    assert text.count("\n1. ") == len(diagnosis.advice)


def test_markdown_of_a_healthy_step_blames_nobody(make_reading: MakeReading) -> None:
    text = markdown(diagnose(make_reading()), "unknown")
    assert text == "**Gradients reach the whole network\\.**\n\nThe run so far: unknown\\."


@pytest.mark.parametrize(
    "name",
    [
        "<img src=x onerror=alert(1)>",
        "<b>*a* **b** `c` _d_",
        "[click](http://example.org) ![x](y) <http://example.org>",
        "a\n\n# b\n\n| c | d |\n|---|---|\n\n```\ne\n```\n~~~\n",
        "&lt;b&gt; &#60;b>",
        "\\<b>\\",
    ],
)
def test_names_act_neither_as_markdown_nor_as_html(make_reading: MakeReading, name: str) -> None:
    reading = make_reading(rms=[1.0, 1.0], names=[name, "plain"], nan_count=[1, 0])
    text = markdown(diagnose(reading), "nonfinite")
    rendered = str(plugin_util.markdown_to_safe_html(text))
    assert set(re.findall(r"</?(\w+)", rendered)) == {"p", "strong", "ul", "ol", "li"}
    item = html.unescape(rendered.partition("<ul>\n<li>")[2].partition("</li>")[0])
    assert item.strip() == name.replace("\n", " ").strip()


def event_of(diagnosis: Diagnosis) -> Event:
    return StepEvents().event(diagnosis, None, "healthy")


def test_only_the_first_value_of_a_tag_carries_metadata(make_reading: MakeReading) -> None:
    diagnosis = diagnose(make_reading())
    events = StepEvents()
    described = []
    for shown in (None, histogram(_100=1), histogram(_100=1), histogram(_100=1)):
        event = events.event(diagnosis, shown, "healthy")
        described.append([value.tag for value in event.summary.value if value.HasField("metadata")])
        events.written()
    assert len(described[0]) > 10
    assert described[1:] == [["gradients/00_dense_0/kernel"], [], []]


def test_metadata_comes_again_until_it_is_written(make_reading: MakeReading) -> None:
    diagnosis = diagnose(make_reading())
    events = StepEvents()
    for _ in range(2):
        event = events.event(diagnosis, None, "healthy")
        assert all(value.HasField("metadata") for value in event.summary.value)


def test_a_message_used_again_holds_the_step_and_no_more(make_reading: MakeReading) -> None:
    """Also where values come and go, and where a histogram changes its size."""
    events = StepEvents()
    steps = [
        (make_reading(step=1, rms=[1e-3, 2e-3]), histogram(_90=1, _99=1)),
        (make_reading(step=2, rms=[4e-3, 5e-3]), histogram(_95=1)),
        (make_reading(step=3, rms=[math.nan, 5e-3]), None),
        (make_reading(step=4, rms=[1e-9, 5e-3]), histogram(_95=1)),
    ]
    for reading, shown in steps:
        diagnosis = diagnose(reading)
        again = events.event(diagnosis, shown, "healthy")
        events.written()
        fresh = StepEvents().event(diagnosis, shown, "healthy")
        for value in (*again.summary.value, *fresh.summary.value):
            value.ClearField("metadata")
        assert again == fresh


def test_every_value_has_a_data_class(make_reading: MakeReading) -> None:
    """TensorBoard guesses it for its own plugins, and hides other values without one."""
    summary = StepEvents().event(diagnose(make_reading()), histogram(_100=1), "healthy").summary
    found = {
        (value.metadata.plugin_data.plugin_name, value.metadata.data_class)
        for value in summary.value
    }
    scalar, tensor = summary_pb2.DATA_CLASS_SCALAR, summary_pb2.DATA_CLASS_TENSOR
    plugins = {"gradient_flow", "histograms", "text"}
    assert found == {("scalars", scalar)} | {(plugin, tensor) for plugin in plugins}


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
        (b'{"version":1,"columns":["a"]}', "the columns ['a']"),
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


def test_table_of_another_size(make_reading: MakeReading) -> None:
    event = event_of(diagnose(make_reading()))
    event.summary.value[0].tensor.tensor_content = b"12345678"
    with pytest.raises(ValueError, match=re.escape("8 bytes of type 2 for the shape [3, 14]")):
        list(readings([event.SerializeToString()]))


def test_record_without_metadata(make_reading: MakeReading) -> None:
    event = event_of(diagnose(make_reading()))
    event.summary.value[0].ClearField("metadata")
    with pytest.raises(ValueError, match="the tag 'gradient_flow/.*' has no metadata"):
        list(readings([event.SerializeToString()]))


def test_data_that_is_no_event() -> None:
    with pytest.raises(ValueError, match="a record is not a TensorBoard event"):
        list(readings([b"\xff\xff"]))
