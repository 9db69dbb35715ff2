from __future__ import annotations

import math
import re
from typing import Any

import pytest
from factories import MakeProbed, MakeReading
from hypothesis import given
from hypothesis import strategies as st

from keras_vanish.diagnosis import LearningProgress, diagnose
from keras_vanish.diagnosis.progress import PATIENCE
from keras_vanish.report.table import render

VANISHING = [1e-9, 1e-8, 1e-3, 1e-3, 1e-3]


def row(text: str, name: str) -> list[str]:
    """The words of the line that shows a layer."""
    (line,) = [line for line in text.splitlines() if f" {name} " in line]
    return line.split()


def test_a_healthy_run(make_reading: MakeReading) -> None:
    history = [diagnose(make_reading(step=step, rms=[2e-3, 1e-3])) for step in (0, 100, 200)]
    text = render(history, "healthy", width=80)
    assert text.startswith("Healthy. Gradients reach the whole network.\n")
    assert row(text, "dense_0") == [
        "0",
        "dense_0",
        "1000",
        "2.0e-03",
        "████████",
        "0.0",
        "1.0e-03",
        "0%",
    ]
    assert row(text, "dense_1") == [
        "1",
        "dense_1",
        "1000",
        "1.0e-03",
        "███████▌",
        "-0.3",
        "1.0e-03",
        "0%",
    ]
    assert "Recorded 3 steps: 0 to 200. Vanishing score 0.00 → 0.00, exploding" in text
    assert "Global norm 7.1e-02, after clipping 7.1e-02." in " ".join(text.split())
    assert "NaN/Inf" not in text
    assert "What to try" not in text
    assert text.index("dense_0") < text.index("dense_1")


def test_blamed_layers_and_advice(make_reading: MakeReading) -> None:
    diagnosis = diagnose(make_reading(rms=VANISHING))
    text = render([diagnosis] * 3, "vanishing", width=80)
    assert text.startswith("Vanishing. Gradients vanish on the way to the input. Starved: dense_0")
    assert [row(text, f"dense_{i}")[0] for i in range(5)] == ["!", "!", "2", "3", "4"]
    words = " ".join(text.split())
    for number, advice in enumerate(diagnosis.advice, 1):
        assert f"{number}. {' '.join(advice.split())}" in words
    assert re.search(r"^1\. ", text, re.MULTILINE)


@pytest.mark.smoke
def test_the_components_of_the_scores_that_are_known(
    make_reading: MakeReading, make_probed: MakeProbed
) -> None:
    probed = make_probed([1e-5, 1e-3, 1e-3], dead_fraction=0.5)
    text = render([diagnose(make_reading(probed=probed))], "healthy", width=120)
    expected = "Components: weights 0.00, activations 0.50, dead 0.00, growth 0.00, update 0.00."
    assert expected in text.splitlines()
    assert "Horizon" not in text


@pytest.mark.smoke
def test_how_far_back_in_time_the_gradient_reaches(
    make_reading: MakeReading, make_probed: MakeProbed
) -> None:
    profiles = {
        "short": [10.0 ** (step - 63) for step in range(64)],
        "bi/\x1blong": [1.0] * 20,
        "unknown": [1.0, 0.0],
    }
    stuck = LearningProgress(count=PATIENCE, share=0.0, best=0.0)
    diagnosis = diagnose(make_reading(probed=make_probed(profiles=profiles)), stuck)
    text = render([diagnosis], "vanishing", width=120)
    horizons = [line for line in text.splitlines() if line.startswith("Horizon")]
    assert horizons == [
        "Horizon of short: the gradient reaches 2 of 63 steps back.",
        "Horizon of bi/long: the gradient reaches 19 of 19 steps back.",
    ]
    assert "time 1.00" in text
    assert text.index("Components") < text.index("Horizon") < text.index("What to try")


@pytest.mark.smoke
def test_without_the_probe_nothing_is_said_of_it(make_reading: MakeReading) -> None:
    text = render([diagnose(make_reading())], "healthy", width=120)
    assert "Components" not in text
    assert "Horizon" not in text


def test_the_bar_loses_one_cell_a_decade(make_reading: MakeReading) -> None:
    rms = [1e-20, 1e-8, 1e-7, 10**-1.5, 1.0]
    text = render([diagnose(make_reading(rms=rms))], "healthy", width=80)
    found = [row(text, f"dense_{i}") for i in range(5)]
    # The fields after the name: size, RMS, bar, decades, update ratio, zeros.
    bars = [" ".join(words[words.index("1000") + 2 : -2]) for words in found]
    assert bars == ["-20.0", "-8.0", "█ -7.0", "██████▌ -1.5", "████████ 0.0"]


def test_what_is_missing_is_never_zero(make_reading: MakeReading) -> None:
    missing = dict.fromkeys(
        ["gradient_norm", "gradient_norm_after_clipping", "zero_fraction", "update_rms"], math.nan
    )
    reading = make_reading(rms=[math.nan], nan_count=math.nan, inf_count=math.nan, **missing)
    text = render([diagnose(reading)], "unknown", width=80)
    assert row(text, "dense_0")[-6:] == ["dense_0", "1000", "–", "–", "–", "–"]
    assert "score – → –, exploding score – → –" in text
    assert "Global norm –, after clipping –." in " ".join(text.split())


def test_zero_is_not_missing(make_reading: MakeReading) -> None:
    reading = make_reading(rms=[0.0, 1.0], zero_fraction=[1.0, 0.001], update_rms=0)
    text = render([diagnose(reading)], "unknown", width=80)
    assert row(text, "dense_0")[-4:] == ["1000", "0", "0", "100%"]
    assert row(text, "dense_1")[-1] == "<1%"


def test_nonfinite_entries_are_counted(make_reading: MakeReading) -> None:
    reading = make_reading(rms=[1, math.inf], nan_count=[0, 12], inf_count=[0, 3])
    text = render([diagnose(reading)], "nonfinite", width=80)
    assert "NaN/Inf" in text
    assert row(text, "dense_0")[-1] == "0"
    assert row(text, "dense_1")[0] == "!"
    assert row(text, "dense_1")[-1] == "15"
    assert "inf" in row(text, "dense_1")


def test_sizes(make_reading: MakeReading) -> None:
    sizes = {1.0: "1", 9999.0: "9999", 12345.0: "12.3k", 3.45e6: "3.5M", 2e9: "2.0G"}
    reading = make_reading(rms=[1] * 5, size=list(sizes))
    text = render([diagnose(reading)], "healthy", width=80)
    for index, expected in enumerate(sizes.values()):
        assert expected in row(text, f"dense_{index}")


def test_a_last_reading_that_disagrees_with_the_run(make_reading: MakeReading) -> None:
    sick, healthy = diagnose(make_reading(rms=VANISHING)), diagnose(make_reading())
    text = " ".join(render([sick, sick, sick, healthy], "vanishing", width=80).split())
    assert text.startswith("Vanishing. Gradients vanish on the way to the input.")
    assert "The last reading by itself is healthy: Gradients reach the whole network." in text
    assert "What to try: 1. Replace" in text


def test_too_few_readings(make_reading: MakeReading) -> None:
    text = render([diagnose(make_reading(step=7))], "unknown", width=80)
    assert text.startswith("Unknown. The readings so far are too few, or do not agree. The last")
    assert "Recorded 1 step: 7." in text


def test_nothing_recorded() -> None:
    text = render([], "unknown", title="logs", width=80)
    assert text.startswith("logs\nNothing has been recorded. Train for longer, or record more")
    assert "update_freq=1" in text


def test_many_layers(make_reading: MakeReading) -> None:
    rms = [1e-3] * 200
    rms[100] = math.inf
    reading = make_reading(rms=rms, inf_count=[int(i == 100) for i in range(200)])
    lines = render([diagnose(reading)], "nonfinite", width=100).splitlines()
    found = [words for line in lines if (words := re.findall(r"dense_\d+ |….*", line))]
    expected = [f"dense_{i} " for i in range(20)] + ["… 80 layers not shown", "dense_100 "]
    expected += ["… 79 layers not shown"] + [f"dense_{i} " for i in range(180, 200)]
    assert [words[-1] for words in found] == expected


@pytest.mark.parametrize(("count", "hidden"), [(60, False), (61, True)])
def test_up_to_sixty_layers_are_all_shown(
    make_reading: MakeReading, count: int, hidden: bool
) -> None:
    text = render([diagnose(make_reading(rms=[1e-3] * count))], "healthy", width=80)
    assert ("… 21 layers not shown" in text) == hidden


@given(name=st.text(max_size=40), color=st.booleans())
def test_any_name(make_reading: MakeReading, name: str, color: bool) -> None:
    reading = make_reading(rms=[1, 1], names=[name, "plain"], nan_count=[1, 0])
    text = render([diagnose(reading)], "nonfinite", title=name, width=80, color=color)
    without_color = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert "".join(c for c in without_color if not c.isprintable()).strip("\n") == ""


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", ":smile:", "[link=http://a]b[/link]"])
def test_names_are_no_markup(make_reading: MakeReading, name: str) -> None:
    reading = make_reading(rms=[1, 1], names=[name, "plain"], nan_count=[1, 0])
    text = render([diagnose(reading)], "nonfinite", title=name, width=120)
    assert text.startswith(f"{name}\nNonfinite. Gradients are NaN or infinite. In {name}.\n")
    assert row(text, name)[0] == "!"


def test_control_characters_are_removed(make_reading: MakeReading) -> None:
    name = "a\x1b[31mb\rc\nd\x9be\u202ef"
    reading = make_reading(rms=[1, 1], names=[name, "plain"], nan_count=[1, 0])
    text = render([diagnose(reading)], "nonfinite", title=name, width=120)
    assert row(text, "a[31mbcdef")[0] == "!"
    assert text.startswith("a[31mbcdef\nNonfinite. Gradients are NaN or infinite. In a[31mbcdef.\n")


@pytest.mark.parametrize("width", [80, 100])
def test_lines_fit_and_names_stay_whole(make_reading: MakeReading, width: int) -> None:
    names = [f"encoder/block_{i}/multi_head_attention/query" for i in range(12)]
    reading = make_reading(rms=[1e-38] * 12, names=names, size=9.99e8, inf_count=1234)
    text = render([diagnose(reading)], "nonfinite", width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "1.0e-38" in text
    assert "…" not in text
    # Without the table's other columns the pieces of a folded name join again.
    pieces = [line[8:].split() for line in text.splitlines()]
    joined = "".join(words[0] for words in pieces if words)
    for name in names:
        assert name in joined


def test_color(make_reading: MakeReading, monkeypatch: pytest.MonkeyPatch) -> None:
    history = [diagnose(make_reading(rms=VANISHING))]
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;31mVanishing" in render(history, "vanishing", color=True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in render(history, "vanishing")


def test_in_a_notebook_too_the_text_is_returned(
    make_reading: MakeReading, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_jupyter(*_: Any) -> bool:
        return True

    monkeypatch.setattr("rich.console._is_jupyter", is_jupyter)
    assert "dense_0" in render([diagnose(make_reading())], "healthy")
