"""The server's side of the tab: its addresses and who answers them."""

from __future__ import annotations

import functools
import importlib.resources
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import werkzeug
from tensorboard import errors, plugin_util
from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin

from keras_vanish.logs.tags import PLUGIN
from keras_vanish.records.quantities import QUANTITIES, Quantity, shown
from keras_vanish.tensorboard_tab import answers
from keras_vanish.tensorboard_tab.scoring import Scoring
from keras_vanish.tensorboard_tab.source import Source, StoredRun

_JAVASCRIPT = "application/javascript"
#: The page, by file; nothing else is served.
FILES = {
    "index.js": _JAVASCRIPT,
    "api.js": _JAVASCRIPT,
    "blocks.js": _JAVASCRIPT,
    "canvas.js": _JAVASCRIPT,
    "colors.js": _JAVASCRIPT,
    "elements.js": _JAVASCRIPT,
    "export.js": _JAVASCRIPT,
    "heatmap.js": _JAVASCRIPT,
    "host.js": _JAVASCRIPT,
    "layer.js": _JAVASCRIPT,
    "panel.js": _JAVASCRIPT,
    "plots.js": _JAVASCRIPT,
    "profile.js": _JAVASCRIPT,
    "ridges.js": _JAVASCRIPT,
    "scores.js": _JAVASCRIPT,
    "state.js": _JAVASCRIPT,
    "through_time.js": _JAVASCRIPT,
    "toolbar.js": _JAVASCRIPT,
    "style.css": "text/css",
}

_JSON = "application/json"
_MOST_COLUMNS = 4000
_SCORING_SECONDS = 0.3
_SCORED_RUNS = 16

_Answer = Callable[[werkzeug.Request], werkzeug.Response]


class GradientFlowPlugin(base_plugin.TBPlugin):
    """The tab "Gradient flow".

    Args:
        context: The context that TensorBoard gives to plugins. All data comes from its data
            provider.
    """

    plugin_name = PLUGIN

    def __init__(self, context: base_plugin.TBContext) -> None:
        self._source = Source(context.data_provider)
        self._scorings: OrderedDict[tuple[str, str], Scoring] = OrderedDict()
        self._lock = threading.Lock()

    def get_plugin_apps(self) -> dict[str, Any]:
        """The addresses, below `data/plugin/gradient_flow`."""
        asked: dict[str, _Answer] = {
            "/runs": self._runs,
            "/run": self._run,
            "/heatmap": self._heatmap,
            "/time": self._time,
            "/scores": self._scores,
            "/layer": self._layer,
            "/table.csv": self._table,
        }
        files: dict[str, _Answer] = {f"/{name}": functools.partial(_file, name) for name in FILES}
        answers_by_path = {**asked, **files}
        return {
            path: werkzeug.Request.application(answer) for path, answer in answers_by_path.items()
        }

    def is_active(self) -> bool:
        """Always False: TensorBoard finds out by itself whether the plugin has data."""
        return False

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """The module that draws the page, and the name of the tab."""
        return base_plugin.FrontendMetadata(es_module_path="/index.js", tab_name="Gradient flow")

    def _runs(self, request: werkzeug.Request) -> werkzeug.Response:
        revisions = self._source.revisions(*_asked_by(request))
        runs = [{"run": run, "revision": revision} for run, revision in revisions.items()]
        return http_util.Respond(request, {"runs": runs}, _JSON)

    def _run(self, request: werkzeug.Request) -> werkzeug.Response:
        return http_util.Respond(request, answers.about(self._found(request)), _JSON)

    def _heatmap(self, request: werkzeug.Request) -> werkzeug.Response:
        quantity, columns = _quantity(request), _columns(request)
        answer = answers.heatmap(self._found(request, quantity.probed), quantity, columns)
        return http_util.Respond(request, answer, "application/octet-stream")

    def _time(self, request: werkzeug.Request) -> werkzeug.Response:
        layer = _argument(request, "layer")
        answer = answers.time_map(self._found(request), layer, _columns(request))
        return http_util.Respond(request, answer, "application/octet-stream")

    def _scores(self, request: werkzeug.Request) -> werkzeug.Response:
        run = self._found(request)
        key = _asked_by(request)[1], _argument(request, "run")
        with self._lock:
            scoring = self._scorings.setdefault(key, Scoring())
            self._scorings.move_to_end(key)
            while len(self._scorings) > _SCORED_RUNS:
                self._scorings.popitem(last=False)
        seen = shown(run.readings, _columns(request))
        answer = answers.scores(*scoring.of(run.readings, seen, _SCORING_SECONDS))
        return http_util.Respond(request, answer, _JSON)

    def _layer(self, request: werkzeug.Request) -> werkzeug.Response:
        run, layer = self._found(request), _argument(request, "layer")
        answer = answers.curves(run, layer, _columns(request))
        reading = next((r for r in reversed(run.readings) if layer in r.names), None)
        histograms = {}
        if reading is not None:
            name = _argument(request, "run")
            histograms = self._source.histograms(*_asked_by(request), name, reading, layer)
        return http_util.Respond(
            request, {**answer, "histograms": answers.ridges(histograms)}, _JSON
        )

    def _table(self, request: werkzeug.Request) -> werkzeug.Response:
        quantity = _quantity(request)
        answer = answers.table(self._found(request, quantity.probed), quantity)
        headers = [("Content-Disposition", 'attachment; filename="gradient_flow.csv"')]
        return http_util.Respond(request, answer, "text/csv", headers=headers)

    def _found(self, request: werkzeug.Request, probed: bool = True) -> StoredRun:
        name = _argument(request, "run")
        run = self._source.run(*_asked_by(request), name, probed)
        if run is None:
            raise errors.NotFoundError(f"There is no such run. Received: run={name!r}.")
        return run


def _file(name: str, request: werkzeug.Request) -> werkzeug.Response:
    folder = importlib.resources.files("keras_vanish.tensorboard_tab")
    content = (folder / "static" / name).read_bytes()
    return http_util.Respond(request, content, FILES[name])


def _asked_by(request: werkzeug.Request) -> tuple[Any, str]:
    return plugin_util.context(request.environ), plugin_util.experiment_id(request.environ)


def _argument(request: werkzeug.Request, name: str) -> str:
    value = request.args.get(name)
    if value is None:
        raise errors.InvalidArgumentError(f"The address lacks {name}=.")
    return str(value)


def _quantity(request: werkzeug.Request) -> Quantity:
    name = _argument(request, "quantity")
    if name not in QUANTITIES:
        raise errors.InvalidArgumentError(
            f"There is no such quantity. Received: quantity={name!r}. "
            f"Choose one of {', '.join(QUANTITIES)}."
        )
    return QUANTITIES[name]


def _columns(request: werkzeug.Request) -> int:
    text = request.args.get("columns", "1000")
    if not (re.fullmatch("[1-9][0-9]{0,3}", text) and int(text) <= _MOST_COLUMNS):
        raise errors.InvalidArgumentError(
            f"Not a number of columns. Received: columns={text!r}. "
            f"Choose a whole number from 1 to {_MOST_COLUMNS}."
        )
    return int(text)
