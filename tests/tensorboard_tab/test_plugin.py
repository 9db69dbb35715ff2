"""The addresses of the tab, asked as a browser asks them."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_vanish.interventions import Intervention
from keras_vanish.logs.histograms import Histograms
from keras_vanish.records.bins import BINS
from keras_vanish.tensorboard_tab.plugin import FILES, GradientFlowPlugin

Make = Callable[..., Any]
STATIC = Path(__file__).parents[2] / "keras_vanish" / "tensorboard_tab" / "static"
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "=HYPERLINK(1)",
    "a\u202eb\x00c",
    "\ud800",
    "../../etc",
    "",
]


@pytest.fixture
def get(tmp_path: Path, write_run: Make, client_of: Make, make_reading: Make, make_probed: Make):
    """A client over a run of three steps, of which the gradients vanish."""
    probed = make_probed(rms=[1e-9, 1e-6, 1e-3], profiles={"dense_1": [1e-4, 1e-2, 1.0]})
    readings = [
        make_reading(step=10 * step, rms=[1e-9, 1e-6, 1e-3], probed=probed) for step in range(3)
    ]
    counts = np.zeros([1, BINS])
    counts[0, 100:103] = 1, 2, 1
    histograms = Histograms(("dense_1",), ("kernel",), (4,), counts)
    done = [Intervention(10, "clip", "it was too long", {"norm": 2}, {"norm": 1})]
    write_run(tmp_path / "first", readings, histograms, done)
    return client_of(tmp_path)


RUN = "first/gradients"


def unframed(data: bytes) -> tuple[dict[str, Any], Any]:
    length = int.from_bytes(data[:4], "little")
    assert length % 4 == 0
    header = json.loads(data[4 : 4 + length])
    return header, np.frombuffer(data[4 + length :], "<f4").reshape(header["shape"])


def test_runs_are_listed(get: Make) -> None:
    (run,) = get("/runs").json["runs"]
    assert run["run"] == RUN
    assert run["revision"]


def test_there_is_nothing_without_runs(tmp_path: Path, client_of: Make) -> None:
    assert client_of(tmp_path)("/runs").json == {"runs": []}


def test_a_run_tells_what_there_is_to_see(get: Make) -> None:
    answer = get("/run", run=RUN).json
    known = ["gradient_rms", "update_ratio", "activation_gradient_rms", "zero_fraction"]
    assert [one["id"] for one in answer["quantities"]] == known
    assert answer["recurrent"] == ["dense_1"]
    (done,) = answer["interventions"]
    assert done["step"] == 10
    assert done["sentence"] == "Step 10: clipped the gradient (norm 2 → 1): it was too long"


def test_the_heatmap_is_the_logarithm(get: Make) -> None:
    header, values = unframed(get("/heatmap", run=RUN, quantity="gradient_rms").data)
    assert header["names"] == ["dense_0", "dense_1", "dense_2"]
    assert header["steps"] == [0, 10, 20]
    np.testing.assert_allclose(values, np.repeat([[-9], [-6], [-3]], 3, axis=1))


def test_shares_are_not_logarithms(get: Make) -> None:
    header, values = unframed(get("/heatmap", run=RUN, quantity="zero_fraction").data)
    assert header["scale"] == "share"
    assert (values == 0).all()


def test_there_are_no_more_columns_than_asked_for(get: Make) -> None:
    header, values = unframed(get("/heatmap", run=RUN, quantity="gradient_rms", columns=2).data)
    assert header["steps"] == [10, 20]
    assert values.shape == (3, 2)


def test_zero_and_missing_and_nan_are_told_apart(
    tmp_path: Path, write_run: Make, client_of: Make, make_reading: Make
) -> None:
    reading = make_reading(rms=[0, np.nan, 1, 1], nan_count=[0, np.nan, 3, 0])
    write_run(tmp_path, [reading])
    answer = client_of(tmp_path)("/heatmap", run="gradients", quantity="gradient_rms")
    np.testing.assert_array_equal(unframed(answer.data)[1].ravel(), [-np.inf, np.nan, np.inf, 0])


def test_through_time(get: Make) -> None:
    header, values = unframed(get("/time", run=RUN, layer="dense_1").data)
    assert header["back"] == [0, 1, 2]
    assert header["horizons"] == [1, 1, 1]
    np.testing.assert_allclose(values, np.repeat([[0], [-2], [-4]], 3, axis=1), atol=1e-6)


def test_scores_and_verdict(get: Make) -> None:
    answer = get("/scores", run=RUN).json
    assert answer["verdict"] == "vanishing"
    assert answer["sentence"].startswith("Gradients vanish on the way to the input. Starved: ")
    assert answer["blame"] == ["dense_0", "dense_1"]
    assert answer["advice"]
    assert answer["steps"] == [0, 10, 20]
    assert answer["verdicts"] == ["vanishing"] * 3
    assert all(score > 0.5 for score in answer["vanishing"])
    assert answer["sentences"][answer["says"][0]] == answer["sentence"]
    assert answer["complete"]


def test_a_layer_over_steps(get: Make) -> None:
    answer = get("/layer", run=RUN, layer="dense_1").json
    curves = {curve["id"]: curve["values"] for curve in answer["curves"]}
    np.testing.assert_allclose(curves["gradient_rms"], [-6] * 3)
    np.testing.assert_allclose(curves["update_ratio"], [-3] * 3)
    (histogram,) = answer["histograms"]
    assert histogram["variable"] == "kernel"
    assert [ridge["step"] for ridge in histogram["ridges"]] == [0, 10, 20]
    assert [count for _, _, count in histogram["ridges"][0]["bins"]] == [1, 2, 1]


def test_a_layer_that_is_not_there_has_no_curves(get: Make) -> None:
    answer = get("/layer", run=RUN, layer="elsewhere").json
    assert answer["curves"] == []
    assert answer["histograms"] == []


def test_the_table_has_all_steps(get: Make) -> None:
    answer = get("/table.csv", run=RUN, quantity="gradient_rms")
    rows = list(csv.reader(io.StringIO(answer.text)))
    assert rows[0] == ["step", "dense_0", "dense_1", "dense_2"]
    assert [[float(value) for value in row] for row in rows[1:]] == [
        [step, 1e-9, 1e-6, 1e-3] for step in (0, 10, 20)
    ]


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("/run", {}, "lacks run="),
        ("/layer", {"run": RUN}, "lacks layer="),
        ("/heatmap", {"run": RUN, "quantity": "mass"}, "Received: quantity='mass'"),
        ("/heatmap", {"run": RUN, "quantity": "gradient_rms", "columns": 0}, "columns='0'"),
        ("/heatmap", {"run": RUN, "quantity": "gradient_rms", "columns": "٣"}, "columns="),
        ("/heatmap", {"run": RUN, "quantity": "gradient_rms", "columns": 10**9}, "columns="),
    ],
)
def test_bad_addresses_are_refused(
    get: Make, path: str, arguments: dict[str, Any], message: str
) -> None:
    from tensorboard.errors import InvalidArgumentError

    with pytest.raises(InvalidArgumentError, match=re.escape(message)):
        get(path, **arguments)


@pytest.mark.parametrize("path", ["/run", "/heatmap", "/time", "/scores", "/layer", "/table.csv"])
def test_an_unknown_run_is_not_found(get: Make, path: str) -> None:
    from tensorboard.errors import NotFoundError

    with pytest.raises(NotFoundError, match="Received: run='../first'"):
        get(path, run="../first", quantity="gradient_rms", layer="x")


@pytest.mark.parametrize("name", FILES)
def test_files_are_served_as_what_they_are(get: Make, name: str) -> None:
    answer = get(f"/{name}")
    assert answer.data == (STATIC / name).read_bytes()
    assert answer.mimetype == ("text/css" if name.endswith(".css") else "application/javascript")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_list_of_files_is_complete() -> None:
    assert {path.name for path in STATIC.iterdir()} == set(FILES)


def test_the_page_asks_for_nothing_from_elsewhere() -> None:
    for path in STATIC.iterdir():
        assert not re.findall(
            r"https?://|//[a-z]+\.[a-z]|innerHTML|insertAdjacent", path.read_text()
        )


def test_hostile_names_stay_names(
    tmp_path: Path, write_run: Make, client_of: Make, make_reading: Make
) -> None:
    reading = make_reading(rms=[1e-3] * len(HOSTILE), names=HOSTILE)
    write_run(tmp_path, [reading])
    get = client_of(tmp_path)
    header, _ = unframed(get("/heatmap", run="gradients", quantity="gradient_rms").data)
    assert header["names"] == HOSTILE
    answer = get("/table.csv", run="gradients", quantity="gradient_rms")
    assert answer.mimetype == "text/csv"
    head = next(csv.reader(io.StringIO(answer.text, newline="")))
    assert head[2] == "'=HYPERLINK(1)"
    for name in HOSTILE:
        assert (
            get("/layer", run="gradients", layer=name.encode("utf-8", "replace")).status_code == 200
        )


def test_the_front_end_is_a_module(client_of: Make, tmp_path: Path) -> None:
    metadata = GradientFlowPlugin.frontend_metadata(None)  # type: ignore[arg-type]
    assert metadata.es_module_path == "/index.js"
    assert metadata.tab_name == "Gradient flow"
