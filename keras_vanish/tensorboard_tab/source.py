"""What TensorBoard holds of a run, as readings: all that the tab knows comes through here."""

from __future__ import annotations

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
from keras_vanish.logs.summaries import INTERVENTIONS, PLUGIN, described_by, labels, utf8
from keras_vanish.records.readings import COLUMNS, Probed, Reading

# The fast loader's answers must stay below 256 MiB.
_MOST_BYTES = 220e6
_MOST_SAMPLES = 100_000
_CACHED_RUNS = 8

# A row of the widest table, with what surrounds it.
_ROW_BYTES = 8 * len(COLUMNS)

# Values that were written in one event share both: step and time.
_Moment = tuple[int, float]
# What a tag's metadata says, and its values.
_Series = tuple[Any, list[TensorDatum]]
# Experiment and run.
_Key = tuple[str, str]


@dataclass(frozen=True)
class StoredRun:
    """What TensorBoard holds of a run.

    Attributes:
        revision: Changes when there is more.
        readings: One a step, oldest first. Where a step was written twice, the later one.
        interventions: What was done, oldest first.
    """

    revision: str
    readings: tuple[Reading, ...]
    interventions: tuple[Intervention, ...]


class _Kept:
    """The runs that were read last."""

    def __init__(self) -> None:
        self._runs: OrderedDict[_Key, StoredRun] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, key: _Key, revision: str, read: Callable[[str], StoredRun]) -> StoredRun:
        """A run that was read, if that is still how it is; else as it is read now."""
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
        # Apart, so that nobody who needs little waits for somebody who needs all.
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
            context: Of the request.
            experiment: TensorBoard's name of the log directory.
            name: TensorBoard's name of the run.
            probed: Whether it is asked for more than what each reading says of the weights'
                gradients. That alone is there in half the time.
        """
        listed = self._provider.list_tensors(
            context,
            experiment_id=experiment,
            plugin_name=PLUGIN,
            run_tag_filter=RunTagFilter(runs=[name]),
        ).get(name)
        if listed is None:
            return None
        records = {tag: series for tag, series in listed.items() if _kind(tag) == "record"}
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
                about = (
                    None if tag == INTERVENTIONS else described_by(tag, described.plugin_content)
                )
            except ValueError:
                # Written by another version, or by something else.
                continue
            names = about[0] if _kind(tag) == "record" and about else about
            rows = len(names or ())
            most = min(_MOST_SAMPLES, int(_MOST_BYTES / (_ROW_BYTES * max(1, rows))) + 1)
            read = self._provider.read_tensors(
                context,
                experiment_id=experiment,
                plugin_name=PLUGIN,
                downsample=most,
                run_tag_filter=RunTagFilter(runs=[run], tags=[tag]),
            )
            yield tag, (about, list(read.get(run, {}).get(tag, ())))

    def histograms(
        self, context: RequestContext, experiment: str, run: str, reading: Reading, layer: str
    ) -> dict[str, list[TensorDatum]]:
        """The histograms of a layer's gradients over the steps that TensorBoard kept.

        Args:
            context: Of the request.
            experiment: TensorBoard's name of the log directory.
            run: TensorBoard's name of the run.
            reading: A reading that has the layer.
            layer: The layer's name.

        Returns:
            By the variable's name, arrays of shape `[k, 3]`: rows of left edge, right edge
            and count, over log10 of the magnitude.
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


def _kind(tag: str) -> str:
    """`"record"`, `"activations"`, `"profile"`, `"loss"` or `"interventions"`."""
    parts = tag.split("/")
    return parts[1] if len(parts) == 3 or tag == INTERVENTIONS else "record"


def _plain(series: Mapping[str, _Series]) -> tuple[Reading, ...]:
    """What the records say, without what the probe saw."""
    found: dict[_Moment, Reading] = {}
    for (names, units), data in series.values():
        for datum in data:
            try:
                reading = Reading(datum.step, datum.wall_time, names, units, datum.numpy)
            except (TypeError, ValueError):
                # Of another shape than this version writes.
                continue
            found[datum.step, datum.wall_time] = reading
    by_step = {step: found[step, wall_time] for step, wall_time in sorted(found)}
    return tuple(by_step.values())


def _probed(readings: Sequence[Reading], series: Mapping[str, _Series]) -> tuple[Reading, ...]:
    """The readings with what the probe saw at the same moments."""
    seen: dict[_Moment, dict[str, Any]] = {}
    profiles: dict[_Moment, dict[str, Any]] = {}
    for tag, (about, data) in series.items():
        for datum in data:
            moment = datum.step, datum.wall_time
            if _kind(tag) == "profile":
                profiles.setdefault(moment, {})[about] = datum.numpy
            else:
                seen.setdefault(moment, {})[_kind(tag)] = about, datum.numpy
    found = []
    for reading in readings:
        moment = reading.step, reading.wall_time
        parts = seen.get(moment, {})
        if "activations" in parts:
            names, table = parts["activations"]
            known = profiles.get(moment, {})
            # Tags come in any order; data flows through the layers in this one.
            ordered = {name: known[name] for name in [*names, *known] if name in known}
            try:
                loss, shuffled = parts.get("loss", (None, (math.nan, math.nan)))[1]
                probed = Probed(float(loss), float(shuffled), names, table, ordered)
                reading = replace(reading, probed=probed)
            except (TypeError, ValueError):
                # Of another shape than this version writes.
                pass
        found.append(reading)
    return tuple(found)


def _interventions(series: Mapping[str, _Series]) -> tuple[Intervention, ...]:
    found: dict[int, tuple[float, list[Intervention]]] = {}
    for datum in series.get(INTERVENTIONS, (None, []))[1]:
        lines = np.ravel(datum.numpy).tolist()
        try:
            done = [Intervention.from_json(line.decode("utf-8")) for line in lines]
        except (AttributeError, ValueError):
            continue
        if datum.wall_time >= found.get(datum.step, (-math.inf,))[0]:
            found[datum.step] = datum.wall_time, done
    return tuple(one for step in sorted(found) for one in found[step][1])
