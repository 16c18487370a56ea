"""Links of the pages: each one between two pages leads to a file and, with an anchor, to a heading of it."""

import itertools
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.helpers.paths import DOCS, ROOT

PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), ROOT / "config/config_params.md", ROOT / "models/README.md"])
PARSER = MarkdownIt("commonmark").enable("table")


def links(page: Path) -> list[str]:
    """The targets of the links and pictures of a page."""
    inline = [token for token in PARSER.parse(page.read_text(encoding="utf-8")) if token.type == "inline"]
    parts = [part for token in inline for part in token.children or []]
    found = [part.attrGet("href") or part.attrGet("src") for part in parts if part.type in ("link_open", "image")]
    return [str(target) for target in found]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as hosts of repositories make them."""
    tokens = PARSER.parse(page.read_text(encoding="utf-8"))
    heads = [after.content for token, after in itertools.pairwise(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link leads to a file of the repository, and its anchor is a heading of that file."""
    broken = []
    for link in links(page):
        target, _, anchor = link.partition("#")
        file = (page.parent / target) if target else page
        if re.match(r"[a-z]+:", link):
            continue
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(link)
    assert broken == []


def test_the_index_has_every_page() -> None:
    """docs/index.md, from which the site's navigation is made, links to every page once."""
    index = DOCS / "index.md"
    listed = [(DOCS / link).resolve() for link in links(index) if link.endswith(".md")]
    assert sorted(listed) == sorted(page for page in PAGES if page != index)
