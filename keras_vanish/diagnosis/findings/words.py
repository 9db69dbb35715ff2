"""How messages to the user name layers."""

from __future__ import annotations

from collections.abc import Sequence

_MOST_NAMES = 6

#: A longer name is cut to this many characters: it would fill the screen.
LONGEST_NAME = 500


def named(words: str, layers: Sequence[str]) -> str:
    """Puts the names of layers in the place of `{layers}`; of many layers it names the first.

    Args:
        words: The message.
        layers: The names. They may hold braces.
    """
    names = ", ".join(name[:LONGEST_NAME] for name in layers[:_MOST_NAMES])
    if len(layers) > _MOST_NAMES:
        names += f" and {len(layers) - _MOST_NAMES} more"
    return words.replace("{layers}", names)
