"""Logs of every release are read by every way in which a run is read, and are trained on."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from werkzeug.test import Client

from keras_vanish import read
from keras_vanish.cli import main
from keras_vanish.diagnosis import verdict_of
from keras_vanish.logs.interventions_log import read_interventions
from keras_vanish.records.readings import Reading
from keras_vanish.tensorboard_tab.plugin import GradientFlowPlugin
from keras_vanish.tensorboard_tab.source import Source

FOLDER = Path(__file__).parent / "written_by"
RELEASES = sorted(path.stem for path in FOLDER.glob("*.zip"))
SAYS = {release: json.loads((FOLDER / f"{release}.json").read_text()) for release in RELEASES}
RUNS = [(release, run) for release in RELEASES for run in SAYS[release]]
KINDS = ["feed_forward", "recurrent", "two_optimizers", "interventions"]

#: The exit status of `keras-vanish doctor` by verdict.
STATUS = {"healthy": 0, "unknown": 0, "vanishing": 1, "exploding": 1, "nonfinite": 1}

approx = pytest.approx


def extracted(release: str, folder: Path) -> Path:
    with zipfile.ZipFile(FOLDER / f"{release}.zip") as archive:
        archive.extractall(folder)
    return folder


def stored(readings: list[Reading]) -> dict[str, Any]:
    """What the files say, as `make.says` has it, but for interventions."""
    last = readings[-1]
    return {
        "steps": [reading.step for reading in readings],
        "layers": list(last.names),
        "global_norms": approx([reading.global_norm for reading in readings], rel=1e-12),
        "losses": [reading.probed.loss for reading in readings if reading.probed is not None],
        "horizons": {name: recurrent.horizon for name, recurrent in last.timesteps.items()},
    }


def said(release: str, run: str) -> tuple[dict[str, Any], list[str], dict[str, Any]]:
    """What the release said is stored, what was done, and its diagnosis."""
    found = dict(SAYS[release][run]["stored"])
    return found, found.pop("interventions"), SAYS[release][run]["diagnosed"]


def test_each_release_left_a_log_of_each_kind() -> None:
    assert RELEASES
    for release in RELEASES:
        assert {run.split("/")[0] for run in SAYS[release]} == set(KINDS)


@pytest.mark.parametrize(("release", "run"), RUNS)
def test_read(tmp_path: Path, release: str, run: str) -> None:
    log_dir = extracted(release, tmp_path) / run
    history = read(log_dir)
    wanted, done, diagnosed = said(release, run)
    assert wanted == stored([diagnosis.reading for diagnosis in history])
    assert [one.to_json() for one in read_interventions(str(log_dir / "gradients"))] == done
    assert verdict_of(history) == diagnosed["verdict"]
    for name in ("vanishing", "exploding"):
        scores = [getattr(diagnosis, f"{name}_score") for diagnosis in history]
        assert scores == approx(diagnosed[f"{name}_scores"], rel=1e-12, abs=1e-12)
    assert [diagnosis.cause for diagnosis in history] == diagnosed["causes"]


@pytest.mark.parametrize(("release", "run"), RUNS)
def test_report_and_doctor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], release: str, run: str
) -> None:
    log_dir = extracted(release, tmp_path) / run
    wanted, done, diagnosed = said(release, run)
    verdict, steps = diagnosed["verdict"], wanted["steps"]
    assert main(["report", str(log_dir)]) == 0
    report = capsys.readouterr().out
    assert f"{verdict.capitalize()}. " in report
    assert f"Recorded {len(steps)} steps: {steps[0]} to {steps[-1]}." in " ".join(report.split())
    assert all(layer in report for layer in wanted["layers"])
    assert ("What was done:" in report) == bool(done)
    assert main(["doctor", "--json", str(log_dir)]) == STATUS[verdict]
    ((_, told),) = json.loads(capsys.readouterr().out)["runs"].items()
    assert told["verdict"] == verdict
    assert told["readings"] == len(steps)
    assert told["horizons"] == wanted["horizons"]
    assert len(told["interventions"]) == len(done)
    assert told["vanishing_score"] == approx(diagnosed["vanishing_scores"][-1], abs=1e-12)


@pytest.mark.parametrize("release", RELEASES)
def test_the_tab(tmp_path: Path, release: str) -> None:
    extracted(release, tmp_path)
    multiplexer = EventMultiplexer(tensor_size_guidance={"gradient_flow": 2000})
    multiplexer.AddRunsFromDirectory(str(tmp_path)).Reload()
    provider = MultiplexerDataProvider(multiplexer, str(tmp_path))
    source, apps = Source(provider), GradientFlowPlugin(TBContext(data_provider=provider))
    routes = apps.get_plugin_apps()
    assert set(source.revisions(RequestContext(), "")) == {f"{r}/gradients" for r in SAYS[release]}
    for run in SAYS[release]:
        wanted, done, diagnosed = said(release, run)
        found = source.run(RequestContext(), "", f"{run}/gradients")
        assert found is not None
        assert wanted == stored(list(found.readings))
        assert [one.to_json() for one in found.interventions] == done
        answer = Client(routes["/scores"]).get("/scores", query_string={"run": f"{run}/gradients"})
        assert answer.json["verdict"] == diagnosed["verdict"]
        assert answer.json["vanishing"] == approx(diagnosed["vanishing_scores"], abs=1e-12)


@pytest.fixture(scope="module")
def train() -> Callable[..., Any]:
    """`train(kind, log_dir, steps=40, after=0)` of `written_by/make.py`."""
    spec = importlib.util.spec_from_file_location("make", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.train


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("release", RELEASES)
def test_training_goes_on(
    tmp_path: Path, train: Callable[..., Any], release: str, kind: str
) -> None:
    """Warnings are errors, so that a run that is not taken up fails here."""
    log_dir = extracted(release, tmp_path) / kind
    monitor = train(kind, log_dir, steps=20, after=50)
    for run in (run for run in SAYS[release] if run.split("/")[0] == kind):
        wanted, done, _ = said(release, run)
        optimizer = run.partition("/")[2]
        history = [d for d in monitor.history if d.optimizer == optimizer]
        steps = [diagnosis.step for diagnosis in history]
        before = len(wanted["steps"])
        assert steps[:before] == wanted["steps"]
        assert len(steps) > before
        assert min(steps[before:]) >= 50
        assert wanted == stored([diagnosis.reading for diagnosis in history[:before]])
        assert [one.to_json() for one in monitor.interventions[: len(done)]] == done
        # What another process reads goes on as well.
        assert [diagnosis.step for diagnosis in read(tmp_path / run)] == steps


@pytest.mark.parametrize("release", RELEASES)
def test_flags_go_on_with_what_they_knew(
    tmp_path: Path, train: Callable[..., Any], release: str
) -> None:
    log_dir = extracted(release, tmp_path) / "interventions"
    path = log_dir / "gradients" / "state.json"

    def known() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def policy(state: dict[str, Any], name: str) -> dict[str, Any]:
        found: dict[str, Any] = state["policies"]["policies"][name]["state"]
        return found

    before = known()
    monitor = train("interventions", log_dir, steps=20, after=50)
    after = known()
    assert after["since"] == before["since"]
    assert policy(after, "clip")["count"] > policy(before, "clip")["count"]
    for name in ("rate", "rollback", "init"):
        now, then = policy(after, name)["trend"], policy(before, name)["trend"]
        assert now["count"] > then["count"]
        assert now["first"] == then["first"]
        assert now["high"] >= then["high"]
    assert policy(after, "rollback")["restores"] >= policy(before, "rollback")["restores"] > 0
    assert policy(after, "init")["looks"] > policy(before, "init")["looks"]
    assert len(monitor.interventions) >= len(said(release, "interventions")[1])
