"""Answers for everybody who asks, each made once, and no more of them than the machine can spare.

Browsers ask every two seconds whether something changed, with the tag of what they have, and nearly always the answer
is "no". This was chosen over a stream of server-sent events because every request ends: nobody holds a connection, a
server that is restarted or a laptop that slept needs no repair, and the number of connections is easy to bound. What
is asked for is made in a thread, at most one per run and two in all. How often it is made again is bounded by what it
costs: a run that is large enough to take long to draw is drawn less often.
"""

import asyncio
import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pbt.dashboard.payload import shown
from pbt.dashboard.watch import UNREAD, Watch, WatchedRun
from pbt.report.page import json_text

SHARE = 0.003
"""Part of the machine's CPU time that it may take to draw a run again, and as much for looking what changed."""
PAUSE = 1.0
"""Seconds between two looks, at least."""
KEPT = 8
"""Runs whose pages are kept."""
AT_ONCE = 2

Made = TypeVar("Made")
Maker = Callable[[Path, str], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Bytes and the tag that names them."""

    body: bytes
    tag: str


class Pace:
    """When something may be done again, so that it takes at most a share of the machine.

    Args:
        share: Of all its CPU time.
        pause: Seconds in between at least.
        clock: Seconds that never go back.
    """

    def __init__(self, share: float, pause: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = share * (os.cpu_count() or 1)
        self._pause = pause
        self._clock = clock
        self._free = -float("inf")

    @property
    def open(self) -> bool:
        """Whether it may be done now."""
        return self._clock() >= self._free

    def spent(self, seconds: float) -> None:
        """It was done, and took so much CPU time."""
        self._free = max(self._free, self._clock()) + max(self._pause, seconds / self._rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The page of a run, and what the run was then."""

    answer: Answer
    version: str
    state: str
    pace: Pace
    """When it may be drawn again; each run has its own, so that none waits for a larger one."""


class ResponseCache:
    """The list of runs and the page of each.

    Args:
        watch: What is shown.
        make: Makes the page of a run of a version.
    """

    def __init__(self, watch: Watch, make: Maker = shown) -> None:
        self._watch = watch
        self._make = make
        self._looking = Pace(SHARE, PAUSE)
        self._listed: dict[str, WatchedRun] = {}
        self._list: Answer | None = None
        self._look: asyncio.Task[Answer] | None = None
        self._kept: OrderedDict[str, Drawn] = OrderedDict()
        self._making: dict[str, asyncio.Task[Answer]] = {}
        self._room = asyncio.Semaphore(AT_ONCE)

    async def runs(self) -> Answer:
        """The list, as it is or was a moment ago."""
        if self._list is not None and not self._looking.open:
            return self._list
        if self._look is None:
            self._look = asyncio.create_task(self._look_again())
            self._look.add_done_callback(self._looked)
        # Whoever asks while somebody looks waits for the same look, and goes away without ending it.
        return await asyncio.shield(self._look)

    async def run(self, key: str) -> Answer | None:
        """What is shown of a run; None: there is none of this key."""
        await self.runs()
        listed = self._listed.get(key)
        if listed is None:
            return None
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
            # How a run ended is not waited for.
            if kept.version == listed.version or (kept.state == listed.state and not kept.pace.open):
                return kept.answer
        if key not in self._making:
            task = self._making[key] = asyncio.create_task(self._draw(listed))
            task.add_done_callback(lambda _: self._making.pop(key, None))
        return await asyncio.shield(self._making[key])

    def _looked(self, _: object) -> None:
        self._look = None

    async def _look_again(self) -> Answer:
        listed, seconds = await in_thread(self._watch.look)
        # A large folder is read to its end at first, whatever that costs: it is read once.
        self._looking.spent(0.0 if any(item.state == UNREAD for item in listed) else seconds)
        self._listed = {item.key: item for item in listed}
        plain = {
            "name": self._watch.name,
            "single": self._watch.single,
            "left_out": self._watch.left_out,
            "runs": [item.plain() for item in listed],
        }
        self._list = _answer(json_text(plain).encode())
        return self._list

    async def _draw(self, listed: WatchedRun) -> Answer:
        async with self._room:
            body, seconds = await in_thread(lambda: self._make(listed.path, listed.version))
        pace, answer = Pace(SHARE, 0.0), _answer(body)
        pace.spent(seconds)
        self._kept[listed.key] = Drawn(answer=answer, version=listed.version, state=listed.state, pace=pace)
        self._kept.move_to_end(listed.key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return answer


def _answer(body: bytes) -> Answer:
    return Answer(body=body, tag=f'"{hashlib.sha256(body).hexdigest()[:32]}"')


async def in_thread(work: Callable[[], Made]) -> tuple[Made, float]:
    """The result of work that takes long, and the CPU seconds that it took.

    In a thread that nobody waits for at the end: it only reads, so the process may stop in the midst of it.
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
        except BaseException as raised:  # noqa: BLE001 (raised again where it is waited for)
            error = raised
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, made, error)

    threading.Thread(target=run, daemon=True).start()
    return await future
