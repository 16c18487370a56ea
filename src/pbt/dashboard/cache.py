"""Response cache: each page is rendered once per version, within a CPU budget.

Browsers poll every two seconds with the tag of their version, and the answer is nearly always "unchanged". Polling was
preferred to server-sent events because every request ends: no connection is held, nothing has to be repaired after a
restart or sleep, and the number of connections is easy to bound. Pages are rendered in threads, at most one per run and
two in all. A page that takes long to render is rendered less often, but at least every `LONGEST` seconds.
"""

import asyncio
import gc
import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pbt.dashboard.comparison import ComparisonReader, ComparisonsReader
from pbt.dashboard.payload import PageMaker, RunPage
from pbt.dashboard.watch import UNREAD, Watch, WatchedRun
from pbt.report.page import json_text
from pbt.runs.run_notes import read_note

SHARE = 0.003
"""The share of the machine's CPU time for rendering a run again; the same share is allowed for detecting changes."""
PAUSE = 1.0
"""The fewest seconds between two looks for changes."""
LONGEST = 60.0
"""The most seconds until a changed run may be rendered again."""
KEPT = 8
"""The most runs whose pages are cached."""
MOST_SERIES = 200
"""The most runs whose lines for comparison are cached."""
AT_ONCE = 2
"""The most pages rendered at the same time."""

Made = TypeVar("Made")
Maker = Callable[[Path, str], RunPage]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The body of a response with its entity tag, and the page that it was made of."""

    body: bytes
    tag: str
    page: RunPage | None = None


class Pace:
    """Limits repeated work to a share of the machine's CPU time.

    Args:
        share: Share of the CPU time of all cores.
        pause: The fewest seconds between two repetitions.
        longest: The most seconds until the next repetition, even if the share is exceeded.
        clock: A monotonic clock in seconds.
    """

    def __init__(
        self,
        share: float,
        pause: float,
        longest: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = share * (os.cpu_count() or 1)
        self._pause = pause
        self._longest = longest
        self._clock = clock
        self._free = -float("inf")

    @property
    def open(self) -> bool:
        """Whether the work may be repeated now."""
        return self._clock() >= self._free

    def spent(self, seconds: float) -> None:
        """Record that the work took this much CPU time."""
        self._free = max(self._free, self._clock()) + min(self._longest, max(self._pause, seconds / self._rate))


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedPage:
    """The page of a run with the version and state it was rendered from."""

    answer: Answer
    version: str
    state: str
    pace: Pace
    """When it may be rendered again; each run has its own, so that none waits for a larger one."""


class ResponseCache:
    """Caches the list of runs and their pages.

    Args:
        watch: The watched runs.
        make: Renders the page of a run, from its path and version. Default: a `PageMaker`.
    """

    def __init__(self, watch: Watch, make: Maker | None = None) -> None:
        self._watch = watch
        self._make: Maker = make or PageMaker()
        self._comparison = ComparisonReader(watch.place)
        self._comparisons = ComparisonsReader(watch.place)
        self._looking = Pace(SHARE, PAUSE)
        self._listed: dict[str, WatchedRun] = {}
        self._list: Answer | None = None
        self._look: asyncio.Task[Answer] | None = None
        self._kept: OrderedDict[str, CachedPage] = OrderedDict()
        self._series: OrderedDict[str, tuple[str, Answer]] = OrderedDict()
        self._making: dict[str, asyncio.Task[Answer]] = {}
        self._room = asyncio.Semaphore(AT_ONCE)

    async def runs(self) -> Answer:
        """The list of runs, at most `PAUSE` seconds or the CPU budget's interval old."""
        if self._list is not None and not self._looking.open:
            return self._list
        if self._look is None:
            self._look = asyncio.create_task(self._look_again())
            self._look.add_done_callback(self._looked)
        # Concurrent requests wait for the same look; one that is cancelled does not cancel it.
        return await asyncio.shield(self._look)

    async def run(self, key: str) -> Answer | None:
        """The page of a run; None if no run has this key."""
        await self.runs()
        listed = self._listed.get(key)
        if listed is None:
            return None
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
            # The end of a run is shown at once, whatever its pace.
            if kept.version == listed.version or (kept.state == listed.state and not kept.pace.open):
                return kept.answer
        if key not in self._making:
            task = self._making[key] = asyncio.create_task(self._draw(listed))
            task.add_done_callback(lambda _: self._making.pop(key, None))
        return await asyncio.shield(self._making[key])

    async def member(self, key: str, number: int) -> Answer | None:
        """The record of a member; None if there is no such run or member."""
        await self.runs()
        listed = self._listed.get(key)
        if listed is None or not isinstance(self._make, PageMaker):
            return None
        make = self._make.member
        async with self._room:
            body, _ = await in_thread(lambda: make(listed.path, listed.version, number))
        return None if body is None else _answer(body)

    async def series(self, key: str) -> Answer | None:
        """The lines of a run that are laid over those of others; None if no run has this key."""
        await self.runs()
        listed = self._listed.get(key)
        if listed is None or not isinstance(self._make, PageMaker):
            return None
        kept = self._series.get(key)
        if kept is not None and kept[0] == listed.version:
            return kept[1]
        make = self._make.series
        async with self._room:
            body, _ = await in_thread(lambda: make(listed.path, listed.version))
        answer = _answer(body)
        self._series[key] = listed.version, answer
        while len(self._series) > MOST_SERIES:
            self._series.popitem(last=False)
        return answer

    def _rendered(self, listed: WatchedRun) -> Answer:
        with _paused_collection:
            page = self._make(listed.path, listed.version)
            return _answer(page.body(), page)

    def _looked(self, _: object) -> None:
        self._look = None

    def _read_list(self) -> tuple[list[WatchedRun], dict[str, Any]]:
        """The runs, and the list with their notes and comparisons as plain values."""
        listed = self._watch.look()
        notes = [read_note(item.path) for item in listed]
        plain = [{"note": note.text, "tags": list(note.tags)} for note in notes]
        return listed, {
            "name": self._watch.name,
            "single": self._watch.single,
            "left_out": self._watch.left_out,
            "comparison": self._comparison.read(),
            "comparisons": [] if self._watch.single else self._comparisons.read(),
            "runs": [item.plain() | note for item, note in zip(listed, plain, strict=True)],
        }

    async def _look_again(self) -> Answer:
        (listed, plain), seconds = await in_thread(self._read_list)
        # The first pass over a large folder is not slowed down: each run is read in full only once.
        self._looking.spent(0.0 if any(item.state == UNREAD for item in listed) else seconds)
        self._listed = {item.key: item for item in listed}
        self._list = _answer(json_text(plain).encode())
        return self._list

    async def _draw(self, listed: WatchedRun) -> Answer:
        async with self._room:
            answer, seconds = await in_thread(lambda: self._rendered(listed))
        pace = Pace(SHARE, 0.0, LONGEST)
        pace.spent(seconds)
        self._kept[listed.key] = CachedPage(answer=answer, version=listed.version, state=listed.state, pace=pace)
        self._kept.move_to_end(listed.key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return answer


class PausedCollection:
    """Pauses the collection of cyclic garbage. A context manager, also in several threads at once.

    A page of a large run consists of millions of objects without cycles; collections during its rendering took a
    quarter of the time and freed nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            gc.disable()

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                gc.enable()


_paused_collection = PausedCollection()


def _answer(body: bytes, page: RunPage | None = None) -> Answer:
    return Answer(body=body, tag=f'"{hashlib.sha256(body).hexdigest()[:32]}"', page=page)


async def in_thread(work: Callable[[], Made]) -> tuple[Made, float]:
    """Run slow work in a thread; returns its result and the CPU seconds that it took.

    The thread is a daemon: it only reads, so the process may exit while it runs.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[tuple[Made, float]] = loop.create_future()

    def settle(made: tuple[Made, float] | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        elif made is not None:
            future.set_result(made)

    def run() -> None:
        made, error, before = None, None, time.thread_time()
        try:
            made = work(), time.thread_time() - before
        except BaseException as raised:  # noqa: BLE001 (raised again by the future)
            error = raised
        with suppress(RuntimeError):  # the loop is closed, so nothing awaits the future
            loop.call_soon_threadsafe(settle, made, error)

    threading.Thread(target=run, daemon=True).start()
    return await future
