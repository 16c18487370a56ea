"""The page: one offline file, safe whatever a run is called, written in one piece."""

import base64
import hashlib
import json
import re
import shutil
import sqlite3
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import pbt
from pbt import report
from pbt.errors import MissingExtraError, RunError, RunFormatError, UsageError
from pbt.report import figures, write_pictures, write_report
from pbt.report.data.figures import NAMES
from pbt.report.read import read_snapshot
from pbt.report.snapshot import snapshot_of
from pbt.runs.engine import Observer
from pbt.runs.results import Run
from pbt.store.base import JournalEntry
from pbt.store.sqlite import RunStore
from tests.report.histories import CLIMB, history, rising

PARTS = ("states", "members", "records")
HOSTILE = "<script>alert(1)<|script>&\"'"


class Page(HTMLParser):
    """What is in a page: every tag with its attributes, every script's text, and the text that people read."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words = ""
        self._inside = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in {"script", "style"} else ""
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif not self._inside:
            self.words += data

    def meta(self, name: str) -> str:
        return next(a["content"] or "" for t, a in self.tags if t == "meta" and a.get("http-equiv") == name)

    @property
    def figures(self) -> dict[str, Any]:
        """The data of the figures, by the name in the id of their elements."""
        ids = [attributes.get("id") or "" for tag, attributes in self.tags if tag == "script"]
        found = zip(ids, self.scripts, strict=True)
        return {id_.removeprefix("data-"): json.loads(text) for id_, text in found if id_.startswith("data-")}


def written(run: Run | Path, folder: Path) -> Page:
    return Page(write_report(run, folder / "page.html"))


def test_a_report_lies_in_its_run(climbed: Run) -> None:
    """Without another place being named it is `report/report.html` in the run directory."""
    assert climbed.path is not None
    path = write_report(climbed.path)
    assert path == climbed.path / "report" / "report.html"
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    shutil.rmtree(path.parent)


def test_equal_runs_give_equal_bytes(climbed: Run, tmp_path: Path) -> None:
    """A report is a function of the run: twice the same bytes, from the object or from the directory."""
    assert climbed.path is not None
    first, second = write_report(climbed, tmp_path / "a.html"), write_report(climbed.path, tmp_path / "b.html")
    assert first.read_bytes() == second.read_bytes()


def test_the_page_needs_no_network(climbed: Run, tmp_path: Path) -> None:
    """No tag loads anything, and nothing offers to send the figures anywhere."""
    page = written(climbed, tmp_path)
    for tag, attributes in page.tags:
        assert "src" not in attributes
        assert tag not in {"link", "iframe", "object", "base", "form", "img"}
        assert (attributes.get("href") or "#").startswith("#")
    assert "showSendToCloud: false" in page.scripts[-1]


def test_the_browser_runs_our_scripts_alone(climbed: Run, tmp_path: Path) -> None:
    """The policy allows the two scripts by their hashes, no other, and no address; no tag has a handler."""
    page = written(climbed, tmp_path)
    policy = page.meta("Content-Security-Policy")
    assert policy.startswith("default-src 'none'; ")
    assert policy.endswith("style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'")
    allowed = re.search(r"script-src ([^;]*)", policy)
    assert allowed
    executed = page.scripts[-2:]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in executed]
    assert allowed[1].split() == [f"'sha256-{digest}'" for digest in hashes]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_a_hostile_run_is_text(tmp_path: Path) -> None:
    """A run, a score, an option and a task that are called like a script change no tag of the page."""
    space = CLIMB["space"] | {"rule": pbt.Choice((HOSTILE, "</script><b>"))} | {"extra": pbt.Float(0.0, 1.0)}
    application = {"score": HOSTILE, "note": HOSTILE}
    experiment = pbt.Experiment(**CLIMB | {"space": space})
    plain = experiment.run(tmp_path / "plain", application={"score": "x", "note": "x"})
    hostile = experiment.run(tmp_path / HOSTILE, application=application)
    page, harmless = written(hostile, tmp_path), Page(write_report(plain, tmp_path / "harmless.html"))
    tags, expected = [tag for tag, _ in page.tags], [tag for tag, _ in harmless.tags]
    assert tags == expected
    assert len(page.scripts) == len(NAMES) + len(PARTS) + 2
    assert page.scripts[-2:] == harmless.scripts[-2:]
    assert HOSTILE in page.words
    assert page.figures == figures(hostile)
    assert not any("<" in script for script in page.scripts[:-2])


def test_every_picture_is_explained(climbed: Run, tmp_path: Path) -> None:
    """Each picture has its place, a heading, its numbers in a fold, and its figure in the page's data."""
    page = written(climbed, tmp_path)
    places = [a["id"] for t, a in page.tags if t == "div" and a.get("class") == "figure"]
    assert places == [f"figure-{name}" for name in NAMES]
    assert sum(tag == "details" for tag, _ in page.tags) == len(NAMES)
    assert list(page.figures) == list(NAMES)
    assert "The best score went from" in page.words
    assert "Warnings" in page.words


def test_a_run_without_a_report_yet(tmp_path: Path) -> None:
    """Before the first round the page says so and has no figures; pictures are refused in one line."""
    with RunStore.create(tmp_path / "run", {"seed": 1, "space": {}, "population": 2, "rounds": 3}):
        page = written(tmp_path / "run", tmp_path)
        with pytest.raises(UsageError, match="no member has finished a round yet"):
            write_pictures(tmp_path / "run", ["png"])
    assert "No member has finished a round yet" in page.words
    assert page.figures == {}


def test_a_run_that_is_being_written(tmp_path: Path) -> None:
    """After every commit the page shows whole rounds: as many states as the log has, and that the run goes on."""
    seen: list[tuple[int, int]] = []

    class Looker(Observer):
        def on_commit(self, engine: Any, events: Any) -> None:
            assert engine.store.path is not None
            page = written(engine.store.path, tmp_path)
            counts = page.figures["health"]["data"][0]["x"]
            seen.append((engine.view.round, counts[-1]))
            if engine.view.ended is None:
                assert "still training" in page.words

    pbt.run(**CLIMB | {"rounds": 3}, run_dir=tmp_path / "run", observers=[Looker()])
    assert seen == [(1, 1), (2, 2), (3, 3)]


def test_what_was_written_after_the_log_was_read_is_left_out() -> None:
    """Times of rounds that the log read before does not have change nothing."""
    run = history(rising(2, 2))
    notes = [
        JournalEntry(id=i, kind="round", details={"member": 0, "round": round_, "seconds": 1.0}, clock=float(round_))
        for i, round_ in enumerate((1, 2, 3), 1)
    ]
    snapshot = snapshot_of(run, notes)
    assert snapshot.seconds == {(0, 1): 1.0, (0, 2): 1.0}
    assert snapshot.wall == 1.0


def test_an_interrupted_run_says_so(tmp_path: Path) -> None:
    """A run that ended before its last round can be resumed, and the page says that."""

    class Enough(Observer):
        def on_commit(self, engine: Any, events: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pbt.run(**CLIMB, run_dir=tmp_path / "run", observers=[Enough()])
    assert "interrupted after round 1 and can be resumed" in written(tmp_path / "run", tmp_path).words


def test_a_run_in_memory_needs_a_place(tmp_path: Path) -> None:
    """A run without a directory has its report where it is told to, and nowhere else."""
    run = pbt.run(**CLIMB | {"rounds": 2})
    with pytest.raises(UsageError, match="out="):
        write_report(run)
    assert "a run in memory" in written(run, tmp_path).words


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    """A folder, a run of another version and a store that no run began are errors that say so, and leave nothing."""
    with pytest.raises(RunFormatError, match="expected a run directory"):
        write_report(tmp_path)
    with RunStore.create(tmp_path / "bare", {"seed": 1, "population": 2, "rounds": 3}):
        pass
    with pytest.raises(RunFormatError, match="recorded space"):
        write_report(tmp_path / "bare")
    with RunStore.create(tmp_path / "old", {"seed": 1, "space": {}}):
        pass
    with sqlite3.connect(tmp_path / "old" / "run.db") as connection:
        connection.execute("PRAGMA user_version = 0")
    with pytest.raises(RunFormatError, match="older format"):
        write_report(tmp_path / "old")
    assert not list(tmp_path.rglob("report*"))


def test_a_place_that_cannot_be_written(climbed: Run, tmp_path: Path) -> None:
    """A folder where a file is wanted, a file where a folder is, and a path through a file are one error each."""
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UsageError, match="file name"):
        write_report(climbed, tmp_path)
    with pytest.raises(UsageError, match="expected a folder"):
        write_pictures(climbed, ["png"], tmp_path / "file")
    with pytest.raises(RunError, match="cannot be written"):
        write_report(climbed, tmp_path / "file" / "page.html")
    with pytest.raises(UsageError, match="got 'gif'"):
        write_pictures(climbed, ["gif"], tmp_path)
    assert (tmp_path / "file").read_text() == "kept"


def test_missing_packages_are_named(climbed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without plotly or matplotlib the error is the command that installs them; figures need neither."""
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for write in (lambda: write_report(climbed), lambda: write_pictures(climbed, ["png"], tmp_path)):
        with pytest.raises(MissingExtraError, match=r"the extra 'report'"):
            write()
    assert list(figures(climbed)) == list(NAMES)


def test_the_public_names() -> None:
    """What the package offers is listed once, in order, and explained."""
    assert report.__all__ == sorted(set(report.__all__))
    assert all((getattr(report, name).__doc__ or "").strip() for name in report.__all__)


def test_a_story_is_one_snapshot(climbed: Run) -> None:
    """Every state starts from one that came before it, and is one round deeper."""
    snapshot = read_snapshot(climbed)
    seen: set[Any] = set()
    for ref, state in snapshot.states.items():
        assert state.start is None or state.start in seen
        assert state.depth == (1 if state.start is None else snapshot.states[state.start].depth + 1)
        seen.add(ref)
