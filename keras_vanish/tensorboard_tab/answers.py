"""The answers that the tab's page gets about a run: plain dictionaries and framed arrays."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from tensorboard.data.provider import TensorDatum

from keras_vanish.diagnosis import THRESHOLD, Diagnosis, Verdict, representative
from keras_vanish.logs.tags import utf8
from keras_vanish.records.quantities import (
    QUANTITIES,
    Matrix,
    Quantity,
    matrix,
    merged,
    shown,
    through_time,
)
from keras_vanish.records.readings import Reading
from keras_vanish.records.recurrent import HORIZON_SHARE
from keras_vanish.tensorboard_tab.source import StoredRun

_MOST_TIME_STEPS = 400
_MOST_RIDGES = 24
_LOOKED_AT = 20


def about(run: StoredRun) -> dict[str, Any]:
    """Lists the quantities, recurrent layers and interventions that a run has to show."""
    some = shown(run.readings, _LOOKED_AT)
    return {
        "quantities": [
            {"id": name, "label": quantity.label, "place": place}
            for place, (name, quantity) in enumerate(QUANTITIES.items())
            if any((~np.isnan(quantity.values(reading))).any() for reading in some)
        ],
        "recurrent": merged([list(reading.timesteps) for reading in some]),
        "horizon_share": HORIZON_SHARE,
        "interventions": [
            {
                "step": one.step,
                "action": one.action,
                "sentence": one.sentence(),
                "dry_run": one.dry_run,
            }
            for one in run.interventions
        ],
    }


def heatmap(run: StoredRun, quantity: Quantity, columns: int) -> bytes:
    """One quantity as a framed array of layers by steps; its log10 if its scale is `"log"`."""
    readings = shown(run.readings, columns)
    names, values = matrix(readings, quantity)
    header: dict[str, Any] = {"names": names, "steps": [reading.step for reading in readings]}
    header |= {"label": quantity.label, "scale": quantity.scale}
    return framed(header, _logged(values, quantity))


def time_map(run: StoredRun, layer: str, columns: int) -> bytes:
    """How far back the gradient reaches, as a framed array of log10 of the share of the last."""
    readings = shown(run.readings, columns)
    back, values, horizons = through_time(readings, layer, _MOST_TIME_STEPS)
    header = {
        "back": back,
        "horizons": _plain(horizons),
        "steps": [reading.step for reading in readings],
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        return framed(header, np.log10(values))


def _logged(values: Matrix, quantity: Quantity) -> Matrix:
    if quantity.scale == "share":
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log10(values)


def framed(header: dict[str, Any], values: Matrix) -> bytes:
    """Packs an array for the page.

    Returns:
        The length of the header as four bytes, the header as JSON, padded with spaces to a
        multiple of four bytes, and the array as float32, row by row; all little-endian. A
        missing number is NaN, and the logarithm of zero is minus infinity.
    """
    text = json.dumps({**header, "shape": values.shape}).encode()
    text += b" " * (-len(text) % 4)
    return len(text).to_bytes(4, "little") + text + values.astype("<f4").tobytes()


def scores(verdict: Verdict, diagnoses: Sequence[Diagnosis], complete: bool) -> dict[str, Any]:
    """The scores over steps and the verdict in words.

    Args:
        verdict: The run's verdict.
        diagnoses: The diagnoses of its steps that were made so far, oldest first.
        complete: Whether these are all of them.
    """
    sentences = [diagnosis.sentence() for diagnosis in diagnoses]
    distinct = {sentence: place for place, sentence in enumerate(dict.fromkeys(sentences))}
    speaking = representative(diagnoses, verdict)
    return {
        "verdict": verdict,
        "sentence": speaking.sentence() if speaking else "The readings so far do not agree.",
        "blame": list(speaking.blame) if speaking else [],
        "advice": list(speaking.advice) if speaking else [],
        "threshold": THRESHOLD,
        "steps": [diagnosis.step for diagnosis in diagnoses],
        "vanishing": _plain(diagnosis.vanishing_score for diagnosis in diagnoses),
        "exploding": _plain(diagnosis.exploding_score for diagnosis in diagnoses),
        "verdicts": [diagnosis.verdict for diagnosis in diagnoses],
        "sentences": list(distinct),
        "says": [distinct[sentence] for sentence in sentences],
        "complete": complete,
    }


def curves(run: StoredRun, layer: str, columns: int) -> dict[str, Any]:
    """Every known quantity of one layer over steps."""
    readings = shown(run.readings, columns)
    found = []
    for name, quantity in QUANTITIES.items():
        values = [_value(reading, quantity, layer) for reading in readings]
        if not all(map(math.isnan, values)):
            logged = _logged(np.array(values), quantity).tolist()
            found.append(
                {
                    "id": name,
                    "label": quantity.label,
                    "scale": quantity.scale,
                    "values": _plain(logged),
                }
            )
    return {"steps": [reading.step for reading in readings], "curves": found}


def _value(reading: Reading, quantity: Quantity, layer: str) -> float:
    names = quantity.names(reading)
    return float(quantity.values(reading)[names.index(layer)]) if layer in names else math.nan


def ridges(histograms: dict[str, list[TensorDatum]]) -> list[dict[str, Any]]:
    """The histograms of a layer's variables at some steps, evenly over the run."""
    return [
        {
            "variable": variable,
            "ridges": [
                {"step": datum.step, "bins": _finite(datum.numpy).tolist()}
                for datum in _some(sorted(data, key=lambda datum: datum.step))
            ],
        }
        for variable, data in histograms.items()
        if data
    ]


def _some(data: Sequence[TensorDatum]) -> list[TensorDatum]:
    places = np.linspace(0, len(data) - 1, min(len(data), _MOST_RIDGES)).round()
    return [data[place] for place in dict.fromkeys(places.astype(int).tolist())]


def _finite(bins: Matrix) -> Matrix:
    return bins[np.isfinite(bins).all(axis=1)]


def table(run: StoredRun, quantity: Quantity) -> str:
    """One quantity as CSV, with a row a recorded step and a column a layer.

    A missing number is an empty cell.
    """
    names, values = matrix(run.readings, quantity)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["step", *map(_harmless, names)])
    for reading, row in zip(run.readings, values.T.tolist()):
        writer.writerow([reading.step, *("" if math.isnan(value) else value for value in row)])
    return text.getvalue()


def _harmless(name: str) -> str:
    """The name, such that no spreadsheet takes it for a formula."""
    # Before Python 3.11 the module csv does not write NUL.
    text = utf8(name).replace("\0", "\ufffd")
    return f"'{text}" if text[:1] in tuple("=+-@\t\r") and text else text


def _plain(values: Iterable[float]) -> list[float | str | None]:
    """Numbers for JSON, which knows neither NaN nor infinities."""
    return [
        None if math.isnan(value) else value if math.isfinite(value) else str(value)
        for value in values
    ]
