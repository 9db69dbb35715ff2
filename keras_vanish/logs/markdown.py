"""A diagnosis as Markdown, for TensorBoard's text plugin."""

from __future__ import annotations

import functools

from keras_vanish.diagnosis import Diagnosis


def markdown(diagnosis: Diagnosis, verdict: str) -> str:
    """The diagnosis in words, as Markdown."""
    return _markdown(diagnosis.sentence(), verdict, diagnosis.blame, diagnosis.advice)


@functools.lru_cache(maxsize=8)
def _markdown(sentence: str, verdict: str, blame: tuple[str, ...], advice: tuple[str, ...]) -> str:
    parts = [f"**{escaped(sentence)}**", f"The run so far: {escaped(verdict)}\\."]
    for title, entries, mark in (
        ("Layers to blame:", blame, "-"),
        ("What to try:", advice, "1."),
    ):
        if entries:
            parts += [title, "\n".join(f"{mark} {escaped(entry)}" for entry in entries)]
    return "\n\n".join(parts)


# Layer names may hold anything: nothing of them may act as Markdown or HTML.
_ESCAPES = str.maketrans(
    {c: "\\" + c for c in "\\`*_{}[]()#+-.!"} | {c: f"&#{ord(c)};" for c in "<>&|~"}
)


def escaped(text: str) -> str:
    """Text that Markdown and HTML show as it is, without control characters."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return printable.translate(_ESCAPES)
