"""The tab in TensorBoard itself, in a real browser."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from keras_vanish.diagnosis import diagnose
from keras_vanish.interventions import Intervention
from keras_vanish.logs.histograms import Histograms
from keras_vanish.records.bins import BINS

Make = Callable[..., Any]

PATIENCE = 90_000
EVIL = "<img src=x onerror='top.hacked=1'><script>top.hacked=1</script>"
SICK, WELL, HOSTILE, LIVE = (f"{name}/gradients" for name in ("sick", "well", EVIL[:40], "live"))
STEPS = 20


@pytest.fixture(scope="module")
def logs(
    tmp_path_factory: pytest.TempPathFactory,
    write_run: Make,
    make_reading: Make,
    make_probed: Make,
) -> SimpleNamespace:
    """Four runs: one that is sick, one that is well, one with hostile names, one that goes on."""
    folder = tmp_path_factory.mktemp("logs")
    counts = np.zeros([2, BINS])
    counts[:, 90:110] = np.arange(20)
    histograms = Histograms(("dense_1", "dense_1"), ("kernel", "bias"), (190, 190), counts)
    done = [Intervention(100, "clip", f"the norm was large in {EVIL}", {"norm": 5}, {"norm": 1})]
    probed = make_probed(
        rms=[1e-9, 1e-6, 1e-3], profiles={"dense_1": np.logspace(-12, 0, 25)}, loss=1.0
    )
    sick = [
        make_reading(
            step=10 * step,
            rms=[1e-9, np.nan, 1e-3],
            nan_count=[0, np.nan, 0],
            probed=probed,
        )
        for step in range(STEPS)
    ]
    write_run(folder / "sick", sick, histograms, done)
    write_run(folder / "well", [make_reading(step=10 * step) for step in range(STEPS)])
    evil = make_reading(names=[EVIL, "\u202egnp.exe\x07", EVIL + "2"])
    write_run(folder / HOSTILE.removesuffix("/gradients"), [evil])
    writer = write_run(folder / "live", [make_reading(step=0)])

    def go_on(step: int) -> None:
        writer.write(diagnose(make_reading(step=step)), None, "healthy")

    return SimpleNamespace(folder=folder, go_on=go_on)


@pytest.fixture(scope="module")
def tensorboard(
    served: Make, logs: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    with served(logs.folder, tmp_path_factory.mktemp("served"), "--load_fast", "true") as address:
        yield address


def asked(address: str, path: str, **arguments: str) -> Any:
    query = urllib.parse.urlencode(arguments)
    with urllib.request.urlopen(f"{address}/data/plugin/gradient_flow/{path}?{query}") as answer:
        return json.load(answer)


def test_the_slow_loader_serves_the_same(
    served: Make, logs: SimpleNamespace, tensorboard: str, tmp_path: Path
) -> None:
    with served(logs.folder, tmp_path, "--load_fast", "false") as slow:
        found = []
        for address in (slow, tensorboard):
            for _ in range(600):
                scores = {"steps": []}
                if SICK in [run["run"] for run in asked(address, "runs")["runs"]]:
                    scores = asked(address, "scores", run=SICK)
                if len(scores["steps"]) == STEPS:
                    break
                time.sleep(0.1)
            found.append(scores)
    assert found[0] == found[1]
    assert found[0]["verdict"] == "vanishing"


@pytest.fixture
def tab(browser: Any, tensorboard: str) -> Iterator[Callable[..., Any]]:
    """Opens the tab: `tab(run, ..., **state)`; afterwards, nothing may have gone wrong."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(f"page error: {error}"))
    page.on(
        "console",
        lambda message: wrong.append(message.text) if message.type == "error" else None,
    )
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((tensorboard, "data:", "blob:"))
            else wrong.append(f"left the machine: {request.url}")
        ),
    )

    def opened(*runs: str, **state: object) -> Any:
        hash_ = "".join(
            f"&p.gradient_flow.{name}={urllib.parse.quote(json.dumps(value))}"
            for name, value in {"runs": runs, **state}.items()
        )
        page.goto(f"{tensorboard}/#gradient_flow{hash_}")
        frame = page.wait_for_selector(
            "iframe[src*='plugin_entry.html?name=gradient_flow']", timeout=PATIENCE
        ).content_frame()
        for run in runs:
            frame.wait_for_selector(f".panel[data-run={json.dumps(run)}][data-ready]")
        return frame

    context.set_default_timeout(PATIENCE)
    yield opened
    assert page.evaluate("window.hacked") is None
    context.close()
    assert wrong == []


def told(frame: Any, run: str) -> str:
    return str(frame.text_content(f".panel[data-run={json.dumps(run)}] .readout"))


def cell(frame: Any, run: str, *keys: str) -> str:
    """What the page says of the cell that the keys lead to, from the chosen layer's last step."""
    frame.focus(f".panel[data-run={json.dumps(run)}] .heatmap canvas")
    for key in ("ArrowRight", *keys):
        frame.page.keyboard.press(key)
    return told(frame, run)


def test_layers_and_values_are_right(tab: Make) -> None:
    frame = tab(SICK)
    assert frame.text_content(".verdict") == "▼ Vanishing"
    assert frame.text_content(".sentence").startswith("Gradients vanish on the way to the input.")
    assert cell(frame, SICK) == "dense_0 · Gradient RMS 1.0 × 10⁻⁹, step 190"
    assert cell(frame, SICK, "ArrowUp", "ArrowLeft") == ("dense_1 · Gradient RMS missing, step 180")
    assert cell(frame, SICK, "ArrowUp", "ArrowUp") == "dense_2 · Gradient RMS 0.001, step 190"


COLOURS = """() => {
    const canvas = document.querySelector(".heatmap canvas");
    const scale = canvas.width / canvas.clientWidth;
    const pen = canvas.getContext("2d");
    return [1, 3, 5].map((sixth) => [
        ...pen.getImageData(canvas.width * 0.55, canvas.height * sixth / 6, 1, 1).data.slice(0, 3),
    ]);
}"""


def test_colours_run_from_dark_to_light_and_missing_is_neither(tab: Make) -> None:
    frame = tab(SICK)
    output, missing, starved = frame.evaluate(COLOURS)
    # The ends of viridis.
    assert output == [253, 231, 37]
    assert starved == [68, 1, 84]
    assert missing not in (output, starved)
    assert max(missing) - min(missing) < 24


def test_the_reason_of_an_intervention_opens(tab: Make) -> None:
    frame = tab(SICK)
    frame.click(".marker")
    assert frame.text_content(".note") == (
        f"Step 100: clipped the gradient (norm 5 → 1): the norm was large in {EVIL}"
    )


def test_the_horizon_is_told(tab: Make) -> None:
    frame = tab(SICK)
    assert "now 4 of 24 steps back" in frame.text_content("h3:has-text('Through time')")


def test_a_layer_and_steps_are_chosen_and_stand_in_the_address(tab: Make) -> None:
    frame = tab(SICK)
    cell(frame, SICK, "ArrowUp", "Enter")
    frame.wait_for_selector(".panel[data-layer=dense_1]")
    assert frame.text_content("h3:has(b)") == "Layer dense_1"
    assert frame.locator("button.chip:has-text('kernel')").count() == 1
    cell(frame, SICK, "ArrowLeft", "Space")
    assert frame.locator("button.chip:has-text('step ')").all_text_contents() == [
        "step 180",
        "step 190",
    ]
    address = urllib.parse.unquote(frame.page.url)
    assert 'p.gradient_flow.layer="dense_1"' in address
    assert "p.gradient_flow.steps=[190,180]" in address
    frame.page.reload()
    again = frame.page.wait_for_selector("iframe[src*=gradient_flow]").content_frame()
    again.wait_for_selector(".panel[data-layer=dense_1][data-ready]")
    assert again.locator("button.chip:has-text('step ')").count() == 2


def test_runs_stand_side_by_side_with_one_range_of_colours(tab: Make) -> None:
    frame = tab(SICK, WELL)
    panels = frame.locator(".panel")
    boxes = [panels.nth(place).bounding_box() for place in range(2)]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["width"] == pytest.approx(boxes[1]["width"])
    assert panels.locator(".verdict").all_text_contents() == ["▼ Vanishing", "● Healthy"]
    frame.focus(".segments button")
    frame.page.keyboard.press("q")
    frame.wait_for_selector("[aria-checked=true]:has-text('Update ratio')")
    frame.wait_for_selector("h3:has-text('Update ratio by layer and step') >> nth=1")


def test_a_quantity_that_a_run_lacks_is_missing(tab: Make) -> None:
    frame = tab(SICK, WELL, quantity="activation_gradient_rms")
    assert cell(frame, WELL) == "dense_0 · Activation gradient missing, step 190"
    assert cell(frame, SICK) == "dense_0 · Activation gradient 1.0 × 10⁻⁹, step 190"


def test_hostile_names_are_only_text(tab: Make) -> None:
    frame = tab(HOSTILE)
    assert cell(frame, HOSTILE).startswith(f"{EVIL} · Gradient RMS 0.001")
    assert cell(frame, HOSTILE, "ArrowUp").startswith("\ufffdgnp.exe\ufffd · ")
    cell(frame, HOSTILE, "Enter")
    frame.wait_for_selector("h3:has-text('gnp.exe')")
    assert frame.locator(":is(main, nav, .tip, .note) :is(img, script)").count() == 0


def test_a_live_run_is_followed(tab: Make, logs: SimpleNamespace) -> None:
    frame = tab(LIVE)
    assert cell(frame, LIVE) == "dense_0 · Gradient RMS 0.001, step 0"
    before = frame.get_attribute(".panel", "data-ready")
    logs.go_on(10)
    frame.wait_for_selector(f".panel:not([data-ready='{before}'])")
    frame.page.keyboard.press("ArrowRight")
    assert told(frame, LIVE) == "dense_0 · Gradient RMS 0.001, step 10"


def test_dark_mode_follows_tensorboard(tab: Make) -> None:
    frame = tab(WELL)
    shade = "getComputedStyle(document.body).backgroundColor"
    light = frame.evaluate(shade)
    frame.page.evaluate("document.body.classList.add('dark-mode')")
    frame.wait_for_selector("html[data-theme=dark]")
    assert frame.evaluate(shade) != light


def test_table_and_picture_are_saved(tab: Make) -> None:
    frame = tab(SICK)
    with frame.page.expect_download() as saved:
        frame.click("text=CSV")
    assert saved.value.suggested_filename == "sick_gradient_rms.csv"
    assert Path(saved.value.path()).read_text().startswith("step,dense_0,dense_1,dense_2")
    with frame.page.expect_download() as saved:
        frame.click("text=PNG")
    assert saved.value.suggested_filename == "sick_gradient_rms.png"
    assert Path(saved.value.path()).read_bytes().startswith(b"\x89PNG")
