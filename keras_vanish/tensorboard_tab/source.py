"""Readings from TensorBoard's data provider; the tab gets all of its data here."""

from __future__ import annotations

import contextlib
import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorboard.context import RequestContext
from tensorboard.data.provider import DataProvider, RunTagFilter, TensorDatum, TensorTimeSeries
from tensorboard.plugins.histogram import metadata as histogram_plugin

from keras_vanish.interventions import Intervention
from keras_vanish.logs.metadata import Description, described_by
from keras_vanish.logs.tags import INTERVENTIONS, PLUGIN, Kind, kind_of, labels, utf8
from keras_vanish.records.probed import Probed
from keras_vanish.records.readings import Reading
from keras_vanish.records.statistics import COLUMNS

# The fast loader's answers must stay below 256 MiB.
_MOST_BYTES = 220e6
_MOST_SAMPLES = 100_000
_CACHED_RUNS = 8

# Values that were written in one event share both: step and time.
_Moment = tuple[int, float]
# What a tag's metadata says, and its values.
_Series = tuple[Description, list[TensorDatum]]
# Experiment and run.
_Key = tuple[str, str]


@dataclass(frozen=True)
class StoredRun:
    """What TensorBoard holds of a run.

    Attributes:
        revision: A text that changes when there is more.
        readings: One a step, oldest first. If a step was written twice, the later one.
        interventions: What was done to the run, oldest first.
    """

    revision: str
    readings: tuple[Reading, ...]
    interventions: tuple[Intervention, ...]


class _Kept:
    """Keeps the runs that were read last."""

    def __init__(self) -> None:
        self._runs: OrderedDict[_Key, StoredRun] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, key: _Key, revision: str, read: Callable[[str], StoredRun]) -> StoredRun:
        """The run as it was read before, or read anew if its revision has changed."""
        # Requests for one page come together: only the first reads.
        with self._lock:
            found = self._runs.get(key)
            if found is None or found.revision != revision:
                found = read(revision)
            self._runs[key] = found
            self._runs.move_to_end(key)
            while len(self._runs) > _CACHED_RUNS:
                self._runs.popitem(last=False)
            return found


class Source:
    """Reads runs through TensorBoard's data provider, and keeps the last ones.

    Args:
        provider: The data provider.
    """

    def __init__(self, provider: DataProvider) -> None:
        self._provider = provider
        # Two, so that a request for little does not wait for a request for everything.
        self._plain = _Kept()
        self._whole = _Kept()

    def revisions(self, context: RequestContext, experiment: str) -> dict[str, str]:
        """The runs of the monitor, sorted by name, each with its revision."""
        listed = self._provider.list_tensors(context, experiment_id=experiment, plugin_name=PLUGIN)
        return {run: _revision(listed[run]) for run in sorted(listed)}

    def run(
        self, context: RequestContext, experiment: str, name: str, probed: bool = True
    ) -> StoredRun | None:
        """One run as it is now; None if there is no such run.

        Args:
            context: The context of the request.
            experiment: TensorBoard's name of the log directory.
            name: TensorBoard's name of the run.
            probed: Whether to read what the probe saw, and the interventions. Without them a run
                is read in half the time.
        """
        listed = self._provider.list_tensors(
            context,
            experiment_id=experiment,
            plugin_name=PLUGIN,
            run_tag_filter=RunTagFilter(runs=[name]),
        ).get(name)
        if listed is None:
            return None
        records = {tag: series for tag, series in listed.items() if kind_of(tag) == "record"}
        others = {tag: series for tag, series in listed.items() if tag not in records}

        def read(tags: Mapping[str, TensorTimeSeries]) -> dict[str, _Series]:
            return dict(self._series(context, experiment, name, tags))

        def read_plain(revision: str) -> StoredRun:
            return StoredRun(revision, _plain(read(records)), ())

        def read_whole(revision: str) -> StoredRun:
            plain = self._plain.run(key, _revision(records), read_plain)
            series = read(others)
            return StoredRun(revision, _probed(plain.readings, series), _interventions(series))

        key = experiment, name
        if probed:
            return self._whole.run(key, _revision(listed), read_whole)
        return self._plain.run(key, _revision(records), read_plain)

    def _series(
        self,
        context: RequestContext,
        experiment: str,
        run: str,
        listed: Mapping[str, TensorTimeSeries],
    ) -> Iterator[tuple[str, _Series]]:
        for tag, described in listed.items():
            try:
                description = described_by(tag, described.plugin_content)
            except ValueError:
                # Another version wrote it, or something else did.
                continue
            width = 8 * max(len(description.columns), len(COLUMNS))
            rows = max(1, len(description.names))
            most = min(_MOST_SAMPLES, int(_MOST_BYTES / (width * rows)) + 1)
            read = self._provider.read_tensors(
                context,
                experiment_id=experiment,
                plugin_name=PLUGIN,
                downsample=most,
                run_tag_filter=RunTagFilter(runs=[run], tags=[tag]),
            )
            yield tag, (description, list(read.get(run, {}).get(tag, ())))

    def histograms(
        self, context: RequestContext, experiment: str, run: str, reading: Reading, layer: str
    ) -> dict[str, list[TensorDatum]]:
        """The histograms of a layer's gradients over the steps that TensorBoard kept.

        Args:
            context: The context of the request.
            experiment: TensorBoard's name of the log directory.
            run: TensorBoard's name of the run.
            reading: A reading that has the layer.
            layer: The layer's name.

        Returns:
            Histograms by the variable's name, one a step. Each holds an array of shape `[k, 3]`:
            rows of left edge, right edge and count, over log10 of the magnitude.
        """
        label = dict(zip(reading.names, labels(reading.names)))[layer]
        prefix = utf8(f"gradients/{label}/")
        options = {"experiment_id": experiment, "plugin_name": histogram_plugin.PLUGIN_NAME}
        listed = self._provider.list_tensors(
            context, run_tag_filter=RunTagFilter(runs=[run]), **options
        )
        tags = [tag for tag in listed.get(run, ()) if tag.startswith(prefix)]
        if not tags:
            return {}
        read = self._provider.read_tensors(
            context,
            downsample=_MOST_SAMPLES,
            run_tag_filter=RunTagFilter(runs=[run], tags=tags),
            **options,
        ).get(run, {})
        return {
            tag[len(prefix) :]: [datum for datum in read[tag] if _is_histogram(datum.numpy)]
            for tag in sorted(read)
        }


def _revision(series: Mapping[str, TensorTimeSeries]) -> str:
    state = sorted((tag, one.max_step, one.max_wall_time) for tag, one in series.items())
    return hashlib.sha256(repr(state).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _is_histogram(array: npt.NDArray[Any]) -> bool:
    return array.ndim == 2 and array.shape[1] == 3 and array.dtype.kind == "f"


def _plain(series: Mapping[str, _Series]) -> tuple[Reading, ...]:
    """The readings that the records hold, without what the probe saw."""
    found: dict[_Moment, Reading] = {}
    for layers, data in series.values():
        for datum in data:
            try:
                table = layers.arranged(datum.numpy)
                reading = Reading(datum.step, datum.wall_time, layers.names, layers.units, table)
            except (TypeError, ValueError):
                # No version writes a table of this shape or type.
                continue
            found[datum.step, datum.wall_time] = reading
    by_step = {step: found[step, wall_time] for step, wall_time in sorted(found)}
    return tuple(by_step.values())


def _probed(readings: Sequence[Reading], series: Mapping[str, _Series]) -> tuple[Reading, ...]:
    """The readings with what the probe saw at the same moments."""
    seen: dict[_Moment, dict[Kind, tuple[Description, Any]]] = {}
    profiles: dict[_Moment, dict[str, Any]] = {}
    for description, data in series.values():
        for datum in data:
            moment = datum.step, datum.wall_time
            if description.kind == "profile":
                profiles.setdefault(moment, {})[description.names[0]] = datum.numpy
            else:
                seen.setdefault(moment, {})[description.kind] = description, datum.numpy
    found = []
    for reading in readings:
        moment = reading.step, reading.wall_time
        parts = seen.get(moment, {})
        if "activations" in parts:
            known = profiles.get(moment, {})
            # A part that no version writes is passed over.
            with contextlib.suppress(TypeError, ValueError):
                reading = replace(reading, probed=_probe(parts, known))
        found.append(reading)
    return tuple(found)


def _probe(parts: Mapping[Kind, tuple[Description, Any]], profiles: Mapping[str, Any]) -> Probed:
    """What the probe saw at one moment."""
    description, table = parts["activations"]
    names = description.names
    # Tags come in any order; data flows through the layers in this one.
    ordered = {name: profiles[name] for name in [*names, *profiles] if name in profiles}
    loss, shuffled = parts["loss"][1] if "loss" in parts else (math.nan, math.nan)
    return Probed(float(loss), float(shuffled), names, description.arranged(table), ordered)


def _interventions(series: Mapping[str, _Series]) -> tuple[Intervention, ...]:
    found: dict[int, tuple[float, list[Intervention]]] = {}
    _, data = series.get(INTERVENTIONS, (None, []))
    for datum in data:
        lines = np.ravel(datum.numpy).tolist()
        try:
            done = [Intervention.from_json(line.decode("utf-8")) for line in lines]
        except (AttributeError, ValueError):
            continue
        if datum.wall_time >= found.get(datum.step, (-math.inf,))[0]:
            found[datum.step] = datum.wall_time, done
    return tuple(one for step in sorted(found) for one in found[step][1])
