"""What a monitor says of its runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from keras_vanish.diagnosis import Diagnosis, Verdict, diagnose
from keras_vanish.interventions import Intervention
from keras_vanish.records.readings import Reading
from keras_vanish.report.summary import summary
from keras_vanish.report.table import render

MakeReading = Callable[..., Reading]
SICK = [1e-12, 1e-11, 1e-3]


@pytest.fixture
def history(make_reading: MakeReading) -> list[Diagnosis]:
    """Two readings of each of two optimizers in turn; the critic is sick."""
    found = []
    for step in (0, 10):
        found.append(diagnose(make_reading(step=step), optimizer="actor"))
        found.append(diagnose(make_reading(step=step, rms=SICK), optimizer="critic"))
    return found


def test_one_optimizer_is_one_table_with_what_was_done(make_reading: MakeReading) -> None:
    history = [diagnose(make_reading(step=step, rms=SICK)) for step in (0, 10)]
    done = [Intervention(10, "lower_rate", "test")]
    text = summary(history, {"": "vanishing"}, done, width=100)
    assert text == render(history, "vanishing", width=100, interventions=done)
    assert done[0].reason in text
    assert text != summary(history, {"": "vanishing"}, [], width=100)
    assert all(len(line) <= 60 for line in summary(history, {"": "vanishing"}, [], 60).splitlines())


def test_nothing_was_read_yet() -> None:
    assert summary([], {}, [], width=80) == render([], "unknown", width=80)


def test_several_optimizers_are_a_table_each(history: list[Diagnosis]) -> None:
    verdicts: dict[str, Verdict] = {"actor": "healthy", "critic": "vanishing"}
    text = summary(history, verdicts, [], width=80)
    actor, critic = history[::2], history[1::2]
    assert text == "\n".join(
        [
            render(actor, "healthy", title="actor", width=80),
            render(critic, "vanishing", title="critic", width=80),
        ]
    )
    assert text.index("actor") < text.index("critic")


@pytest.mark.parametrize(
    "verdicts", [{"critic": "vanishing"}, {"critic": "vanishing", "": "healthy"}]
)
def test_an_optimizer_with_a_name_is_told_by_it(
    verdicts: Mapping[str, Any], history: list[Diagnosis]
) -> None:
    plain = [dataclasses.replace(diagnosis, optimizer="") for diagnosis in history[::2]]
    text = summary([*plain, *history[1::2]], verdicts, [], width=80)
    assert "critic" in text
    assert ("Healthy." in text) == ("" in verdicts)
