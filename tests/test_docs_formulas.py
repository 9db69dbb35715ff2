"""The formulas and the figures in the pages are those of the code."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import keras
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keras_vanish import GradientMonitor, Reading, diagnosis
from keras_vanish.capture.tensorflow.activations import probe, units
from keras_vanish.capture.tensorflow.control import guard
from keras_vanish.capture.tensorflow.installation import SHORT_RUN
from keras_vanish.capture.tensorflow.statistics import sampling
from keras_vanish.diagnosis import AGREEING_READINGS, diagnose, loss_trend, profiles, progress
from keras_vanish.diagnosis.findings import finding, float16, time, update
from keras_vanish.interventions import (
    LearningRateControl,
    Observation,
    Reinitialization,
    Rollback,
    ZScoreClipping,
    observation,
    reinitialization,
)
from keras_vanish.interventions.learning_rate import control, trouble
from keras_vanish.interventions.rollback import trouble as rollback_trouble
from keras_vanish.records import recurrent, step_log
from keras_vanish.report import table, timeline
from keras_vanish.rescue.reinitialize import kernels, recurrent_cells
from keras_vanish.tensorboard_tab import loader, source

ROOT = Path(__file__).parents[1]

TEXTS = {
    path.stem.lower(): path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]
}

#: On one line each.
PAGES = {name: " ".join(text.split()) for name, text in TEXTS.items()}

CLIPPING, RATE, ROLLBACK, INIT = (
    ZScoreClipping(),
    LearningRateControl(),
    Rollback(),
    Reinitialization(),
)

_WORDS = {
    1 / 1000: "a thousandth",
    1 / 100: "one hundredth",
    1 / 10: "a tenth",
    1 / 4: "a quarter",
    1 / 2: "half",
    2: "two",
    3: "three",
    4: "four",
    5: "five",
    8: "eight",
}
_TIMES = {1: "once", 2: "twice", 4: "four times"}
_SHARES = {1 / 2: "halved", 1 / 4: "quartered"}
_ORDINALS = {1: "first", 2: "second"}


def number(value: float) -> str:
    """As the pages write it: `0.01`, `1e-5`, `1,000`."""
    if 0 < abs(value) < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-")
    return f"{value:,g}" if abs(value) < 1000 else f"{value:,.0f}"


def word(value: float, words: Mapping[float, str] = _WORDS) -> str:
    """In words, where there is one."""
    return words.get(round(value, 9), number(value))


def percent(value: float) -> str:
    return f"{100 * value:g}%"


def thousands(value: float) -> str:
    """Rounded to thousands."""
    return f"{round(value, -3):,}"


def default(name: str) -> Any:
    return inspect.signature(GradientMonitor).parameters[name].default


EVERY = default("update_freq")
DECISIVE_RATIO = update.DECISIVE_UPDATE / (1 - update.DECISIVE_UPDATE)

#: By page, what it says, with the figures that the code has.
SAYS: list[tuple[str, str]] = [
    ("readme", f"by default it is taken at every {EVERY}th step"),
    (
        "readme",
        f"{number(finding.THRESHOLD)}, where it is flagged, means that the first layers get "
        f"{word(10**-profiles.CRITICAL_DECAY)} of the largest gradient; each "
        f"{word(profiles.CRITICAL_DECAY)} decades more halve the distance to 1",
    ),
    ("readme", f"as long as no update reaches {word(profiles.OPENING_RATIO)} of a layer's weights"),
    ("readme", f"on at most {probe.SAMPLES} samples of the batch"),
    ("readme", f"stays above {percent(recurrent.HORIZON_SHARE)} of its value there"),
    ("readme", f"a bar of {word(table._BAR_DECADES)} cells, one a decade"),
    (
        "readme",
        f"from about {thousands(sampling._HISTOGRAM_SAMPLE[0])} to "
        f"{thousands(sampling._HISTOGRAM_SAMPLE[1])} entries of each variable, in evenly "
        f"spaced runs of {word(sampling.RUN)}, weight RMS and update ratio from about "
        f"{thousands(sampling._UPDATE_SAMPLE[0])} to {thousands(sampling._UPDATE_SAMPLE[1])}",
    ),
    ("score", f"At {number(finding.THRESHOLD)} or more a score is flagged"),
    ("score", f"A layer whose update ratio reaches {number(profiles.OPENING_RATIO)}"),
    ("score", f"more than {word(profiles.SPARSE_FRACTION)} of the entries are zero (`SPARSE_"),
    ("score", f"update ratio is {number(profiles.OPENING_RATIO)} or more (`OPENING_RATIO`)"),
    ("score", f"those of at most {probe.SAMPLES} samples"),
    (
        "score",
        f"The {number(profiles.CRITICAL_DECAY)} is `CRITICAL_DECAY`: a score of 0.5 says that the "
        f"gradient at the input is {word(10**-profiles.CRITICAL_DECAY)} of the largest",
    ),
    ("score", f"stays at {percent(recurrent.HORIZON_SHARE)} of its last value or more"),
    ("score", f"reaches {percent(progress.LEARNED_SHARE)} (`LEARNED_SHARE`)"),
    ("score", f"before there are {word(progress.PATIENCE)} readings (`PATIENCE`)"),
    ("score", f"the slope is less than {percent(units._FLAT)} of the steepest"),
    ("score", f"whose signal is {word(profiles.CRITICAL_DECAY)} decades or more below the largest"),
    ("score", f"those {word(profiles.CRITICAL_DECAY)} decades or more above the layer nearest"),
    ("score", f"recurrent layers that lose {word(profiles.CRITICAL_DECAY)} decades or more"),
    ("score", f"when {word(AGREEING_READINGS)} readings in a row agree (two, where"),
    (
        "score",
        f"an update of {word(DECISIVE_RATIO, _TIMES)} the weights "
        f"(`update >= {number(update.DECISIVE_UPDATE)}`)",
    ),
    ("pictures", f"or more layers than {timeline._MOST_ROWS},"),
    ("pictures", f"stays above {percent(recurrent.HORIZON_SHARE)} of what it is at the last"),
    ("pictures", f"are flagged at {number(finding.THRESHOLD)};"),
    ("faq", f"more than {word(profiles.SPARSE_FRACTION)} of the entries are exactly zero"),
    ("faq", f"`epsilon` ({number(keras.optimizers.Adam().epsilon)} in Keras)"),
    ("faq", f"Every {EVERY}th step by some milliseconds"),
    ("cost", f"by default it is every {EVERY}th"),
    ("cost", f"has fewer than {SHORT_RUN} steps, all run as one function"),
    ("cost", f"runs the model once more on up to {probe.SAMPLES} samples"),
    ("tab", f"From {number(finding.THRESHOLD)} on a reading is flagged"),
    ("tab", f"at least {percent(recurrent.HORIZON_SHARE)} of that at the last step"),
    ("tab", f"has it keep {number(loader.SAMPLES)} recorded steps a run"),
    ("tab", f"the last {word(source._CACHED_RUNS)} runs that were looked at"),
    ("gallery", f"float16 knows nothing between 0 and {number(float16.FLOAT16_SMALLEST)}"),
    (
        "rescue",
        f"reaches the norm of the weights{' ' if CLIPPING.reach == 1 else '?'}(`reach`): such a "
        "step of gradient descent would replace the weights rather than change them. It is "
        f"clipped to {word(guard.WITHIN_REACH)} of that",
    ),
    (
        "rescue",
        f"so far that the median update ratio becomes {number(RATE.aim)}), where the loss "
        "diverges, and where it oscillates without progress: the autocorrelation of neighbouring "
        f"losses, over {loss_trend.WINDOW} steps, is below {number(loss_trend.ALTERNATING)}",
    ),
    (
        "rescue",
        f"it also {'halves' if RATE.cut == 0.5 else '?'} the factor where the run does not "
        f"settle: for {2 * RATE.cool_down} steps the loss has not come down by "
        f"{percent(trouble._DOWN)}, while updates are above {number(RATE.aim)} of the "
        f"weights, or the loss lies {word(trouble._APART)} above its best",
    ),
    (
        "rescue",
        f"A lowered rate is {'doubled' if control._STEP == 2 else '?'} on trial, up to 1, "
        f"after {RATE.cool_down} steps without trouble: where updates are usually below "
        f"{number(control._SMALL * RATE.aim)} of the weights, the loss is within "
        f"{word(control._AT_BEST)} of its best, and looking at the input saves less than "
        f"{percent(control._DONE)} of it",
    ),
    ("rescue", f"Where the loss is not known, after {RATE.calm} steps"),
    ("rescue", f"A trial lasts {RATE.cool_down} steps"),
    (
        "rescue",
        f"the next trial comes after {RATE.calm} calm steps, and is of "
        f"{control._SMALL_STEP:.1f} times the rate",
    ),
    (
        "rescue",
        f"every update ratio below {number(RATE.tiny)}, nothing learned. If the loss rises within "
        f"{RATE.calm} steps, that is taken back",
    ),
    ("rescue", f"keeps the last {word(ROLLBACK.copies)} good states in memory"),
    ("rescue", f"where {word(loss_trend.NONFINITE)} losses or gradients in a row are not finite"),
    (
        "rescue",
        f"where one update was {word(DECISIVE_RATIO, _TIMES)} as large as the weights",
    ),
    (
        "rescue",
        f"where for {rollback_trouble._WORSE} steps gradients explode and the loss is "
        f"{word(rollback_trouble._NEAR)} above its first level",
    ),
    (
        "rescue",
        f"above {word(1 + loss_trend.FAR, _TIMES)} its first level for {loss_trend.FAR_STEPS} "
        f"steps, or more than half of its progress lost for {loss_trend.BACK_STEPS}",
    ),
    (
        "rescue",
        f"The rate is {word(ROLLBACK.cut, _SHARES)}, the second time in a row "
        f"{word(ROLLBACK.cut**2, _SHARES)}, and so on",
    ),
    (
        "rescue",
        f"a cut to less than {word(control.MUCH)} is corrected once, at the next look, if "
        f"updates are far below {number(RATE.aim)} of the weights then",
    ),
    ("rescue", f"After {word(ROLLBACK.attempts)} restorings in vain training is stopped"),
    (
        "rescue",
        f"has not saved {percent(progress.LEARNED_SHARE)} of the loss in two readings that follow "
        "each other (`docs/score.md`, learned share) or, without the probe, the loss has not "
        f"fallen by {percent(reinitialization.BEGUN)}",
    ),
    (
        "rescue",
        f"{number(kernels.Aim().spread)} for tanh, ReLU and its relatives, "
        f"{number(kernels.AIMS['sigmoid'].spread)} for sigmoid and "
        f"{number(kernels.AIMS['hard_sigmoid'].spread)} for hard sigmoid, by unit or channel; "
        f"{number(kernels.AIMS['hard_tanh'].spread)} for hard tanh",
    ),
    ("rescue", f"last layer gets small outputs, {number(kernels.AIMS['head'].spread)}; behind"),
    (
        "rescue",
        f"let less than {word(kernels._FIXED)} through, {number(kernels._FINAL_SPREAD)} at once",
    ),
    ("rescue", f"the spread counts as {number(kernels._QUIET)} of the whole size at least"),
    ("rescue", f"pre-activations spread by less than {number(recurrent_cells.INPUT_SPREAD)}"),
    (
        "rescue",
        f"After {reinitialization._STEPS} steps and {word(reinitialization._LOOKS)} readings "
        f"without success there is a {word(INIT.attempts, _ORDINALS)} attempt",
    ),
]


@pytest.mark.parametrize(("page", "sentence"), SAYS)
def test_the_page_has_the_figures_of_the_code(page: str, sentence: str) -> None:
    assert sentence in PAGES[page]


def test_tanh_and_rectifiers_have_one_aim() -> None:
    assert kernels.AIMS["tanh"].spread == kernels.Aim().spread
    assert "relu" not in kernels.AIMS
    by_unit = {name for name, aim in kernels.AIMS.items() if aim.by_unit}
    assert by_unit == {"sigmoid", "hard_sigmoid"}


def test_the_arguments_have_the_defaults_that_the_table_gives() -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| `(.+?)` \| ", TEXTS["readme"], re.M)
    given = {name: value for names, value in rows for name in re.findall(r"\w+", names)}
    parameters = inspect.signature(GradientMonitor).parameters
    assert given == {
        name: repr(parameter.default).replace("'", '"') for name, parameter in parameters.items()
    }


def test_the_constants_of_the_scores_have_the_values_that_the_table_gives() -> None:
    section = TEXTS["score"].split("## Constants")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+)", section, re.M)
    assert len(rows) == section.count("\n| `") > 0
    modules = (diagnosis, finding, profiles, progress, update, float16)
    known = {name: value for module in modules for name, value in vars(module).items()}
    assert {name: float(value) for name, value in rows} == {name: known[name] for name, _ in rows}


def test_the_table_of_scores() -> None:
    decades, values = (
        re.search(rf"^\| {name} \| (.+) \|$", TEXTS["score"], re.M)[1].split(" | ")  # type: ignore[index]
        for name in ("decades lost", "score")
    )
    assert len(decades) == len(values) > 2
    for lost, score in zip(decades, values):
        assert profiles.score_of_decay(float(lost)) == pytest.approx(float(score), abs=0.00501)


# Formulas. They are taken from the page as they stand there.

_FUNCTIONS = {name: getattr(math, name) for name in ("exp", "log", "log10", "sqrt")} | {
    "abs": abs,
    "max": max,
    "min": min,
}


def evaluated(formula: str, **names: Any) -> Any:
    """A formula of a page: `6 s` and `50 exp(m)` are products, `log 50` and `|x|` functions."""
    python = re.sub(r"\blog (\d+)", r"log(\1)", formula)
    python = re.sub(r"(\d) (?=[a-z(])", r"\1 * ", python)
    python = re.sub(r"\|([^|]+)\|", r"abs(\1)", python)
    return eval(python, {"__builtins__": {}, **_FUNCTIONS, **names})


def found(page: str, pattern: str) -> str:
    """The one place of a page that fits."""
    places = re.findall(pattern, PAGES[page])
    assert len(places) == 1, (pattern, places)
    return places[0]


#: What the theory says, and no function computes.
THEORY = (
    "dL/dh[k-1] = transpose(J[k]) dL/dh[k]        J[k] = diag(f'(z[k])) W[k]",
    "log10 |dL/dh[0]| = log10 |dL/dh[n]| + log10 g[1] + log10 g[2] + ... + log10 g[n]",
    "rms(dL/dW) = rms(h) * rms(dL/dz)        |dL/dz| = rms(dL/dz) * sqrt(units)",
)

ACTIVATION_SIGNAL = "signal = |dL/dh[k]| = rms(dL/dh[k]) * sqrt(size)"
WEIGHT_SIGNAL = "signal = gradient_rms / sqrt(1 - zero_fraction) * sqrt(units)"
SPARSE_SIGNAL = "signal = gradient_norm"
DECAY = "decay = min over k in the first third of   (max(p) - p[k]) / (1 - k / (n - 1))"
SCORE = "score = 1 - 2 ** (-decay / 2)"
SHARE = "share = (shuffled_loss - loss) / |shuffled_loss|"

TESTED = (ACTIVATION_SIGNAL, WEIGHT_SIGNAL, SPARSE_SIGNAL, DECAY, SCORE, SHARE)


def test_each_formula_of_the_scores_is_tested() -> None:
    blocks = re.findall(r"^```\n(.*?)\n```$", TEXTS["score"], re.M | re.S)
    assert sorted(blocks) == sorted((*THEORY, *TESTED))


positive = st.floats(1e-12, 1e12)
lists = st.lists(st.floats(-12, 6), min_size=2, max_size=20)


@given(positive, st.integers(1, 10**6))
def test_signal_of_an_activation(
    make_reading: Callable[..., Reading], make_probed: Callable[..., Any], rms: float, size: int
) -> None:
    reading = make_reading(rms=[1.0], probed=make_probed(rms=[rms], size=float(size)))
    ((_, signal),) = profiles.activation_profile(reading.layers, reading.activations)
    formula = ACTIVATION_SIGNAL.split(" = ")[-1].replace("dL/dh[k]", "dh")
    assert 10**signal == pytest.approx(evaluated(formula, rms=lambda dh: dh, dh=rms, size=size))


@given(positive, st.floats(0, 0.999), st.integers(1, 10**5))
def test_signal_of_weights(
    make_reading: Callable[..., Reading], rms: float, zero_fraction: float, units: int
) -> None:
    (layer,) = make_reading(rms=[rms], units=units, zero_fraction=zero_fraction).layers
    sparse = zero_fraction > profiles.SPARSE_FRACTION
    formula = (SPARSE_SIGNAL if sparse else WEIGHT_SIGNAL).split(" = ")[1]
    names = ("gradient_rms", "gradient_norm", "zero_fraction", "units")
    expected = evaluated(formula, **{name: getattr(layer, name) for name in names})
    assert profiles.signal(layer) == pytest.approx(expected)


def decay_of_the_page(p: list[float]) -> float:
    last = found("score", r"The first third is `k = 0, \.\.\., (.+?)`")
    each = DECAY.split("first third of")[1].strip()
    n = len(p)
    return min(evaluated(each, p=p, k=k, n=n) for k in range(evaluated(last, n=n) + 1))


@given(lists)
def test_decay(p: list[float]) -> None:
    assert profiles.decay(p) == pytest.approx(decay_of_the_page(p))


@given(st.floats(0, 40))
def test_score_of_decay(decay: float) -> None:
    expected = evaluated(SCORE.split(" = ")[1], decay=decay)
    assert profiles.score_of_decay(decay) == pytest.approx(expected)


@given(lists)
def test_components_of_depth(p: list[float]) -> None:
    """`weights` and `activations` are a score of decay, and `growth` that of the reverse."""
    formula = found("score", r"`weights` and `activations` are `(.+?)` of the two")
    assert "`growth` is the same of the reversed profile" in PAGES["score"]
    names = {"score_of_decay": profiles.score_of_decay, "decay": decay_of_the_page}
    profile = [(f"layer_{k}", value) for k, value in enumerate(p)]
    assert profiles.vanishing_by(profile) == pytest.approx(evaluated(formula, p=p, **names))
    assert profiles.growth_by(profile) == pytest.approx(evaluated(formula, p=p[::-1], **names))


@given(st.lists(st.floats(1e-60, 1e6), min_size=2, max_size=20))
def test_component_of_time(rms: list[float]) -> None:
    formula = found("score", r"The component is `(.+?)` over the time steps")
    least = float(found("score", r"too small for a float32 counts as (\S+?)\. "))
    course = progress.LearningProgress(count=progress.PATIENCE, share=0.0, best=0.0)
    expected = evaluated(
        formula,
        score_of_decay=profiles.score_of_decay,
        decay=decay_of_the_page,
        log10=lambda values: [math.log10(value) for value in values],
        rms=[max(value, least) for value in rms],
    )
    found_by_code = time.by_time({"lstm": recurrent.RecurrentReading(tuple(rms))}, course)
    assert found_by_code == pytest.approx(expected)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_learned_share(make_probed: Callable[..., Any], loss: float, shuffled_loss: float) -> None:
    assume(abs(shuffled_loss) > 1e-6)
    expected = evaluated(SHARE.split(" = ")[1], loss=loss, shuffled_loss=shuffled_loss)
    probed = make_probed(loss=loss, shuffled_loss=shuffled_loss)
    assert progress.learned_share(probed) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=9))
def test_component_of_the_update(make_reading: Callable[..., Reading], ratios: list[float]) -> None:
    formula = found("score", r"## `update` `(.+?)`, where `u` is the median over the layers")
    reading = make_reading(rms=[1.0] * len(ratios), weight_rms=1.0, update_rms=ratios)
    u = median(layer.update_ratio for layer in reading.layers)
    assert update.by_update(reading.layers) == pytest.approx(evaluated(formula, u=u))


@given(
    st.lists(st.sampled_from([0.0, 1e-9, 1e-4, 1e-2, 1.0]), min_size=1, max_size=6),
    st.lists(st.sampled_from([1e-8, 1e-3, 1.0, 1e3]), min_size=1, max_size=6),
    st.sampled_from([1e-5, 0.2, 0.99, 1.0, 1.01, 5.0]),
    st.sampled_from([math.nan, 0.0, 0.49, 0.5, 0.51, 1.0]),
    st.booleans(),
)
def test_the_order_of_verdicts(
    make_reading: Callable[..., Reading],
    make_probed: Callable[..., Any],
    rms: list[float],
    probed: list[float],
    ratio: float,
    saturated: float,
    nonfinite: bool,
) -> None:
    reading = make_reading(
        rms=rms,
        weight_rms=1.0,
        update_rms=ratio,
        nan_count=float(nonfinite),
        probed=make_probed(rms=probed, saturated_fraction=saturated),
    )
    d = diagnose(reading)
    items = re.split(r"\n\d\. ", TEXTS["score"].split("## The verdict")[1].split("\n## ")[0])[1:]
    names = {**d.components, "vanishing_score": d.vanishing_score}

    def conditions(item: str) -> list[bool]:
        return [evaluated(c, **names) for c in re.findall(r"`(\w+ >= [\d.]+)`", item)]

    assert [item.split("`")[1] for item in items] == [
        "nonfinite",
        "exploding",
        "vanishing",
        "unknown",
        "healthy",
    ]
    thrown, grown, flat = conditions(items[1])
    (vanished,) = conditions(items[2])
    depth = (d.components["weights"], d.components["activations"])
    expected = "healthy"
    if all(map(math.isnan, depth)):
        expected = "unknown"
    if vanished:
        expected = "vanishing"
    if thrown or (grown and not flat):
        expected = "exploding"
    if nonfinite:
        expected = "nonfinite"
    assert d.verdict == expected


@given(st.lists(st.floats(1e-6, 1e6), min_size=CLIPPING.history, max_size=60))
def test_limits_of_the_clipping(norms: list[float]) -> None:
    pattern = (
        r"it fires above all of `(.+?)`, `(.+?)` and (\w+) the largest norm so far, and clips to "
        r"`(.+?)`\."
    )
    above, times, beyond, clips_to = found("rescue", pattern)
    state = CLIPPING.after(CLIPPING.begin(), norms)
    names = {"m": state.mean, "s": math.sqrt(state.variance)}
    largest = {word: times for times, word in _TIMES.items()}[beyond] * math.exp(state.largest)
    fires_above = max(evaluated(above, **names), evaluated(times, **names), largest)
    limits = CLIPPING.limits(state)
    assert limits.fires_above == pytest.approx(fires_above)
    assert limits.clips_to == pytest.approx(evaluated(clips_to, **names))


@given(st.floats(0, 0.9999))
def test_the_update_ratio_that_is_right_by_momentum(momentum: float) -> None:
    pattern = (
        r"The ratio of ([\d.]+) is that of a momentum up to ([\d.]+)\. Above, all of this aims at "
        r"`(.+?)`: a gradient moves the weights by `(.+?)` times its first update"
    )
    ratio, usual, above, reach = found("rescue", pattern)
    log = step_log.StepLog(losses=(), norms=(), momentum=momentum)
    seen = Observation(0, None, "healthy", None, log)
    expected = float(ratio) if momentum <= float(usual) else evaluated(above, momentum=momentum)
    for aim in (RATE.aim, ROLLBACK.aim):
        assert seen.right_ratio(aim) == pytest.approx(expected)
    assert evaluated(reach, momentum=float(usual)) == pytest.approx(observation._USUAL_REACH)
