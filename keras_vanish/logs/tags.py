"""The tags under which event files hold a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

#: The plugin that owns the records, and the beginning of their tags.
PLUGIN = "gradient_flow"

#: What was done to a run, for programs: one string of JSON an intervention.
INTERVENTIONS = f"{PLUGIN}/interventions"

#: What a tag of the plugin holds. `"record"` is the statistics of the layers.
Kind = Literal["record", "activations", "profile", "loss", "interventions"]

_PREFIXES: dict[Kind, str] = {
    "activations": f"{PLUGIN}/activations/",
    "profile": f"{PLUGIN}/profile/",
    "loss": f"{PLUGIN}/loss/",
}


def tag_of(kind: Kind, identifier: str) -> str:
    """The tag of a record; `identifier` tells records of the same kind apart."""
    return f"{_PREFIXES.get(kind, f'{PLUGIN}/')}{identifier}"


def kind_of(tag: str) -> Kind:
    """What a tag of the plugin holds."""
    if tag == INTERVENTIONS:
        return "interventions"
    return next((kind for kind, prefix in _PREFIXES.items() if tag.startswith(prefix)), "record")


def labels(names: Sequence[str]) -> list[str]:
    """Layer names with their depth in front, so that they sort by depth: `03_dense`."""
    digits = max(2, len(str(len(names) - 1)))
    return [f"{depth:0{digits}d}_{name}" for depth, name in enumerate(names)]


def utf8(tag: str) -> str:
    """A tag as an event file can hold it: a lone surrogate in a name is no UTF-8."""
    return tag.encode("utf-8", "backslashreplace").decode("utf-8")
