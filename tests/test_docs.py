"""The pages in docs/: that they are whole, and fetch nothing."""

from __future__ import annotations

import importlib
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import keras_vanish
import keras_vanish.interventions

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
LINKED = [*PAGES, ROOT / "README.md"]


def documented() -> list[str]:
    return re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text(), re.M)


def test_the_reference_has_every_public_name_once() -> None:
    named = documented()
    public = {f"keras_vanish.{name}" for name in keras_vanish.__all__}
    public |= {f"keras_vanish.interventions.{n}" for n in keras_vanish.interventions.__all__}
    assert len(named) == len(set(named))
    # A second name of what has an entry is named in a sentence.
    told = set(re.findall(r"`(keras_vanish\.[\w.]+)`", (DOCS / "api.md").read_text()))
    objects = [pkgutil.resolve_name(name) for name in named]
    others = {name for name in told & public if pkgutil.resolve_name(name) in objects}
    assert public <= set(named) | others


@pytest.mark.parametrize("name", documented())
def test_what_the_reference_names_can_be_imported(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert getattr(importlib.import_module(module), attribute) is not None


#: Of commit 1077044, the last before names moved: code that was written by it still runs.
EARLIER_REFERENCE = [
    "GradientMonitor",
    "read",
    "Diagnosis",
    "Reading",
    "LayerReading",
    "reading.Statistics",
    "reading.ActivationReading",
    "reading.RecurrentReading",
    "reading.Probed",
    "interventions.AdaptiveClipping",
    "interventions.Decision",
    "interventions.Intervention",
    "interventions.LearningRateControl",
    "interventions.Limits",
    "interventions.Look",
    "interventions.LossTrend",
    "interventions.NormClipping",
    "interventions.PercentileClipping",
    "interventions.Reinitialization",
    "interventions.Rollback",
    "interventions.ZScoreClipping",
]


@pytest.mark.parametrize("name", EARLIER_REFERENCE)
def test_what_an_earlier_reference_named_can_still_be_imported(name: str) -> None:
    module, _, attribute = f"keras_vanish.{name}".rpartition(".")
    found = getattr(importlib.import_module(module), attribute)
    # It is the object that the reference describes now, not a copy beside it.
    assert any(found is pkgutil.resolve_name(now) for now in documented())


def links(page: Path) -> list[tuple[Path, str]]:
    """Where a page's links within the repository lead: the file, and the place in it."""
    found = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    split = [link.partition("#") for link in found if "://" not in link]
    return [(page.parent / path if path else page, place) for path, _, place in split]


def places(page: Path) -> set[str]:
    """The anchors of a page: its headings, as GitHub and mkdocs name them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    if page.name != "api.md":
        return slugs
    methods = {f"{name}.{of}" for name in documented() for of in dir(pkgutil.resolve_name(name))}
    return slugs | set(documented()) | methods


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    # mkdocs looks at the pages in docs/ only, and needs packages that the tests do without.
    assert [str(target) for target, _ in links(page) if not target.exists()] == []
    dead = [f"{path.name}#{at}" for path, at in links(page) if at and at not in places(path)]
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_of_the_site_link_to_nothing_outside_of_it(page: Path) -> None:
    assert [str(path) for path, _ in links(page) if DOCS not in path.resolve().parents] == []


def test_make_docs_fails_on_dead_links_and_anchors(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    recipe = re.search(r"^docs:.*\n\t(.+)$", (ROOT / "Makefile").read_text(), re.M)
    assert recipe is not None
    command = recipe[1].replace(".venv/bin/mkdocs", f"{shlex.quote(sys.executable)} -m mkdocs")
    assert command != recipe[1]
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    (tmp_path / "keras_vanish").symlink_to(ROOT / "keras_vanish")
    page = tmp_path / "docs" / "faq.md"
    page.write_text(f"{page.read_text()}\n[one](nowhere.md) [other](score.md#nowhere)\n")

    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode != 0
    assert "a link 'nowhere.md'" in done.stderr
    assert "does not contain an anchor '#nowhere'" in done.stderr
    assert "Aborted with 2 warnings" in done.stdout + done.stderr


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    folders = "benchmarks|docs|examples|keras_vanish|tests"
    named = re.findall(rf"`(?:python )?((?:{folders})/[\w/.]+\.\w+)", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_show_nothing_from_elsewhere(page: Path) -> None:
    assert re.findall(r"!\[[^]]*\]\((?:\w+:)?//|<(?:img|script|iframe)\b", page.read_text()) == []


def test_the_site_fetches_no_fonts() -> None:
    assert "\n  font: false\n" in (ROOT / "mkdocs.yml").read_text()


def test_the_pictures_of_the_gallery() -> None:
    page = (DOCS / "gallery.md").read_text()
    shown = re.findall(r"!\[[^]]+\]\((gallery/\w+\.svg)\)", page)
    pictures = sorted(f"gallery/{path.name}" for path in (DOCS / "gallery").iterdir())
    assert sorted(shown) == pictures
    assert len(pictures) == 8
    for picture in pictures:
        assert (DOCS / picture).stat().st_size < 60_000
