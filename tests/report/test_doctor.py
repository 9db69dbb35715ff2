"""What the doctor says, and its picture, which keras_vanish/timeline.py draws."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
from factories import MakeProbed, MakeReading
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from keras_vanish.diagnosis import Diagnosis, diagnose, verdict_of
from keras_vanish.interventions import Intervention
from keras_vanish.report.doctor import course, findings, render
from keras_vanish.report.terminal import NOTHING_RECORDED

HEALTHY = [1e-2, 1e-2, 1e-2]
SICK = [1e-9, 1e-8, 1e-2]
KINDS = {"h": {"rms": HEALTHY}, "v": {"rms": SICK}, "n": {"rms": HEALTHY, "nan_count": 1.0}}


@pytest.fixture
def history(make_reading: MakeReading) -> Callable[[str], list[Diagnosis]]:
    """Diagnoses by letter, one every ten steps: h for healthy, v vanishing, n not finite."""

    def made(kinds: str) -> list[Diagnosis]:
        return [
            diagnose(make_reading(step=10 * place, **KINDS[kind]))
            for place, kind in enumerate(kinds)
        ]

    return made


MakeHistory = Callable[[str], list[Diagnosis]]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ("h", [("unknown", 0)]),
        ("hhhh", [("healthy", 0)]),
        ("n", [("nonfinite", 0)]),
        ("vvvhhh", [("vanishing", 0), ("healthy", 30)]),
        # Two that agree are not enough later.
        ("vvvhhv", [("vanishing", 0)]),
        ("hvhvvv", [("unknown", 0), ("vanishing", 30)]),
        ("hhhnhhh", [("healthy", 0), ("nonfinite", 30), ("healthy", 40)]),
    ],
)
def test_the_course_of_the_verdict(
    history: MakeHistory, kinds: str, expected: list[tuple[str, int]]
) -> None:
    assert course(history(kinds)) == expected


@settings(deadline=None, max_examples=50)
@given(st.text("hvn", min_size=1, max_size=12))
def test_the_course_ends_with_the_verdict_and_goes_forward(
    make_reading: MakeReading, kinds: str
) -> None:
    found = [diagnose(make_reading(step=n, **KINDS[kind])) for n, kind in enumerate(kinds)]
    passed = course(found)
    assert passed[-1][0] == verdict_of(found)
    steps = [step for _, step in passed]
    assert steps == sorted(set(steps))
    assert all(one != other for (one, _), (other, _) in zip(passed, passed[1:]))


def test_the_picture(history: MakeHistory) -> None:
    text = render(history("vvvvhhhh"), title="run", width=80)
    assert text == (
        "run\n"
        "Healthy. Gradients reach the whole network.\n"
        "Course: vanishing since step 0, healthy since step 40.\n"
        "\n"
        "Gradient RMS, from the layer next to the output down to the input:\n"
        "    2 dense_2     ████████ 1.0e-02\n"
        "    1 dense_1     ▂▂▂▂████ 1.0e-02\n"
        "    0 dense_0     ▁▁▁▁████ 1.0e-02\n"
        "                  step 0 to 70\n"
        "█ from 1e-2, each lower block a decade less, ▁ below 1e-8\n"
        "0 exactly zero, · not known, X NaN or Inf\n"
        "\n"
        "vanishing score   ████▁▁▁▁ 0.00\n"
        "exploding score   ▁▁▁▁▁▁▁▁ 0.00\n"
        "▅ and higher is flagged, from 0.5\n"
    )


def test_an_ill_run_is_told_whom_to_blame_and_what_to_try(history: MakeHistory) -> None:
    text = render(history("hhhvvv"), width=100)
    assert text.startswith(
        "Vanishing. Gradients vanish on the way to the input. Starved: dense_0, dense_1.\n"
        "Course: healthy since step 0, vanishing since step 30.\n"
    )
    marked = [line.split()[2] for line in text.splitlines() if line.startswith("!")]
    assert marked == ["dense_1", "dense_0"]
    assert "What to try:\n1. Replace sigmoid" in text


def test_what_was_done_stands_under_its_step(history: MakeHistory) -> None:
    acts = [Intervention(34, "lower_rate", "as a test", {}, {})]
    lines = render(history("vvvvhhhh"), acts, width=80).splitlines()
    (picture,) = [line for line in lines if " dense_0 " in line]
    (done,) = [line for line in lines if line.startswith("done")]
    assert done.index("▲") == picture.index("█") - 1
    assert "Step 34: lowered the learning rate: as a test" in lines


def test_only_the_last_changes_of_a_restless_verdict_are_told(history: MakeHistory) -> None:
    text = " ".join(render(history("hhh" + "nhhh" * 5), width=80).split())
    assert "Course: … nonfinite since step 110, healthy since step 120, nonfinite" in text


def test_the_horizon(make_reading: MakeReading, make_probed: MakeProbed) -> None:
    profiles = [{"lstm": [0.0] * (8 - n) + [1.0] * (n + 1)} for n in range(9)]
    found = [
        diagnose(make_reading(step=n, probed=make_probed(profiles=profile)))
        for n, profile in enumerate(profiles)
    ]
    assert "horizon lstm      ▁▂▃▄▅▆▇██ 8 of 8\n" in render(found, width=80)


def test_nothing_recorded() -> None:
    assert render([], title="run", width=200) == f"run\n{NOTHING_RECORDED}\n"


def test_what_is_missing_is_shown_as_missing(make_reading: MakeReading) -> None:
    readings = (
        make_reading(step=0, names=("a", "b"), rms=[1e-2, 1e-2]),
        make_reading(step=1, names=("b", "c"), rms=[1e-2, 0.0]),
        make_reading(step=2, names=("b", "c"), rms=[1e-2, math.nan]),
    )
    text = render([diagnose(reading) for reading in readings], width=80)
    lines = [line.split() for line in text.splitlines()]
    assert "a" not in [line[1] for line in lines if len(line) == 4]
    assert ["1", "c", "·0·", "·"] in lines
    assert ["0", "b", "███", "1.0e-02"] in lines


def test_many_layers_share_lines(make_reading: MakeReading) -> None:
    rms = [1e-9] * 300 + [1e-2] * 200
    found = [diagnose(make_reading(step=step, rms=rms)) for step in range(3)]
    text = render(found, width=80)
    lines = [line for line in text.splitlines() if line.endswith(("███", "▁▁▁"))]
    assert len(lines) == 40
    shown = [line.split() for line in lines]
    assert ["487–499", "dense_487", "███"] in shown
    assert ["!", "0–11", "dense_0", "▁▁▁"] in shown
    assert sum(line.startswith("!") for line in lines) == 24


@pytest.mark.parametrize("width", [30, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(history: MakeHistory, width: int) -> None:
    text = render(history("vvhh" * 200), width=width)
    assert max(map(cell_len, text.splitlines())) <= width


def test_a_narrow_terminal_cuts_lines_and_does_not_wrap_them(history: MakeHistory) -> None:
    lines = render(history("v" * 20), width=24).splitlines()
    assert [line for line in lines if "██" in line] == [
        "    2 dense_2     ██████",
        "vanishing score   ██████",
    ]


def test_what_is_not_finite_is_marked(history: MakeHistory) -> None:
    text = render(history("hnh"), width=80)
    assert "!   1 dense_1     █X█ 1.0e-02\n" in text


@pytest.mark.parametrize("name", ["nested/" * 20 + "last", "層" * 30 + "last", "a\x1b[31m\nlast"])
def test_names_keep_their_end_and_the_columns(make_reading: MakeReading, name: str) -> None:
    found = [diagnose(make_reading(step=s, rms=[1e-2] * 2, names=(name, "b"))) for s in range(3)]
    text = render(found, width=80)
    first, second = [line for line in text.splitlines() if line.endswith("███ 1.0e-02")]
    assert second.split()[1].endswith("last")
    assert cell_len(first) == cell_len(second)
    assert "\x1b" not in text


def test_color_tells_nothing_by_itself(
    history: MakeHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    colored = render(history("vvvv"), width=80, color=True)
    assert "\x1b[31m" in colored
    plain = colored
    for code in ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[1;31m"):
        plain = plain.replace(code, "")
    assert plain.split() == render(history("vvvv"), width=80).split()


def test_findings(make_reading: MakeReading, make_probed: MakeProbed) -> None:
    probed = make_probed(profiles={"lstm": [1e-9, 1.0, 1.0], "gru": [0.0, 0.0]})
    found = [diagnose(make_reading(step=n, rms=SICK, probed=probed)) for n in range(3)]
    acts = [Intervention(1, "roll_back", "as a test", {}, {})]
    told = findings(found, acts)
    assert told == {
        "verdict": "vanishing",
        "since_step": 0,
        "last_step": 2,
        "readings": 3,
        "vanishing_score": found[-1].vanishing_score,
        "exploding_score": found[-1].exploding_score,
        "cause": "weights",
        "blame": ["dense_0", "dense_1"],
        "advice": list(found[-1].advice),
        "horizons": {"lstm": 1.0, "gru": None},
        "interventions": ["Step 1: rolled back: as a test"],
    }
    json.dumps(told, allow_nan=False)


def test_findings_of_too_little(make_reading: MakeReading) -> None:
    assert findings([], []) == {"verdict": "unknown", "readings": 0}
    told = findings([diagnose(make_reading(rms=[0.0]))], [])
    assert told["verdict"] == "unknown"
    assert told["vanishing_score"] is None
    # The one reading is not yet a verdict on the run: nobody is blamed for it.
    told = findings([diagnose(make_reading(rms=SICK))], [])
    assert (told["verdict"], told["cause"], told["blame"]) == ("unknown", "", [])
