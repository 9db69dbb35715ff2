"""What the verdicts on labelled runs are worth: results, figures and their tables."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import peers
import runs
from outcomes import Outcome, justified

from keras_vanish.diagnosis import Diagnosis, verdicts, worst

Array = npt.NDArray[Any]

OURS = "keras-vanish"
RULES = (OURS, *peers.PEERS)
KINDS = ("vanishing", "exploding", "dying", "saturated", "healthy", "converged", "healing")
EXPECTED = {
    "vanishing": "vanishing",
    "dying": "vanishing",
    "saturated": "vanishing",
    "exploding": "exploding",
}


@dataclass(frozen=True)
class Result:
    """What was found on one run.

    Attributes:
        name: The run's, with its seed.
        kind: Its label.
        part: "choose" or "held out".
        justified: Whether its outcome agrees with its label.
        last: Number of the last step that was read.
        alarms: By rule, the alarms in the order of their steps.
        vanishing: Our largest vanishing score; NaN if never known.
        exploding: Our largest exploding score.
        verdict: Our verdict at the end.
    """

    name: str
    kind: str
    part: str
    justified: bool
    last: int
    alarms: Mapping[str, Sequence[tuple[int, str]]]
    vanishing: float
    exploding: float
    verdict: str

    @property
    def expected(self) -> str | None:
        """The alarm that is right, or None."""
        return EXPECTED.get(self.kind)

    def detected(self, rule: str) -> int | None:
        """Step of the first right alarm."""
        steps = [step for step, way in self.alarms[rule] if way == self.expected]
        return steps[0] if steps else None

    def false_alarm(self, rule: str) -> bool:
        """Whether there was an alarm and none is right; for a healing run, at the end."""
        if self.expected is not None:
            return False
        since = self.last if self.kind == "healing" else 0
        return any(step >= since for step, _ in self.alarms[rule])


def recall(results: Iterable[Result], rule: str) -> float:
    """Share of the runs with an expected alarm that got it; NaN if there are none."""
    found = [r.detected(rule) is not None for r in results if r.expected]
    return sum(found) / len(found) if found else math.nan


def precision(results: Iterable[Result], rule: str) -> float:
    """Share of right ones among the runs that were alarmed; NaN if none was."""
    right = wrong = 0
    for result in results:
        if result.detected(rule) is not None:
            right += 1
        elif result.false_alarm(rule) or (result.expected and result.alarms[rule]):
            wrong += 1
    return right / (right + wrong) if right + wrong else math.nan


def confusion(results: Iterable[Result], rule: str) -> dict[str, Counter[str]]:
    """By kind, how often which alarm was raised: the right one if it ever was, else the first.

    Without an alarm it is "healthy". Of a healing run only the end counts.
    """
    table: dict[str, Counter[str]] = {}
    for r in results:
        since = r.last if r.kind == "healing" else 0
        ways = [way for step, way in r.alarms[rule] if step >= since]
        called = r.expected if r.expected in ways else (ways[0] if ways else "healthy")
        table.setdefault(r.kind, Counter())[str(called)] += 1
    return table


def result_of(
    name: str,
    run: runs.Run,
    history: Sequence[Diagnosis],
    outcome: Outcome,
    alarms: Mapping[str, Sequence[tuple[int, str]]],
) -> Result:
    """Joins our steadied verdicts, at each reading, with the alarms of the peers."""
    steady = verdicts(history)
    ours = [
        (diagnosis.step, "vanishing" if verdict == "vanishing" else "exploding")
        for diagnosis, verdict in zip(history, steady)
        if verdict not in ("healthy", "unknown")
    ]
    return Result(
        name=name,
        kind=run.kind,
        part=run.part,
        justified=justified(run.kind, outcome),
        last=history[-1].step,
        alarms={OURS: ours, **alarms},
        vanishing=worst(*(diagnosis.vanishing_score for diagnosis in history)),
        exploding=worst(*(diagnosis.exploding_score for diagnosis in history)),
        verdict=steady[-1],
    )


def first_alarms(result: Result, rule: str) -> str:
    """Such as "v20 e40": vanishing at step 20, exploding at step 40."""
    first: dict[str, int] = {}
    for step, way in result.alarms[rule]:
        first.setdefault(way, step)
    return " ".join(f"{way[0]}{step}" for way, step in first.items()) or "–"


COLUMNS = (
    "run", "label", "part", "learned: start, fifth, end", "twin", "moved: early fifth, early, late",
    "peak, dead, flat", "largest scores, last verdict", *RULES,
)  # fmt: skip


def row(result: Result, outcome: Outcome) -> list[str]:
    """One run: the outcome, and for each rule its first alarms."""
    o = outcome
    return [
        result.name,
        result.kind + ("" if result.justified else ", not justified"),
        result.part,
        " ".join(_share(share) for share in (o.start, o.fifth, o.end)),
        _share(o.twin),
        f"{o.early_fifth:.2g} {o.early:.2g} {o.late:.2g}",
        f"{o.peak:.2g} {o.dead:.2f} {o.flat:.2f}",
        f"{result.vanishing:.2f} {result.exploding:.2f} {result.verdict}",
        *(first_alarms(result, rule) for rule in RULES),
    ]


def _share(share: float) -> str:
    if math.isnan(share):
        return "–"
    return f"{share:.2f}" if share > -10 else f"{share:.0e}"


def render(header: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool) -> str:
    """A table, in Markdown or in columns of spaces."""
    if markdown:
        lines = [header, ["---"] * len(header), *rows]
        return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    lines = [header, *rows]
    return "\n".join("  ".join(map(str.ljust, cells, widths)).rstrip() for cells in lines)


def scores(results: Sequence[Result]) -> list[list[str]]:
    """Precision and recall of each rule, and what it did on each kind."""
    by_kind = {kind: [r for r in results if r.kind == kind] for kind in KINDS}
    rows = []
    for rule in RULES:
        cells = [rule, f"{precision(results, rule):.2f}", f"{recall(results, rule):.2f}"]
        for kind, of_kind in by_kind.items():
            if kind in EXPECTED:
                cells.append(f"{recall(of_kind, rule):.2f}")
            else:
                cells.append(f"{sum(r.false_alarm(rule) for r in of_kind)}/{len(of_kind)}")
        rows.append(cells)
    return rows


def delays(results: Sequence[Result]) -> list[list[str]]:
    """Median and maximum of the steps until the right alarm, of each rule."""
    rows = []
    for rule in RULES:
        found = [step for r in results if (step := r.detected(rule)) is not None]
        if found:
            rows.append([rule, f"{statistics.median(found):.0f}", str(max(found))])
    return rows


def faults(results: Sequence[Result]) -> Iterator[str]:
    """Our misses, false alarms and late detections, and the early alarms of healing runs."""
    for r in results:
        step = r.detected(OURS)
        called = ", ".join(dict.fromkeys(way for _, way in r.alarms[OURS])) or "nothing"
        if r.expected and step is None:
            what = f"missed, called {called}"
        elif r.false_alarm(OURS):
            what = f"false alarm, {called} from step {r.alarms[OURS][0][0]}"
        elif step is not None and step > 50:
            what = f"late, at step {step}"
        elif r.kind == "healing" and r.alarms[OURS]:
            what = f"early alarm, {called} until step {r.alarms[OURS][-1][0]}"
        else:
            continue
        largest = f"vanishing {r.vanishing:.2f}, exploding {r.exploding:.2f}"
        yield f"- {r.kind}, {r.part}: {r.name}: {what}; largest {largest}; last {r.verdict}"


def report(results: Sequence[Result], markdown: bool) -> str:
    """All that is said of the runs together: those whose labels are justified."""
    known = [result for result in results if result.justified]
    counts = Counter(result.kind for result in known)
    listed = ", ".join(f"{kind} {counts[kind]}" for kind in KINDS)
    text = [f"{len(known)} of {len(results)} labels are justified: {listed}."]
    for part in ("choose", "held out", "both"):
        of_part = [r for r in known if part in (r.part, "both")]
        sizes = Counter(r.kind for r in of_part)
        header = ["rule", "precision", "recall", *(f"{kind} ({sizes[kind]})" for kind in KINDS)]
        text += [f"### {part.capitalize()}", render(header, scores(of_part), markdown)]
    text.append(
        "Under sick kinds: recall. Under healthy, converged and healing: runs with a false alarm; "
        "for healing, at the end."
    )
    header = ["rule", "median", "maximum"]
    text += ["### Steps until the right alarm", render(header, delays(known), markdown)]
    ways = ("healthy", "vanishing", "exploding")
    table = confusion(known, OURS)
    rows = [[kind, *(str(table[kind][way]) for way in ways)] for kind in KINDS if kind in table]
    text += ["### What we called each kind", render(["kind", *ways], rows, markdown)]
    text += ["### Our misses, false alarms, late and early ones", "\n".join(faults(known))]
    return "\n\n".join(text)
