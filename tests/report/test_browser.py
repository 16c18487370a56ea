"""The page in a real browser, from a file: figures are drawn when they are seen, and all of them on paper."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pbt.report import write_report
from pbt.report.data.figures import NAMES
from pbt.runs.results import Run
from tests.dashboard.browser import Browser, Page

pytestmark = [
    pytest.mark.needs("browser"),
    pytest.mark.xdist_group("browser"),
]
DRAWN = "[...document.querySelectorAll('.js-plotly-plot')].map((one) => one.id.replace('figure-', ''))"
INK = "document.querySelector('#figure-{}').layout.template.layout.font.color"
DARK, LIGHT = "#d5d9de", "#1d2126"


@pytest.fixture(scope="module")
def written(climbed: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run."""
    return write_report(climbed, tmp_path_factory.mktemp("report") / "page.html")


@pytest.fixture
def page(browser: Browser, written: Path) -> Iterator[Page]:
    """The report with its first figure drawn."""
    found = browser.page()
    found.open(written.as_uri())
    found.until("!!document.querySelector('#figure-fitness .main-svg')")
    yield found
    found.close()


def test_the_report_answers_with_the_mouse(page: Page, browser: Browser, written: Path) -> None:
    """From a file as from a server: a member opens with its failures, and the address keeps the view."""
    page.until("!!document.querySelector('#fitness-along')")
    page.value("""(() => { const place = document.getElementById('fitness-along'); place.value = 'rounds';
      place.dispatchEvent(new Event('change')); })()""")
    page.until("document.querySelector('#figure-fitness').layout.xaxis.title.text === 'round of the member'")
    failing = "[...document.querySelectorAll('#members tbody tr')].find((row) => Number(row.cells[9].textContent) > 0)"
    page.value(f"{failing}.querySelector('button').click()")
    page.until("document.querySelector('dialog[open] pre')?.textContent.includes('ValueError: too fast <b>$x$</b>')")
    assert page.value("document.querySelectorAll('dialog b').length") == 0
    copy = browser.page()
    copy.open(page.value("location.href"))
    copy.until("document.querySelector('dialog[open] h2')?.textContent.startsWith('Member')")
    copy.until("document.querySelector('#figure-fitness').layout?.xaxis.title.text === 'round of the member'")
    assert page.errors == copy.errors == []
    copy.close()


def test_figures_are_drawn_when_they_are_seen(page: Page) -> None:
    """A figure far below is drawn once the reader goes there; what is there before has the same height."""
    assert NAMES[-1] not in page.value(DRAWN)
    for name in NAMES:
        page.value(f"document.getElementById({name!r}).scrollIntoView()")
        before = page.value(f"document.querySelector('#figure-{name}').clientHeight")
        page.until(f"!!document.querySelector('#figure-{name} .main-svg')")
        assert page.value(f"document.querySelector('#figure-{name}').clientHeight") == before
    assert set(page.value(DRAWN)) == set(NAMES)
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_a_link_leads_to_its_figure(page: Page) -> None:
    """The table of contents works by keyboard: the last figure is drawn, and stays where the reader went."""
    page.value(f"document.querySelector('nav a[href=\"#{NAMES[-1]}\"]').focus()")
    page.press("Enter", 13)
    page.call("Input.dispatchKeyEvent", type="char", text="\r", key="Enter")
    page.until(f"!!document.querySelector('#figure-{NAMES[-1]} .main-svg')")
    place = f"document.getElementById({NAMES[-1]!r}).getBoundingClientRect()"
    assert page.value(f"Math.abs({place}.top) < 1")


PAPER = """addEventListener('beforeprint', () => {
  window.paper = [...document.querySelectorAll('.js-plotly-plot')].map((one) => [
    one.id.replace('figure-', ''), one.layout.template.layout.font.color, one.querySelector('.main-svg').clientWidth,
    one.querySelectorAll('.main-svg path').length > 3]);
})"""


def test_paper_shows_all_figures(page: Page) -> None:
    """Printing draws also what was never seen, in light colors; afterwards the page is as it was."""
    page.scheme(dark=True)
    page.until(f"{INK.format(NAMES[0])} === '{DARK}'")
    page.value(PAPER)
    page.call("Page.printToPDF")
    assert sorted(page.value("window.paper")) == [[name, LIGHT, 700, True] for name in sorted(NAMES)]
    page.until(f"{INK.format(NAMES[0])} === '{DARK}'")
    page.until("document.querySelector('#figure-fitness .main-svg').clientWidth > 700")
    page.until(f"!document.querySelector('#figure-{NAMES[-1]} .main-svg')")
    page.value(f"document.getElementById({NAMES[-1]!r}).scrollIntoView()")
    page.until(f"!!document.querySelector('#figure-{NAMES[-1]} .main-svg') && {INK.format(NAMES[-1])} === '{DARK}'")
    assert page.errors == []


def test_every_figure_has_a_name(page: Page) -> None:
    """A screen reader finds all figures with their sentences, drawn or not."""
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    names = [
        node["name"]["value"] for node in nodes if not node["ignored"] and node["role"]["value"] in {"image", "img"}
    ]
    assert len(list(filter(None, names))) == len(NAMES)
    assert any("The best score went from" in name for name in names)
