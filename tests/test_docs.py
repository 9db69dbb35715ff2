"""The pages in docs/: that they are whole, and fetch nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import keras_vanish
import keras_vanish.interventions

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def test_the_reference_has_every_public_name_once() -> None:
    named = re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text(), re.M)
    public = {f"keras_vanish.{name}" for name in keras_vanish.__all__}
    public |= {f"keras_vanish.interventions.{n}" for n in keras_vanish.interventions.__all__}
    assert len(named) == len(set(named))
    assert public <= set(named)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    targets = [link for link in links if "://" not in link]
    assert [target for target in targets if not (page.parent / target).exists()] == []


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
