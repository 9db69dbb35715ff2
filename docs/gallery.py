"""Makes the gallery: `python docs/gallery.py` trains 16 runs, draws them, and writes gallery.md.

`python docs/gallery.py dead_relu` makes that section anew and keeps the others. Every figure and
every verdict on the page comes from the runs' event files. Needs matplotlib and scikit-learn; takes
a few minutes on two cores, and nothing from the network.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from drawing import HERE, Panel, heatmaps
from illnesses import ILLNESSES, Illness, Run, data
from keras import layers

import keras_vanish
from keras_vanish import Diagnosis, GradientMonitor
from keras_vanish.diagnosis import representative, verdict_of
from keras_vanish.records.quantities import QUANTITIES, matrix

STEPS, BATCH = 300, 32


@dataclass(frozen=True)
class Outcome:
    """What became of a run: its event files' history, and the figures over all digits."""

    history: list[Diagnosis]
    loss: float
    accuracy: float

    @property
    def verdict(self) -> str:
        """The verdict on the run."""
        return verdict_of(self.history)

    @property
    def words(self) -> str:
        """The verdict, as the monitor puts it."""
        return f"**{self.verdict.capitalize()}.** {self._speaking.sentence()}"

    @property
    def advice(self) -> tuple[str, ...]:
        """What the monitor advises."""
        return self._speaking.advice

    @property
    def _speaking(self) -> Diagnosis:
        speaking = representative(self.history, self.verdict)
        assert speaking is not None
        return speaking


def train(illness: Illness, run: Run) -> Outcome:
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(illness.precision)
    x, y = data(illness.recall)
    inputs = keras.Input(x.shape[1:])
    head = layers.Dense(10, dtype="float32", name="head")
    model = keras.Model(inputs, head(run.body(inputs)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(run.optimizer(), loss, metrics=["accuracy"], **run.compiled)
    order = np.concatenate([np.random.default_rng(e).permutation(len(x)) for e in range(6)])
    order = order[: STEPS * BATCH]
    with tempfile.TemporaryDirectory() as logs:
        monitor = GradientMonitor(logs, update_freq=10, histograms=False)
        model.fit(x[order], y[order], BATCH, callbacks=[monitor], verbose=0, shuffle=False)
        history = keras_vanish.read(logs)
    logits = model.predict(x, verbose=0)
    keras.config.set_dtype_policy("float32")
    return Outcome(history, float(np.mean(loss(y, logits))), float(np.mean(logits.argmax(1) == y)))


def panel(illness: Illness, title: str, history: Sequence[Diagnosis]) -> Panel:
    steps = [diagnosis.step for diagnosis in history]
    readings = [diagnosis.reading for diagnosis in history]
    if illness.shows == "time":
        seen = [next(iter(reading.timesteps.values())) for reading in readings]
        values = np.array([recurrent.rms for recurrent in seen]).T
        horizon = [len(values) - 1 - recurrent.horizon for recurrent in seen]
        return Panel(title, values, ["time step"], steps, horizon)
    names, values = matrix(readings, QUANTITIES[SHOWN[illness.shows]])
    return Panel(title, values, names, steps)


#: What the picture shows, as the tab in TensorBoard knows it.
SHOWN = {
    "gradient": "gradient_rms",
    "activations": "activation_gradient_rms",
    "saturated": "saturated_fraction",
    "zeros": "zero_fraction",
}

MEANING = {
    "gradient": "RMS of a layer's gradient",
    "activations": "RMS of dL/dh of a layer",
    "saturated": "share of saturated units of a layer",
    "zeros": "share of exact zeros in a layer's gradient",
    "time": "RMS of dL/dh at a time step",
}

HEAD = """\
# Gallery

One run for each illness, beside the same run cured. Small models on scikit-learn's digits,
{steps} updates with {batch} samples each, one seed; `python docs/gallery.py` trains them, draws the
pictures, and writes this page. Verdicts and advice are the monitor's own words, taken from the
event files; loss and accuracy are those over all digits at the end.

In each picture the input is at the bottom and training goes to the right. White is exactly zero,
hatched is not known, red is NaN or Inf. [How to read the pictures](pictures.md).
"""


def section(illness: Illness, ill: Outcome, cured: Outcome) -> str:
    rows = [
        f"| {label}: {run.code} | {outcome.words} | {outcome.loss:.2g} | {outcome.accuracy:.0%} |"
        for label, run, outcome in zip(illness.labels, (illness.ill, illness.cured), (ill, cured))
    ]
    first, second = illness.labels
    parts = [
        f"## {illness.title}",
        illness.words,
        f"![{MEANING[illness.shows]}: {first} on the left, {second} on the right]"
        f"(gallery/{illness.name}.svg)",
        illness.seen,
        "\n".join(["| | the monitor says | loss | accuracy |", "| --- | --- | --- | --- |", *rows]),
    ]
    if ill.advice:
        advice = "\n".join(f"{place}. {words}" for place, words in enumerate(ill.advice, 1))
        parts.append(f"It advises:\n\n{advice}")
    return "\n\n".join(parts) + "\n"


def main(names: Sequence[str]) -> None:
    """Makes the sections of these illnesses, or all; the others stay as they are on the page."""
    page = HERE / "gallery.md"
    (HERE / "gallery").mkdir(exist_ok=True)
    kept = re.split(r"^(?=## )", page.read_text(), flags=re.M)[1:] if names else []
    sections = {text.partition("\n")[0]: text.strip() + "\n" for text in kept}
    for illness in ILLNESSES:
        if names and illness.name not in names:
            continue
        outcomes = [train(illness, run) for run in (illness.ill, illness.cured)]
        panels = [
            panel(illness, f"{title}: {outcome.verdict}", outcome.history)
            for title, outcome in zip(illness.labels, outcomes)
        ]
        name = f"gallery/{illness.name}.svg"
        heatmaps(
            name,
            panels,
            MEANING[illness.shows],
            decades=illness.shows not in ("saturated", "zeros"),
        )
        text = section(illness, *outcomes)
        sections[text.partition("\n")[0]] = text
        print(text, flush=True)
    ordered = [sections[f"## {illness.title}"] for illness in ILLNESSES]
    page.write_text("\n".join([HEAD.format(steps=STEPS, batch=BATCH), *ordered]))


if __name__ == "__main__":
    main(sys.argv[1:])
