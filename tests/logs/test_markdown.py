from __future__ import annotations

import html
import re

import pytest
from factories import MakeReading
from tensorboard import plugin_util

from keras_vanish.diagnosis import diagnose
from keras_vanish.logs.markdown import markdown

# What TensorBoard vendors warns about itself when it cleans HTML.
pytestmark = pytest.mark.filterwarnings("ignore:html5lib's sanitizer is deprecated")


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
