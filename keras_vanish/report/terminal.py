"""The page that the table and the doctor share: the same words in the same order."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from keras_vanish.diagnosis import Diagnosis, representative
from keras_vanish.interventions import Intervention

NOTHING_RECORDED = (
    "Nothing has been recorded. Train for longer, or record more often: "
    "GradientMonitor(update_freq=1) records every update."
)

_MOST_DONE = 10

#: What is printed where a terminal lacks a character; the blocks of sparklines keep their order.
_STAND_INS = dict(zip("▁▂▃▄▅▆▇█▌·–─━…→▲", "1234567#-.---~>^"))

_STYLES = {
    "healthy": "green",
    "vanishing": "red",
    "exploding": "red",
    "nonfinite": "red",
    "unknown": "yellow",
}


def page(
    history: Sequence[Diagnosis],
    verdict: str,
    body: Callable[[int], Iterable[Text | Table]],
    interventions: Sequence[Intervention],
    title: str | None,
    width: int | None,
    color: bool,
) -> str:
    """Renders the verdict, the body, what was done, and the advice.

    Args:
        history: One diagnosis a recorded step, oldest first. If it is empty, the page says so.
        verdict: The run's verdict.
        body: Given the number of columns, yields the parts below the verdict.
        interventions: What was done to the run, oldest first. Only the last ones are shown.
        title: A heading, such as the run's name.
        width: Columns to fill; by default those of the terminal, or 80.
        color: Whether to colour the text with ANSI codes.

    Returns:
        Lines of text without blanks at their ends, each ended by a newline.
    """
    buffer = io.StringIO()
    output = _console(buffer, width, color)
    if title is not None:
        output.print(Text(clean(title), style="bold"))
    if not history:
        output.print(Text(NOTHING_RECORDED))
    else:
        output.print(_headline(history, verdict))
        for part in body(output.width):
            if isinstance(part, Text):
                # Rich joins what it prints, and forgets of a text how it is to be wrapped.
                output.print(part, no_wrap=part.no_wrap, overflow=part.overflow)
            else:
                output.print(part)
        for part in (*_was_done(interventions), *_to_try(explaining(history, verdict))):
            output.print(part)
    return "".join(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines())


def explaining(history: Sequence[Diagnosis], verdict: str) -> Diagnosis:
    """The diagnosis whose blame and advice are shown: the representative one, or else the last."""
    return representative(history, verdict) or history[-1]


def _console(buffer: io.StringIO, width: int | None, color: bool) -> Console:
    """A console that writes plain lines, or ones with the eight ANSI colours."""
    return Console(
        file=buffer,
        width=width,
        color_system="standard" if color else None,
        force_jupyter=False,
        legacy_windows=False,
        highlight=False,
    )


def clean(text: str) -> str:
    """The text without control characters, which would act on the terminal."""
    return "".join(c for c in text if c.isprintable())


def stand_in(error: UnicodeError) -> tuple[str, int]:
    """Replaces a character that an encoding lacks by a similar one, or by a question mark.

    Args:
        error: The error that `str.encode` raises.

    Returns:
        The text to encode instead, and the place to go on, as `codecs.register_error` wants.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_STAND_INS.get(c, "?") for c in lacking), error.end


def _headline(history: Sequence[Diagnosis], verdict: str) -> Text:
    """The run's verdict in words, and the verdict of the last reading if it differs."""
    speaking, last = representative(history, verdict), history[-1]
    text = Text.assemble((verdict.capitalize(), f"bold {_STYLES.get(verdict, '')}"), ". ")
    if speaking is not None:
        text.append(clean(speaking.sentence()))
    else:
        text.append("The readings so far are too few, or do not agree.")
    if last.verdict != verdict:
        text.append(f" The last reading by itself is {last.verdict}: {clean(last.sentence())}")
    return text


def _to_try(diagnosis: Diagnosis) -> Iterator[Text | Table]:
    """The advice under a heading; nothing if there is none."""
    if diagnosis.advice:
        yield Text("\nWhat to try:", style="bold")
    for place, advice in enumerate(diagnosis.advice, 1):
        line = Table.grid(padding=(0, 1))
        line.add_row(Text(f"{place}."), Text(advice))
        yield line


def _was_done(interventions: Sequence[Intervention]) -> Iterator[Text]:
    """The last interventions under a heading; nothing if there were none."""
    if interventions:
        yield Text("\nWhat was done:", style="bold")
    if len(interventions) > _MOST_DONE:
        yield Text(f"({len(interventions) - _MOST_DONE} earlier ones are not shown.)")
    for intervention in interventions[-_MOST_DONE:]:
        yield Text(clean(intervention.sentence()))
