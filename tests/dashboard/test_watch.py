"""What changed is seen, at little cost; what is made is made once."""

import asyncio
import gzip
import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pbt
from pbt.core.events import Ended
from pbt.dashboard import cache as desks
from pbt.dashboard import watch as watching
from pbt.dashboard.cache import Answer, Pace, ResponseCache
from pbt.dashboard.comparison import ComparisonReader, ComparisonsReader
from pbt.dashboard.payload import PageMaker, RunPage, run_page
from pbt.dashboard.watch import Watch, WatchedRun
from pbt.report import figures
from pbt.report.content import content
from pbt.report.data.figures import pictures
from pbt.report.parts import record_of
from pbt.report.read import read_snapshot
from pbt.store.live import LARGEST, LiveFile
from pbt.store.reader import RunReader
from pbt.store.sqlite import RunStore
from tests.dashboard.climbs import CLIMB, Written, served


class Opened:
    """Counts how often the log of a run was read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.events = 0
        last, events = RunReader.last, RunReader.events

        def opened(reader: RunReader) -> int:
            self.count += 1
            return last(reader)

        def counted(reader: RunReader, after: int = 0, until: int | None = None) -> Any:
            found = events(reader, after, until)
            self.events += len(found)
            return found

        monkeypatch.setattr(RunReader, "last", opened)
        monkeypatch.setattr(RunReader, "events", counted)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    return Opened(monkeypatch)


def only(watch: Watch) -> WatchedRun:
    (found,) = watch.look()
    return found


def test_a_run_is_told_as_it_is(tmp_path: Path) -> None:
    """State, rounds, members and best are those of the run, while it is written, interrupted and finished."""
    written = Written(tmp_path / "one")
    watch = Watch(tmp_path)
    assert (only(watch).state, only(watch).rounds, only(watch).best) == ("running", 0, "")
    for round_ in (1, 2):
        written.round()
        found = only(watch)
        assert (found.state, found.rounds, found.asked, found.members) == ("running", round_, 9, 3)
        assert found.best == f"{round_}.2"
    written.store.commit([Ended(round=2, why="finished")])
    written.store.close()
    assert only(watch).state == "finished"
    assert only(Watch(tmp_path)).rounds == 2


def test_versions_change_with_the_run_alone(tmp_path: Path) -> None:
    """A version stays while nothing happens, and is another one after every round and every change of state."""
    written = Written(tmp_path / "one")
    watch = Watch(tmp_path)
    versions = [only(watch).version]
    for _ in range(3):
        written.round()
        versions += [only(watch).version, only(watch).version]
        assert versions[-1] == versions[-2]
    written.store.close()
    versions.append(only(watch).version)
    assert len(set(versions)) == 5


def test_only_what_is_new_is_read(tmp_path: Path, opened: Opened) -> None:
    """Every event is read once, and a log that has not changed for a while is not opened at all."""
    written = Written(tmp_path / "one")
    now = time.time()
    watch = Watch(tmp_path, clock=lambda: now)
    for _ in range(5):
        written.round()
        watch.look()
    assert opened.events == len(written.store.events())
    now += watching.SETTLED + 1
    watch.look()
    before = opened.count
    for _ in range(10):
        watch.look()
    assert opened.count == before
    written.round()
    now = time.time()
    assert only(watch).rounds == 6


def live(written: Written, *points: tuple[int, float], member: int = 1, round_: int = 2) -> LiveFile:
    """The file of a round in progress."""
    folder = written.store.states.live
    assert folder is not None
    file = LiveFile(folder, member, round_)
    file.write({"loss": points})
    return file


def test_live_points_are_seen_between_rounds(tmp_path: Path, opened: Opened) -> None:
    """A run that reports is another version, though its log is the same; without a writer nothing is live."""
    written = Written(tmp_path / "one")
    written.round()
    written.begin()
    watch = Watch(tmp_path)
    versions = [only(watch).version, only(watch).version]
    live(written, (11, 0.5))
    versions += [only(watch).version, only(watch).version]
    assert [versions.index(version) for version in versions] == [0, 0, 2, 2]
    assert opened.events == len(written.store.events())

    def section() -> tuple[str, str]:
        page = json.loads(run_page(tmp_path / "one", "v").body())
        found = [
            (one["shows"], json.dumps(page["figures"]["curves"])) for one in page["sections"] if one["name"] == "curves"
        ]
        return found[0] if found else ("", "")

    assert "1 round in progress" in section()[0]
    assert "in progress" in section()[1]
    written.store.close()
    assert section() == ("", "")


@pytest.mark.parametrize("kind", ["json", "huge", "link", "pipe", "round", "member"])
def test_live_files_of_strangers_harm_nothing(kind: str, tmp_path: Path) -> None:
    """What is no file of a round in progress is left out: the page is that of the run."""
    written = Written(tmp_path / "one")
    written.round()
    written.begin()
    payload = run_page(tmp_path / "one", "v").body()
    file = live(written, (11, 0.5), round_=9 if kind == "round" else 2, member=77 if kind == "member" else 1)
    content = file.path.read_bytes()
    if kind == "json":
        file.path.write_bytes(content[:-9])
    if kind == "huge":
        file.path.write_bytes(content + b" " * LARGEST)
    if kind in ("link", "pipe"):
        file.path.rename(tmp_path / "elsewhere")
        os.mkfifo(file.path) if kind == "pipe" else file.path.symlink_to(tmp_path / "elsewhere")
    assert run_page(tmp_path / "one", "v").body() == payload
    assert only(Watch(tmp_path)).problem == ""


def test_two_changes_at_one_time_are_both_seen(tmp_path: Path) -> None:
    """Where the file system's clock is too coarse to tell two commits apart, the second one is seen all the same."""
    written = Written(tmp_path / "one")
    written.round()
    watch, database = Watch(tmp_path), tmp_path / "one" / "run.db"
    before = database.stat()
    assert only(watch).rounds == 1
    written.round()
    os.utime(database, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert only(watch).rounds == 2


def test_a_run_that_is_replaced_is_another(tmp_path: Path) -> None:
    """A run that was removed is gone from the list, and one begun in its place is read from its beginning."""
    written = Written(tmp_path / "one")
    for _ in range(3):
        written.round()
    written.store.close()
    watch = Watch(tmp_path)
    first = only(watch)
    (tmp_path / "one").rename(tmp_path.parent / f"{tmp_path.name}-kept")
    assert watch.look() == []
    again = Written(tmp_path / "one", members=2)
    again.round()
    assert (only(watch).rounds, only(watch).members) == (1, 2)
    assert only(watch).version != first.version
    assert only(watch).key == first.key


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    """An older format, another program's database, a run without a space and rubbish are lines of the list."""
    for name in ("good", "old", "bare", "odd"):
        Written(tmp_path / name).store.close()
    with sqlite3.connect(tmp_path / "old" / "run.db") as connection:
        connection.execute("PRAGMA user_version = 0")
    with sqlite3.connect(tmp_path / "bare" / "run.db") as connection:
        connection.execute("DELETE FROM meta WHERE key = 'space'")
    with sqlite3.connect(tmp_path / "odd" / "run.db") as connection:
        connection.execute("UPDATE meta SET value = '[7]' WHERE key = 'space'")
    (tmp_path / "rubbish").mkdir()
    (tmp_path / "rubbish" / "run.db").write_bytes(b"rubbish" * 1000)
    found = {item.name: item for item in Watch(tmp_path).look()}
    assert found["good"].state == "interrupted"
    problems = {name: item.problem for name, item in found.items() if item.state == "unreadable"}
    assert problems.keys() == {"old", "bare", "odd", "rubbish"}
    assert "older format 0" in problems["old"]
    assert "recorded space" in problems["bare"]
    assert "expected" in problems["odd"]
    for name in ("old", "bare", "odd", "rubbish"):
        assert json.loads(run_page(tmp_path / name, "v").body())["problem"]
    assert only(Watch(tmp_path / "old")).state == "unreadable"


def test_a_large_folder_is_read_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where reading takes too long for one look, what was not read is listed as such, and read in the next ones."""
    for i in range(5):
        Written(tmp_path / f"run{i}").store.close()
    monkeypatch.setattr(watching, "BUDGET", 0.0)
    watch = Watch(tmp_path)
    assert {item.state for item in watch.look()} == {"not read yet"}
    monkeypatch.setattr(watching, "BUDGET", 60.0)
    assert {item.state for item in watch.look()} == {"interrupted"}
    monkeypatch.setattr(watching, "MOST", 3)
    assert len(watch.look()) == 3
    assert watch.left_out == 2


def test_a_folder_that_goes_away(tmp_path: Path) -> None:
    """A folder that is removed while it is shown has no runs; one run that is removed says so."""
    Written(tmp_path / "runs" / "one").store.close()
    folder, single = Watch(tmp_path / "runs"), Watch(tmp_path / "runs" / "one")
    assert len(folder.look()) == len(single.look()) == 1
    shutil.rmtree(tmp_path / "runs")
    assert folder.look() == []
    assert "was removed" in only(single).problem


def test_page_and_report_say_the_same(tmp_path: Path) -> None:
    """What the browser gets is the report's words and figures."""
    run = pbt.run(**CLIMB, run_dir=tmp_path / "run")
    found = json.loads(run_page(tmp_path / "run", "v").body())
    snapshot = read_snapshot(run)
    said = content(snapshot, pictures(snapshot))
    assert found["figures"] == json.loads(json.dumps(figures(run)))
    assert found["lead"] == said.lead
    assert found["results"] == [list(pair) for pair in said.results.items()]
    assert [item["text"] for item in found["warnings"]] == [one.text for one in said.warnings]
    assert [section["shows"] for section in found["sections"]] == [one.shows for one in said.sections]
    assert found["sections"][0]["table"]["rows"] == [list(row) for row in said.sections[0].table.rows]


class Slow:
    """Makes pages slowly, and counts."""

    def __init__(self, seconds: float = 0.2) -> None:
        self.seconds = seconds
        self.versions: list[str] = []
        self.at_once = self.most = 0
        self.go_on = threading.Event()
        """Ends the waiting early."""
        self._lock = threading.Lock()

    def __call__(self, path: Path, version: str) -> RunPage:
        with self._lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            self.versions.append(version)
        self.go_on.wait(self.seconds)
        with self._lock:
            self.at_once -= 1
        return RunPage(texts={"name": path.name, "version": version})


class TestDesk:
    def test_everybody_waits_for_the_same_page(self, tmp_path: Path) -> None:
        """Twenty who ask at once get one page that was made once, and the server answers others meanwhile."""
        written = Written(tmp_path / "one")
        written.round()
        make = Slow(600)

        async def ask() -> None:
            desk = ResponseCache(Watch(tmp_path), make)
            key = json.loads((await desk.runs()).body)["runs"][0]["key"]
            waiting = asyncio.gather(*(desk.run(key) for _ in range(20)))
            while not make.at_once:
                await asyncio.sleep(0.005)
            await desk.runs()
            assert make.at_once == 1, "the page was waited for"
            make.go_on.set()
            assert len({answer.tag for answer in await waiting if answer}) == 1
            await desk.run(key)
            assert await desk.run("0" * 16) is None

        asyncio.run(ask())
        assert len(make.versions) == 1

    def test_no_more_than_two_at_once(self, tmp_path: Path) -> None:
        """However many runs are asked for, two pages are made at a time."""
        for i in range(6):
            Written(tmp_path / f"run{i}").store.close()
        make = Slow()

        async def ask() -> None:
            desk = ResponseCache(Watch(tmp_path), make)
            runs = json.loads((await desk.runs()).body)["runs"]
            await asyncio.gather(*(desk.run(run["key"]) for run in runs))

        asyncio.run(ask())
        assert (len(make.versions), make.most) == (6, desks.AT_ONCE)

    def test_whoever_goes_away_ends_nothing(self, tmp_path: Path) -> None:
        """A page that somebody stopped waiting for is made all the same, for the others."""
        Written(tmp_path / "one").store.close()
        make = Slow()

        async def ask() -> None:
            desk = ResponseCache(Watch(tmp_path), make)
            key = json.loads((await desk.runs()).body)["runs"][0]["key"]
            first, second = asyncio.create_task(desk.run(key)), asyncio.create_task(desk.run(key))
            await asyncio.sleep(0.05)
            first.cancel()
            assert await second is not None

        asyncio.run(ask())
        assert len(make.versions) == 1

    def test_old_pages_are_forgotten(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only so many pages are kept."""
        monkeypatch.setattr(desks, "KEPT", 2)
        for i in range(4):
            Written(tmp_path / f"run{i}").store.close()
        desk = ResponseCache(Watch(tmp_path), Slow(0))

        async def ask() -> None:
            for run in json.loads((await desk.runs()).body)["runs"]:
                await desk.run(run["key"])

        asyncio.run(ask())
        assert len(desk._kept) == 2

    def test_what_is_costly_is_made_rarely(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """After a page that took long the old one is answered for a while; the end of a run is not waited for."""
        monkeypatch.setattr(desks, "PAUSE", 0.0)
        written = Written(tmp_path / "one")
        written.round()
        make = Slow(0)
        real = desks.in_thread

        async def costly(work: Any) -> Any:
            made, _ = await real(work)
            return made, 10.0 if isinstance(made, Answer) else 0.0

        monkeypatch.setattr(desks, "in_thread", costly)

        async def ask() -> None:
            desk = ResponseCache(Watch(tmp_path), make)
            key = json.loads((await desk.runs()).body)["runs"][0]["key"]
            first = await desk.run(key)
            written.round()
            assert await desk.run(key) == first
            assert len(make.versions) == 1
            written.store.close()
            last = await desk.run(key)
            assert last is not None
            assert last != first
            assert len(make.versions) == 2

        asyncio.run(ask())

    def test_a_first_look_is_gone_on_with(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """While a large folder is still being read, the next look does not wait until the first one has paid off."""
        Written(tmp_path / "one").store.close()
        monkeypatch.setattr(desks, "PAUSE", 0.01)
        real = desks.in_thread

        async def costly(work: Any) -> Any:
            return (await real(work))[0], 1000.0

        monkeypatch.setattr(desks, "in_thread", costly)

        async def ask() -> None:
            desk = ResponseCache(Watch(tmp_path))
            with monkeypatch.context() as patch:
                patch.setattr(watching, "BUDGET", 0.0)
                assert b"not read yet" in (await desk.runs()).body
            await asyncio.sleep(0.05)
            seen = await desk.runs()
            assert b"interrupted" in seen.body
            Written(tmp_path / "two").store.close()
            await asyncio.sleep(0.05)
            assert await desk.runs() == seen

        asyncio.run(ask())


def test_pace() -> None:
    """What took a second may be done again when a second is its share of the time that went by."""
    now = 100.0
    pace = Pace(0.01, 1.0, clock=lambda: now)
    rate = pace._rate
    assert pace.open
    pace.spent(1.0)
    now = 100.0 + 0.99 / rate
    assert not pace.open
    now = 100.0 + 1.01 / rate
    assert pace.open
    pace.spent(0.0)
    assert not pace.open
    now += 1.01
    assert pace.open
    pace = Pace(0.01, 1.0, 60.0, clock=lambda: now)
    pace.spent(1e6)
    now += 59.0
    assert not pace.open
    now += 1.01
    assert pace.open


def test_an_update_reads_only_new_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each event and note of a running run is read once; the page is that of the whole log, also of a run in its
    place.
    """
    rows: list[int] = []
    notes: list[int] = []
    real, real_journal = RunReader.rows, RunReader.journal

    def counted(reader: RunReader, after: int = 0, until: int | None = None) -> Any:
        found = real(reader, after, until)
        rows.append(len(found))
        return found

    def counted_notes(reader: RunReader, kind: str | None = None, after: int = 0) -> Any:
        found = real_journal(reader, kind, after)
        notes.append(len(found))
        return found

    written, make = Written(tmp_path / "one"), PageMaker()
    for round_ in range(1, 4):
        written.round()
        written.store.note("round", member=0, round=round_, attempt=1, seconds=float(round_))
        with monkeypatch.context() as patch:
            patch.setattr(RunReader, "rows", counted)
            patch.setattr(RunReader, "journal", counted_notes)
            page = make(tmp_path / "one", "v")
        assert page == run_page(tmp_path / "one", "v")
    assert sum(rows) == len(written.store.events())
    assert sum(notes) == len(written.store.journal()) == 3
    written.store.close()
    assert make(tmp_path / "one", "v") == run_page(tmp_path / "one", "v")
    assert make._readers == {}
    again = Written(tmp_path / "two")
    again.round()
    make(tmp_path / "two", "v")
    again.store.close()
    shutil.move(tmp_path / "two", tmp_path / "old")
    other = Written(tmp_path / "two", members=2)
    other.round()
    assert make(tmp_path / "two", "v") == run_page(tmp_path / "two", "v")
    other.store.close()


def test_an_update_has_only_what_changed(tmp_path: Path) -> None:
    """A browser that names the figures that it has gets the others; their tags say which ones it has already."""
    written = Written(tmp_path / "one")
    for _ in range(2):
        written.round()
    written.begin()
    first = run_page(tmp_path / "one", "1")
    live(written, (21, 0.5), round_=3)
    second = run_page(tmp_path / "one", "2")
    update = json.loads(second.body(frozenset(first.tags.values())))
    assert list(update["figures"]) == ["curves"]
    assert update["tags"] == second.tags
    whole = json.loads(second.body())
    before = json.loads(first.body())
    for part in ("figures", "parts"):
        assert {name: update[part].get(name) or before[part][name] for name in whole[part]} == whole[part]
    assert update["parts"] == {}
    assert {**update, "figures": whole["figures"], "parts": whole["parts"]} == whole
    with served(tmp_path) as client:
        (run,) = json.loads(client.ask("/api/runs").body)["runs"]  # type: ignore[attr-defined]
        answer = client.ask(f"/api/run/{run['key']}?known={'.'.join(first.tags.values())}", Accept_Encoding="gzip")
        assert answer.getheader("Content-Encoding") == "gzip"
        sent = json.loads(gzip.decompress(answer.body))  # type: ignore[attr-defined]
        assert sent["figures"] == update["figures"]
        plain = client.ask(f"/api/run/{run['key']}?known=%22,a..<b>")
        assert plain.getheader("Content-Encoding") is None
        assert json.loads(plain.body)["figures"] == whole["figures"]  # type: ignore[attr-defined]
    written.store.close()


def test_an_unchanged_answer_is_not_sent_again(tmp_path: Path) -> None:
    """With the tag of what it has a browser gets 304 and nothing else, until a round is added."""
    written = Written(tmp_path / "one")
    written.round()
    with served(tmp_path) as client:
        runs = client.ask("/api/runs")
        (run,) = json.loads(runs.body)["runs"]  # type: ignore[attr-defined]
        page = client.ask(f"/api/run/{run['key']}")
        for path, answer in (("/api/runs", runs), (f"/api/run/{run['key']}", page)):
            again = client.ask(path, If_None_Match=answer.getheader("ETag") or "")
            assert (again.status, again.body) == (304, b"")  # type: ignore[attr-defined]
        written.round()
        deadline = time.monotonic() + 30
        while client.ask("/api/runs", If_None_Match=runs.getheader("ETag") or "").status == 304:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        while client.ask(f"/api/run/{run['key']}", If_None_Match=page.getheader("ETag") or "").status == 304:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_nothing_is_written(tmp_path: Path) -> None:
    """A run that is looked at has the same files with the same bytes and times."""
    pbt.run(**CLIMB, run_dir=tmp_path / "runs" / "one")

    def state() -> dict[str, tuple[int, bytes]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.read_bytes())
            for path in sorted((tmp_path / "runs").rglob("*"))
            if path.is_file()
        }

    before = state()
    with served(tmp_path / "runs") as client:
        (run,) = json.loads(client.ask("/api/runs").body)["runs"]  # type: ignore[attr-defined]
        assert client.ask(f"/api/run/{run['key']}").status == 200
    assert state() == before


class TestBesideThePage:
    """What is asked for apart from the page of a run: a member, the lines of an overlay, and a comparison."""

    def test_a_member_and_the_lines_of_a_run(self, tmp_path: Path) -> None:
        """The record of a member with its log, and the best, the median and the schedule of the run."""
        run = pbt.run(**CLIMB, run_dir=tmp_path / "one")
        (tmp_path / "one" / "logs").mkdir()
        (tmp_path / "one" / "logs" / "000002-000004.log").write_text("the end")
        with served(tmp_path) as client:
            (listed,) = json.loads(client.ask("/api/runs").body)["runs"]  # type: ignore[attr-defined]
            place = f"/api/run/{listed['key']}"
            record = json.loads(client.ask(f"{place}/member/2").body)  # type: ignore[attr-defined]
            assert record == record_of(read_snapshot(tmp_path / "one"), 2, tmp_path / "one")
            assert record["log"] == {"name": "logs/000002-000004.log", "text": "the end"}
            for wrong in (f"{place}/member/99", f"{place}/member/x", f"{place}/member/-1", "/api/run/0/member/1"):
                assert client.ask(wrong).status == 404
            lines = json.loads(client.ask(f"{place}/series").body)  # type: ignore[attr-defined]
            assert client.ask("/api/run/0/series").status == 404
        best, median = lines["scores"]
        assert best["steps"] == [[5, 10, 15, 20], best["rounds"][1]]
        assert best["steps"][1][-1] == pytest.approx(run.best.score, rel=1e-5)
        assert len(median["rounds"][0]) == 4
        assert [one["name"] for one in lines["schedules"]] == list(CLIMB["space"])

    def test_a_comparison_is_seen_as_one(self, tmp_path: Path) -> None:
        """Its runs are named by plan and seed; the results come with their file; another folder lists it."""
        for plan in ("pbt", "no-evolution"):
            for seed in (0, 1):
                pbt.run(**CLIMB | {"rounds": 1, "seed": seed}, run_dir=tmp_path / "both" / plan / f"seed-{seed}")
        folder = tmp_path / "both"
        watch, reader = Watch(folder), ComparisonReader(folder)
        names = {"no-evolution/seed-0", "no-evolution/seed-1", "pbt/seed-0", "pbt/seed-1"}
        listed = watch.look()
        assert {run.name for run in listed} == names
        assert len({run.key for run in listed}) == 4
        assert reader.read() == {"runs": {name: name.split("/") for name in sorted(names)}}
        own = {"iqm": 1.5, "low": 1.0, "high": 2.0, "seeds": 2}
        plans = {"pbt": {"summary": own, "difference": None}, "x\x1b": {"summary": None, "difference": None}}
        plain = {"task": "climb", "metric": "score", "sentences": ["They differ."], "plans": plans}
        (folder / "comparison.json").write_text(json.dumps(plain))
        found = reader.read()
        assert found is not None
        assert found["rows"] == [["pbt", "1.5", "1 to 2", "–", "–", "–", "2"], ["x?", "–", "–", "–", "–", "–", "0"]]  # noqa: RUF001
        assert found["sentences"] == ["They differ."]
        for broken in ('{"plans": {"pbt": 3}}', "[]", "{", '{"plans": []}'):
            (folder / "comparison.json").write_text(broken)
            assert reader.read() == {"runs": found["runs"]}
        assert ComparisonReader(folder / "pbt").read() is None
        (folder / "comparison.json").write_text(json.dumps(plain))
        (inside,) = ComparisonsReader(tmp_path).read()
        assert (inside["name"], inside["runs"], inside["rows"]) == ("both", 4, found["rows"])
        assert ComparisonsReader(folder).read() == []
        assert ComparisonReader(folder / "pbt" / "seed-0").read() is None

    def test_an_unreadable_folder_hides_no_comparison(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Permissions do not bind root, so that the error is that of a folder whose entries cannot be listed."""
        pbt.run(**CLIMB | {"rounds": 1}, run_dir=tmp_path / "both" / "pbt" / "seed-0")
        (tmp_path / "closed").mkdir()
        listed = Path.iterdir

        def iterdir(folder: Path) -> Iterator[Path]:
            if folder.name == "closed":
                raise PermissionError(folder)
            return listed(folder)

        monkeypatch.setattr(Path, "iterdir", iterdir)
        assert [one["name"] for one in ComparisonsReader(tmp_path).read()] == ["both"]


def test_keys_are_no_paths(tmp_path: Path) -> None:
    """Only runs that are listed are answered, by the key of their name: no path leads anywhere."""
    Written(tmp_path / "runs-of-others").store.close()
    (tmp_path / "runs").mkdir()
    Written(tmp_path / "runs" / "one").store.close()
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "runs-of-others", target_is_directory=True)
    with served(tmp_path / "runs") as client:
        runs = json.loads(client.ask("/api/runs").body)["runs"]  # type: ignore[attr-defined]
        assert [run["name"] for run in runs] == ["one"]
        assert str(tmp_path) not in json.dumps(runs)
        for key in ("one", "..%2Fruns-of-others", "../runs-of-others", "link", "", str(tmp_path)):
            assert client.ask(f"/api/run/{key}").status == 404


def test_a_run_of_one_directory(tmp_path: Path) -> None:
    """A run directory instead of a folder is the only run there is."""
    store = RunStore.create(tmp_path / "one", {"seed": 1, "space": {}})
    watch = Watch(tmp_path / "one")
    assert watch.single
    assert only(watch).name == "one"
    store.close()
