"""The page in a real browser: it draws, follows the run, keeps what the reader did, and everybody can use it."""

import asyncio
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pbt
from pbt.core.events import Ended
from pbt.dashboard import cache
from pbt.dashboard.cache import Answer, ResponseCache
from pbt.report.data.figures import NAMES
from tests.dashboard.browser import Browser, Page
from tests.dashboard.climbs import CLIMB, Client, Written, served

pytestmark = [
    pytest.mark.needs("browser"),
    pytest.mark.xdist_group("browser"),
]
HOSTILE = "<script>alert(1)<|script><img src=x onerror=alert(2)>"
DRAWN = "document.querySelectorAll('.js-plotly-plot .main-svg').length > 0"


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that looks and draws without its pauses, which save the time of a run that trains beside it."""
    monkeypatch.setattr(cache, "SHARE", 1.0)
    monkeypatch.setattr(cache, "PAUSE", 0.05)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with finished runs, one of them with a hostile name, one that is not begun, and one that is too old."""
    folder = tmp_path_factory.mktemp("runs")
    hparam = {"space": CLIMB["space"] | {"rule": pbt.Choice(("<b>a</b>", "c"))}}
    pbt.Experiment(**CLIMB | hparam).run(folder / HOSTILE, application={"score": HOSTILE, "note": HOSTILE})
    pbt.run(**CLIMB, run_dir=folder / "plain")
    Written(folder / "begun").store.close()
    Written(folder / "old").store.close()
    with sqlite3.connect(folder / "old" / "run.db") as connection:
        connection.execute("PRAGMA user_version = 0")
    return folder


@pytest.fixture(scope="module")
def client(runs: Path) -> Iterator[Client]:
    """A server of that folder."""
    with served(runs) as found:
        yield found


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, client: Client) -> Iterator[Visit]:
    """Opens a run by its name, and waits until it is shown; the pages are closed afterwards."""
    pages: list[Page] = []

    def open_(name: str = "plain", server: Client = client, **size: Any) -> Page:
        page = browser.page(**size)
        pages.append(page)
        page.open(f"http://127.0.0.1:{server.port}/")
        page.until("document.querySelector('#run').getAttribute('aria-busy') === 'false'")
        link = (
            f"[...document.querySelectorAll('#runs a')].find((a) => a.querySelector('.name').textContent === {name!r})"
        )
        page.value(f"{link}?.click()")
        page.until(f"document.querySelector('h1')?.textContent === {name!r}")
        return page

    yield open_
    for page in pages:
        page.close()


NUDGE = "document.dispatchEvent(new Event('visibilitychange'));"
"""The page asks at once, as when its tab comes to the front."""


def see(page: Page, name: str) -> None:
    """Go to a picture, and wait until it is drawn."""
    page.value(f"document.getElementById({name!r}).scrollIntoView()")
    page.until(f"!!document.querySelector('#{name} .js-plotly-plot .main-svg')")


def box(page: Page, name: str) -> list[float]:
    """Where a figure is: left, top, width, height."""
    script = f"document.querySelector('#{name} .figure').getBoundingClientRect()"
    found: list[float] = page.value(f"(({{x, y, width, height}}) => [x, y, width, height])({script})")
    return found


def test_every_figure_is_drawn(visit: Visit, client: Client) -> None:
    """Pictures draw as they come into view, not before, from this server alone, and without errors in the console."""
    page = visit()
    page.until(DRAWN)
    assert page.value("document.querySelectorAll('.js-plotly-plot').length") < len(NAMES)
    for name in NAMES:
        see(page, name)
        assert page.value(f"document.querySelectorAll('#{name} .main-svg path').length") > 3
    assert page.errors == []
    asked = {url.split("/")[2] for url in page.requests if not url.startswith(("data:", "blob:"))}
    assert asked == {f"127.0.0.1:{client.port}"}
    assert {status for _, status in page.statuses} <= {200, 304}


PAPER = """addEventListener('beforeprint', () => {
  window.paper = [...document.querySelectorAll('.js-plotly-plot')].map((one) => [
    one.closest('section').id, one.layout.template.layout.font.color, one.querySelector('.main-svg').clientWidth,
    one.querySelectorAll('.main-svg path').length > 3]);
})"""


def test_paper_shows_all_figures(visit: Visit) -> None:
    """Printing draws also what was never seen, in light colors; afterwards the page has its own again."""
    page = visit(dark=True)
    see(page, "fitness")
    page.value(PAPER)
    page.call("Page.printToPDF")
    assert sorted(page.value("window.paper")) == [[name, "#1d2126", 700, True] for name in sorted(NAMES)]
    see(page, "health")
    page.until("document.querySelector('#health .figure').layout.template.layout.font.color === '#d5d9de'")
    page.until("document.querySelector('#health .main-svg').clientWidth > 700")
    assert page.errors == []


def test_a_new_round_appears(tmp_path: Path, visit: Visit) -> None:
    """A round that is committed is in words and figures within seconds, without a reload."""
    written = Written(tmp_path / "live")
    written.round()
    with served(tmp_path) as server:
        page = visit("live", server)
        see(page, "health")
        page.value("window.same = true")
        for round_ in (2, 3):
            written.round()
            lead = "document.querySelector('#lead').textContent"
            page.until(f"{NUDGE} {lead}.includes('after round {round_}')", seconds=20)
            page.until(f"document.querySelector('#health .figure').data[0].x.length === {round_}", seconds=20)
        assert page.value("document.querySelector('#news').textContent") == "running · round 3 of 9"
        assert page.value("document.querySelector('#runs .state').textContent") == "running · round 3 of 9"
        assert page.value("document.title").startswith("▸ live")
        written.store.commit([Ended(round=3, why="finished")])
        written.store.close()
        page.until(f"{NUDGE} document.querySelector('#news').textContent.startsWith('finished')", seconds=20)
        page.until("document.querySelector('#lead').textContent.startsWith('3 members, 3 rounds')", seconds=20)
        assert page.value("window.same")
        assert page.errors == []


def test_what_the_reader_did_stays(tmp_path: Path, visit: Visit) -> None:
    """Zoom, a hidden line, the slider, an open table, the place on the page and the focus survive a new round."""
    written = Written(tmp_path / "live", members=4)
    for _ in range(4):
        written.round()
    with served(tmp_path) as server:
        page = visit("live", server)
        see(page, "plane")
        slider = "document.querySelector('#plane input')"
        page.value(f"{slider}.focus()")
        page.press("ArrowLeft", 37, times=2)
        assert page.value(f"{slider}.getAttribute('aria-valuetext')") == "after round 2"
        see(page, "schedules")
        page.value("document.querySelector('#schedules summary').click()")
        # The range of this axis is a part of the figure, and another one in the next round.
        see(page, "founders")
        shares = "document.querySelector('#founders .figure').layout.xaxis.range"
        x, y, width, height = box(page, "founders")
        page.drag((x + 0.3 * width, y + 0.5 * height), (x + 0.6 * width, y + 0.5 * height))
        part = page.until(f"{shares}[0] > 12 ? {shares} : null")
        see(page, "fitness")
        figure = "document.querySelector('#fitness .figure')"
        x, y, width, height = box(page, "fitness")
        page.drag((x + 0.3 * width, y + 0.4 * height), (x + 0.6 * width, y + 0.7 * height))
        zoomed = page.until(f"{figure}.layout.xaxis.autorange ? null : {figure}.layout.xaxis.range")
        heights = page.value(f"{figure}.layout.yaxis.range")
        legend = page.value(
            f"(({{x, y}}) => [x + 8, y + 8])({figure}.querySelectorAll('.legendtoggle')[2].getBoundingClientRect())"
        )
        page.drag((legend[0], legend[1]), (legend[0], legend[1]))
        hidden = page.until(f"{figure}._fullData.filter((t) => t.visible === 'legendonly').map((t) => t.name)")
        assert hidden == ["median"]
        page.value(f"{slider}.focus({{preventScroll: true}})")
        before = page.value("scrollY")
        written.round()
        page.until(f"{NUDGE} document.querySelector('#lead').textContent.includes('after round 5')", seconds=20)
        page.until(f"{figure}.data.some((t) => t.x.includes(50))", seconds=20)
        assert page.value(f"{figure}.layout.xaxis.range") == pytest.approx(zoomed)
        assert page.value(f"{figure}.layout.yaxis.range") == pytest.approx(heights)
        assert page.value(f"{figure}._fullData.filter((t) => t.visible === 'legendonly').map((t) => t.name)") == hidden
        assert page.value(f"{slider}.getAttribute('aria-valuetext')") == "after round 2"
        assert page.value(f"document.activeElement === {slider}")
        assert page.value("document.querySelector('#schedules details').open")
        rows = page.value("document.querySelectorAll('#schedules tbody tr').length")
        assert rows >= 1
        assert abs(page.value("scrollY") - before) < 3
        assert page.errors == []
        see(page, "plane")
        page.until(f"{slider}.max === '4'")
        see(page, "founders")
        page.until("document.querySelector('#founders .figure').data[0].x.length === 5")
        assert page.value(shares) == pytest.approx(part)
        assert page.value(f"{slider}.getAttribute('aria-valuetext')") == "after round 2"
        written.store.close()


def test_a_double_click_shows_all_again(tmp_path: Path, visit: Visit) -> None:
    """What was zoomed is whole again, and grows with the run as before."""
    written = Written(tmp_path / "live")
    for _ in range(4):
        written.round()
    with served(tmp_path) as server:
        page = visit("live", server)
        see(page, "founders")
        shares = "document.querySelector('#founders .figure').layout.xaxis.range"
        x, y, width, height = box(page, "founders")
        page.drag((x + 0.3 * width, y + 0.5 * height), (x + 0.6 * width, y + 0.5 * height))
        page.until(f"{shares}[0] > 12")
        # plotly.js reports two clicks within 0.3 seconds, which a busy machine may not manage.
        twice = "document.querySelector('#founders .figure').emit('plotly_doubleclick')"
        page.value(twice)
        page.until(f"{shares}[0] === 10 && {shares}[1] === 40")
        written.round()
        page.until(f"{NUDGE} {shares}[1] === 50", seconds=20)
        # Once more, and also what the axes leave out is shown, as the figure's words promise.
        page.value(twice)
        page.until("document.querySelector('#founders .figure')._fullLayout.xaxis.autorange")
        assert page.errors == []
        written.store.close()


def test_paused_it_asks_for_nothing(tmp_path: Path, visit: Visit) -> None:
    """While updates are paused nothing is asked, also by whoever presses the button with the keyboard."""
    written = Written(tmp_path / "live")
    written.round()
    with served(tmp_path) as server:
        page = visit("live", server)
        page.value("document.querySelector('#pause').focus()")
        page.press("Enter", 13)
        page.call("Input.dispatchKeyEvent", type="char", text="\r", key="Enter")
        page.until("document.querySelector('#pause').getAttribute('aria-pressed') === 'true'")
        time.sleep(0.5)
        asked = len(page.requests)
        written.round()
        time.sleep(2.5)
        assert len(page.requests) == asked
        assert page.value("document.querySelector('#pause').textContent") == "Resume updates"
        page.value("document.querySelector('#pause').click()")
        page.until("document.querySelector('#lead').textContent.includes('after round 2')", seconds=20)
        written.store.close()


def test_a_hostile_run_is_text(visit: Visit) -> None:
    """A run, a score and a hyperparameter that are called like a script are read, not run."""
    page = visit(HOSTILE)
    for name in NAMES:
        see(page, name)
        page.value(f"document.querySelector('#{name} summary').click()")
    assert HOSTILE in page.value("document.querySelector('#results').textContent")
    assert HOSTILE in page.value("document.querySelector('#runs').textContent")
    assert "<b>a</b>" in page.value("document.querySelector('#setting').textContent")
    assert page.value("document.querySelectorAll('#frame script, #frame img, #frame i, #frame b').length") == 0
    assert page.value("document.title").startswith(HOSTILE)
    assert page.errors == []


def test_the_policy_is_in_force(visit: Visit) -> None:
    """A script that came into the page after all would not run."""
    page = visit()
    page.value("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">')")
    script = "const s = document.createElement('script'); s.textContent = 'window.ran = 2'; document.body.append(s)"
    page.value(f"(() => {{ {script} }})()")
    page.until("new Promise((done) => setTimeout(() => done(true), 0))")
    while not any("Content Security Policy" in error for error in page.errors):
        page.value("1")  # answers come in the order of the page's messages
    assert page.value("window.ran ?? 0") == 0


def test_runs_that_cannot_be_drawn(visit: Visit, browser: Browser, client: Client) -> None:
    """A run without a report, one of another version and one that is not there say so, without an error."""
    page = visit("begun")
    assert "No member has finished a round yet" in page.value("document.querySelector('main').textContent")
    assert page.value("document.querySelectorAll('.figure').length") == 0
    page.value("document.querySelector('#runs li[data-state=unreadable] a').click()")
    page.until("document.querySelector('main [role=alert]')?.textContent.includes('older format 0')")
    page.value("history.back()")
    page.until("document.querySelector('h1').textContent === 'begun'")
    assert page.errors == []
    page = browser.page()
    page.open(f"http://127.0.0.1:{client.port}/run/0123456789abcdef")
    page.until("document.querySelector('main [role=alert]')?.textContent.includes('no run of this name')")
    assert page.errors == []


def test_a_server_that_went_away(tmp_path: Path, visit: Visit) -> None:
    """What was shown stays, and the page says that nobody answers."""
    Written(tmp_path / "one").store.close()
    with served(tmp_path) as server:
        page = visit("one", server)
    page.until(f"{NUDGE} document.querySelector('#news').textContent.includes('does not respond')", seconds=20)
    assert page.value("document.querySelector('h1').textContent") == "one"


def test_nobody_waits_for_a_run_that_is_looked_at_no_longer(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever chooses another run while one is being drawn sees the other one at once."""
    page, real = visit("begun"), ResponseCache.run

    async def slow(self: ResponseCache, key: str) -> Answer | None:
        if self._listed[key].name == "plain":
            await asyncio.sleep(10)
        return await real(self, key)

    monkeypatch.setattr(ResponseCache, "run", slow)
    link = "[...document.querySelectorAll('#runs a')].find((a) => a.textContent.startsWith('{}')).click()"
    page.value(link.format("plain"))
    page.until("document.querySelector('#news').textContent === 'Loading plain'", seconds=5)
    assert page.value("document.querySelector('main').getAttribute('aria-busy')") == "true"
    page.value(link.format("old"))
    page.until("document.querySelector('h1').textContent === 'old'", seconds=5)
    page.until("document.querySelector('#news').textContent === 'unreadable'", seconds=5)
    assert page.errors == []


def test_runs_are_chosen_by_keyboard(visit: Visit) -> None:
    """From the first key press on: skip link, button, list; Enter shows a run and tells where the reader is."""
    page = visit("begun")
    page.value("document.activeElement.blur(); window.getSelection().collapse(document.body, 0)")
    seen = []
    for _ in range(9):
        page.press("Tab", 9)
        seen.append(
            page.value(
                "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"
            )
        )
    assert seen[:3] == ["skip", "pause", "count"]
    page.value("[...document.querySelectorAll('#runs a')].find((a) => a.textContent.startsWith('plain')).focus()")
    page.press("Enter", 13)
    page.call("Input.dispatchKeyEvent", type="char", text="\r", key="Enter")
    page.until("document.querySelector('h1').textContent === 'plain'")
    assert page.value("document.activeElement.id") == "run"
    assert page.value("document.querySelector('#runs [aria-current=page] .name').textContent") == "plain"


def test_everything_has_a_name(visit: Visit) -> None:
    """Every control, picture and region has a name for a screen reader, and a picture's is its sentence."""
    page = visit()
    for name in NAMES:
        see(page, name)
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    told = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]]
    wanted = {"button", "link", "slider", "image", "img", "region", "navigation", "DisclosureTriangle", "checkbox"}
    assert [role for role, name in told if role in wanted and not name.strip()] == []
    roles = {role for role, _ in told}
    assert {"button", "link", "slider", "navigation", "main", "status", "heading"} <= roles
    pictures = [name for role, name in told if role in {"image", "img"}]
    assert len(pictures) == len(NAMES)
    assert any("The best score went from" in name for name in pictures)
    assert ("slider", "Round") in told
    # The inside of a picture is no text to be read, nor a place to stop at.
    assert page.value("document.querySelectorAll('.figure [tabindex], .figure a[href], .figure button').length") == 0


def over(page: Page, place: str) -> str:
    """Move the mouse to a point, given by JavaScript as [x, y] in pixels, and read the label there."""

    def move(_: object) -> bool:
        x, y = page.value(place)
        for shift in (2, 0):
            page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + shift, y=y)
        return bool(page.value("document.querySelector('#label:not([hidden])')?.childElementCount"))

    page.until("1", move)
    found: str = page.value("[...document.getElementById('label').children].map((e) => e.textContent).join('|')")
    return found


POINT = """(({{_fullLayout: {{xaxis, yaxis}}, data}}, box) => {{
  const trace = data.find(({{name}}) => name === '{trace}'), at = {at};
  const place = (axis, value) => axis._offset + axis.d2p(value);
  return [box.x + place(xaxis, trace.x[at]), box.y + place(yaxis, trace.y[at])];
}})(document.querySelector('#{name} .figure'), document.querySelector('#{name} .figure').getBoundingClientRect())"""


def test_the_mouse_names_and_opens_members(visit: Visit) -> None:
    """A label names member, round, step, score, values and origin; a click opens the member; Escape closes it."""
    page = visit()
    see(page, "fitness")
    page.until("!!document.querySelector('#fitness .controls button')")
    label = over(page, POINT.format(name="fitness", trace="members", at=1))
    member, round_ = re.fullmatch(r"member (\d+), round (\d+)", label.split("|")[0]).groups()  # type: ignore[union-attr]
    assert round_ == "2"
    assert re.search(r"\|step 10 · score [-\d.]+\|lr [\d.]+\|layers \d\|from ", label)
    # On a busy machine figures above may still grow, and a click misses the point that has moved meanwhile.
    for _ in range(20):
        page.click(tuple(page.value(POINT.format(name="fitness", trace="members", at=1))))
        time.sleep(0.5)
        if page.value("!!document.querySelector('dialog[open]')"):
            break
    page.until("document.querySelectorAll('dialog[open] h3').length >= 3")
    assert page.value("document.querySelector('dialog h2').textContent") == f"Member {member}"
    assert page.value("new URLSearchParams(location.search).get('member')") == member
    assert page.value("document.activeElement.closest('dialog') !== null")
    words = page.value("document.querySelector('dialog').textContent")
    for part in ("Ancestry of its newest state", "Schedule of its newest state", "Rounds and decisions", "reason"):
        assert part in words
    page.press("Escape", 27)
    page.until("!document.querySelector('dialog[open]') && !location.search.includes('member')")
    see(page, "exploits")
    empty = "document.querySelector('#exploits .figure').data[0].text.flat().filter((text) => text === 'never').length"
    assert page.value(empty) > 0
    assert page.errors == []


def test_members_are_sorted_searched_and_saved(visit: Visit, browser: Browser, tmp_path: Path) -> None:
    """The table sorts by a click on its head, searches, and saves what it shows, without formulas."""
    page = visit()
    rows = "[...document.querySelectorAll('#members tbody tr')].map((row) => row.cells[{}].textContent)"
    page.until(f"{rows.format(0)}.length === 6")
    for direction in ("", "-"):
        page.value("document.querySelectorAll('#members th button')[4].click()")
        values = [float(text) for text in page.value(rows.format(4))]
        assert values == sorted(values, reverse=bool(direction))
        assert page.value("new URLSearchParams(location.search).get('members.sort')") == f"{direction}4"
    search = "document.getElementById('members-search')"
    page.value(f"{search}.value = 'nothing-like-it'; {search}.dispatchEvent(new Event('input'))")
    assert page.value(rows.format(0)) == []
    page.value(f"{search}.value = ''; {search}.dispatchEvent(new Event('input'))")
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.value("document.querySelector('#members .saves button').click()")
    see(page, "fitness")
    page.until("!!document.querySelector('#fitness .controls button')")
    page.value("document.querySelectorAll('#fitness .saves button')[1].click()")
    deadline = time.monotonic() + 60
    while {path.name for path in tmp_path.iterdir()} != {"plain-members.csv", "plain-fitness.svg"}:
        assert time.monotonic() < deadline, list(tmp_path.iterdir())
        page.value("new Promise((done) => setTimeout(done, 50))")
    lines = (tmp_path / "plain-members.csv").read_bytes().decode().split("\r\n")
    assert lines[0].startswith("member,status,round,step,score,best score,founder")
    assert len(lines) == 8
    picture = (tmp_path / "plain-fitness.svg").read_text()
    assert "plain · 6 members · seed 4 · score: higher is better" in picture
    unsafe = "[['=1+1', '-2', '@x', 'a\"b', 'a,b', -2, null]]"
    assert page.value(f"tables.csv(['h'], {unsafe})") == 'h\r\n\'=1+1,\'-2,\'@x,"a""b","a,b",-2,\r\n'
    assert page.errors == []


CHOOSE = """(() => {{ const place = document.getElementById('{}'); place.value = '{}';
  place.dispatchEvent(new Event(place.type === 'range' ? 'input' : 'change')); }})()"""


def test_an_address_keeps_the_view(visit: Visit, browser: Browser) -> None:
    """Axes, smoothing, zoom, hidden lines, the plane's axes and round are in the address; a copy of it has them."""
    page = visit()
    see(page, "plane")
    page.until("!!document.querySelector('#plane-x')")
    for place, value in (("plane-x", "layers"), ("plane-y", "(score)"), ("slider-plane", "1")):
        page.value(CHOOSE.format(place, value))
    see(page, "fitness")
    page.until("!!document.querySelector('#fitness-smooth')")
    for place, value in (("fitness-along", "rounds"), ("fitness-scale-x", "log"), ("fitness-smooth", "0.5")):
        page.value(CHOOSE.format(place, value))
    page.until("document.querySelector('#fitness .figure').layout.xaxis.type === 'log'")
    x, y, width, height = box(page, "fitness")
    page.drag((x + 0.3 * width, y + 0.4 * height), (x + 0.6 * width, y + 0.7 * height))
    page.until("location.search.includes('fitness.zoom')")
    entry = "document.querySelector('#fitness .legendtoggle').getBoundingClientRect()"
    page.click(page.value(f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({entry})"))
    page.until("location.search.includes('fitness.legend')")
    copy = browser.page()
    copy.open(page.value("location.href"))
    copy.until("document.querySelector('#run').getAttribute('aria-busy') === 'false'")
    for name, view in (
        (
            "fitness",
            "[layout.xaxis.title.text, layout.xaxis.type, data[0].x, data[0].y, data.map(({visible}) => visible)]",
        ),
        ("plane", "[layout.xaxis.title.text, layout.yaxis.title.text, data[0].x, data[0].y]"),
    ):
        script = f"(({{layout, data}}) => {view})(document.querySelector('#{name} .figure'))"
        for one in (page, copy):
            see(one, name)
        assert copy.value(script) == page.value(script)
    assert copy.value("document.querySelector('#fitness .figure').data[0].x.slice(0, 4)") == [1, 2, 3, 4]
    assert "legendonly" in copy.value("document.querySelector('#fitness .figure').data.map((one) => one.visible)")
    ends = "document.querySelector('#fitness .figure').layout.xaxis.range"
    assert copy.value(ends) == pytest.approx(page.value(ends), rel=1e-5)
    assert copy.value("document.querySelector('#plane .figure').layout.xaxis.title.text") == "layers"
    assert copy.value("document.querySelector('#slider-plane').value") == "1"
    assert copy.errors == page.errors == []
    copy.close()


def test_runs_are_laid_over_each_other(visit: Visit) -> None:
    """The table of runs lists all of them with their state; chosen ones are in one figure each."""
    page = visit()
    page.value("document.querySelector('#runs .overview').click()")
    page.until("document.querySelectorAll('#runs-table tbody tr').length === 4")
    assert page.value("location.pathname") == "/runs"
    status = "document.getElementById('runs-status')"
    page.value(f"{status}.value = 'finished'; {status}.dispatchEvent(new Event('change'))")
    assert page.value("document.querySelectorAll('#runs-table tbody tr').length") == 2
    for index in (0, 1):
        page.value(f"document.querySelectorAll('#runs-table input[type=checkbox]')[{index}].click()")
    for name in ("overlay-best", "overlay-median", "overlay-schedules"):
        page.until(f"!!document.getElementById('{name}')")
        see(page, name)
    drawn = "document.querySelector('#overlay-best .figure').data?.map(({name}) => name)"
    names = page.until(drawn, lambda found: found is not None and len(found) == 2)
    assert any("&lt;script&gt;" in name for name in names)
    assert page.value("document.querySelectorAll('#frame script, #frame img').length") == 0
    page.value("document.querySelector('#runs-table tbody a[href]').click()")
    page.until("location.pathname.startsWith('/run/') && !!document.querySelector('#results')")
    assert page.errors == []


LUMINANCE = """(() => {
  const part = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = (rgb) => { const [r, g, b] = rgb.map(part); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const chip = (e) => e.closest('.annotation')?.querySelector('rect.bg');
  const ground = (e) => {
    const own = chip(e) && numbers(getComputedStyle(chip(e)).fill);
    return own && Number(getComputedStyle(chip(e)).fillOpacity) > 0 ? own.slice(0, 3) : outer(e);
  };
  const outer = (e) => { for (; e; e = e.parentElement) {
    const found = numbers(getComputedStyle(e).backgroundColor);
    if (found.length === 3 || found[3] > 0) return found.slice(0, 3);
  } };
  const own = (e, style) => e instanceof SVGElement ? style.fill : style.color;
  const color = (e) => numbers(own(e, getComputedStyle(e))).slice(0, 3);
  return [...document.querySelectorAll('h1, h2, p, dt, dd, li a, button, summary, label, output, #runs span, svg text')]
    .filter((e) => e.textContent.trim() && e.getClientRects().length)
    .map((e) => { const [a, b] = [light(color(e)), light(ground(e))].sort((x, y) => y - x);
                  return [(a + 0.05) / (b + 0.05), e.tagName, e.textContent.slice(0, 40)]; })
    .filter(([ratio]) => ratio < 4.5);
})()"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_it_can_be_read(visit: Visit, dark: bool, width: int, height: int) -> None:
    """In light and dark, wide and narrow, every text has a contrast of 4.5 to its ground, and nothing overflows."""
    page = visit(width=width, height=height, dark=dark)
    for name in NAMES:
        see(page, name)
    assert page.value(LUMINANCE) == []
    assert page.value("document.documentElement.scrollWidth") <= width
    if not dark:
        page.scheme(dark=True)
        for name in NAMES:
            see(page, name)
            page.until(f"document.querySelector('#{name} .figure').layout.template.layout.font.color === '#d5d9de'")
        assert page.value(LUMINANCE) == []
    assert page.errors == []
