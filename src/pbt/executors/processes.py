"""The process executor: spawned workers that live for the whole run, each with a pipe of its own.

Workers are spawned, because a forked process cannot use a GPU. Each has its own pipe, because a shared queue can stay
locked forever after one of its users is killed. A worker that dies or hangs is not its member's fault: a new worker
repeats the round from the same state with the same seed, hence with the same bits.
"""

import atexit
import contextlib
import itertools
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from pbt.closing import Closing
from pbt.core.population import StateRef
from pbt.errors import PBTError, TaskError, UsageError, WorkerError
from pbt.executors.base import Failure, Incident, Outcome, RoundTask, TaskBatch
from pbt.executors.devices import device_lost
from pbt.executors.process_tree import DEATH_SECONDS, end, ending, interrupts_blocked, unblock_interrupts
from pbt.executors.retry import (
    BEAT_SECONDS,
    PAUSE_SECONDS,
    START_ATTEMPTS,
    START_SECONDS,
    Limits,
    incidents_of,
    tried_again,
)
from pbt.executors.transport import GUARD, UNGUARDED, WORKER_NAME, TaskSource, load_sources, pickled, sources
from pbt.executors.worker import WorkerSpec, error_text
from pbt.executors.worker import incidents_of as incidents_of_worker

_NEAR = 64
"""Batches at the front of the queue among which a worker finds one that continues its own state."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Slot:
    """A slot for a worker, with its current worker."""

    device: str
    process: SpawnProcess
    connection: Connection
    ready: bool = False
    share: TaskBatch | None = None
    held: deque[StateRef] = field(default_factory=lambda: deque(maxlen=_NEAR))
    """The states that it trained last, which it may have in memory."""
    heard: float = field(default_factory=lambda: time.monotonic() + START_SECONDS)
    started: float = 0.0


class ProcessExecutor(Closing):
    """Trains on `len(devices)` spawned workers.

    Args:
        setup: The specification of a worker, which also groups the tasks into batches; its device is replaced by one
            of `devices`.
        devices: One per worker, as `["cuda:0", "cuda:1"]` or `["cpu", "cpu"]`; several joined by commas.
        limits: When a worker counts as lost, and a round as failed.

    Raises:
        TaskError: The task cannot be sent to another process.
    """

    def __init__(self, setup: WorkerSpec, devices: Sequence[str], limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._payloads = {device: (sources(), pickled(setup.on(device))) for device in devices}
        self._setup, self._devices = setup, list(devices)
        self._slots: list[_Slot] = []
        self._queue: deque[TaskBatch] = deque()
        self._outcomes: list[Outcome] = []
        self._incidents: list[Incident] = []
        self._deaths_at_start = 0
        self._looked = time.monotonic()
        # Workers are not daemons, so that tasks may start processes of their own. The interpreter would wait for them
        # at its exit, so `close` is registered to end them first.
        atexit.register(self.close)

    @property
    def slots(self) -> int:
        """One per worker."""
        return len(self._devices)

    def submit(self, tasks: Sequence[RoundTask]) -> None:
        """Queue the tasks; start workers if there are more tasks than idle workers."""
        self._queue.extend(self._setup.shares(tasks))
        idle = sum(slot.share is None for slot in self._slots)
        for device in self._devices[len(self._slots) :][: max(0, len(self._queue) - idle)]:
            self._slots.append(self._spawn(device))
        self._deal()

    def wait(self) -> list[Outcome]:
        """Block until there is an outcome; every wait inside is bounded."""
        while not self._outcomes and (self._queue or any(slot.share for slot in self._slots)):
            for source in wait([slot.connection for slot in self._slots], timeout=BEAT_SECONDS):
                slot = next(slot for slot in self._slots if slot.connection is source)
                self._listen(slot)
            self._watch()
            self._deal()
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def incidents(self) -> list[Incident]:
        """Lost workers and repeated rounds since the last call."""
        incidents, self._incidents = self._incidents, []
        return incidents

    def close(self) -> None:
        """End the workers: ask them to stop, and kill them after three seconds."""
        atexit.unregister(self.close)
        self._queue.clear()
        for slot in self._slots:
            # A closed pipe ends an idle worker at once, and a busy one at its next heartbeat.
            slot.connection.close()
        end([slot.process for slot in self._slots])
        self._slots.clear()

    def _spawn(self, device: str) -> _Slot:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, *self._payloads[device]), name=WORKER_NAME)
        try:
            with interrupts_blocked():
                process.start()
        except BaseException:
            # Interrupted, or no resources for another process: nothing will wait for this one.
            ours.close()
            raise
        finally:
            theirs.close()
        return _Slot(device=device, process=process, connection=ours)

    def _deal(self) -> None:
        for slot in self._slots:
            if self._queue and slot.ready and slot.share is None:
                slot.share, slot.started = self._next(slot), time.monotonic()
                try:
                    with self._bounded(slot):
                        slot.connection.send(slot.share)
                except OSError:
                    self._lost(slot, "died before it could take its round")

    def _next(self, slot: _Slot) -> TaskBatch:
        """Take a batch from the queue: on a GPU one that continues a state of this worker, if one is near the front."""
        if not slot.device.startswith("cuda"):
            return self._queue.popleft()
        near = enumerate(itertools.islice(self._queue, _NEAR))
        index = next((i for i, share in near if any(task.start in slot.held for task in share)), 0)
        share = self._queue[index]
        del self._queue[index]
        return share

    def _listen(self, slot: _Slot) -> None:
        """Receive the messages of a worker."""
        try:
            while slot.connection.poll():
                with self._bounded(slot):
                    kind, content = slot.connection.recv()
                slot.heard = time.monotonic()
                if kind == "ready":
                    slot.ready, self._deaths_at_start = True, 0
                elif kind == "broken":
                    raise TaskError(content)
                elif kind == "incident":
                    self._incidents.append(content)
                elif kind == "lost":
                    self._lost(slot, content)
                    return
                elif kind == "outcomes" and slot.share is not None:
                    self._outcomes.extend(content)
                    slot.held.extend(StateRef(one.member, one.round) for one in content)
                    slot.share = None
        except (EOFError, OSError):
            # A pipe closes shortly before its process has an exit code.
            end([slot.process], DEATH_SECONDS)
            self._lost(slot, f"died ({ending(slot.process.exitcode)})")

    @contextlib.contextmanager
    def _bounded(self, slot: _Slot) -> Iterator[None]:
        """Kill the worker after a time-out; one that stopped in the middle of a message would block forever."""
        timer = threading.Timer(self._limits.silence, slot.process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _watch(self) -> None:
        """Replace the workers that are dead, silent, or too long at one round."""
        now = time.monotonic()
        away, self._looked = now - self._looked, now
        for slot in list(self._slots):
            if away > PAUSE_SECONDS:
                slot.heard, slot.started = max(now, slot.heard), slot.started + away
            limit = None if slot.share is None else self._limits.seconds(slot.share)
            if not slot.process.is_alive():
                # The pipe alone is no evidence: a process forked by the worker can hold it open.
                self._listen(slot)
                if slot in self._slots:
                    self._lost(slot, f"died ({ending(slot.process.exitcode)})")
            elif now - slot.heard > self._limits.silence:
                self._lost(slot, f"was silent for {self._limits.silence:g} s")
            elif limit is not None and now - slot.started > limit:
                self._lost(slot, f"took longer than the time limit of {limit:g} s")

    def _lost(self, slot: _Slot, how: str) -> None:
        """Replace a worker and retry its batch."""
        end([slot.process], 0.0)
        slot.connection.close()
        if not slot.ready:
            if slot.process.exitcode == UNGUARDED:
                raise UsageError(GUARD) from None
            self._deaths_at_start += 1
            if self._deaths_at_start >= START_ATTEMPTS:
                raise WorkerError(
                    f"a worker {how} during its start, {START_ATTEMPTS} times in a row; see its output above"
                )
        share = slot.share or ()
        self._incidents += incidents_of(share, how)
        shares, failures = tried_again(share, how, self._limits)
        self._queue.extendleft(reversed(shares))
        self._outcomes += failures
        self._slots[self._slots.index(slot)] = self._spawn(slot.device)


def _serve(connection: Connection, modules: list[TaskSource], payload: bytes) -> None:
    """Main function of a worker: open the task, then train batches until the pipe closes."""
    # Ctrl-C reaches the whole process group; only the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    unblock_interrupts()
    lock = threading.Lock()

    def say(kind: str, content: object = None) -> None:
        with lock:
            connection.send((kind, content))

    threading.Thread(target=_beat, args=(say, os.getppid()), daemon=True).start()
    try:
        load_sources(modules)
        worker = pickle.loads(payload).open()  # noqa: S301 (from our own parent, through our own pipe)
    except Exception as error:  # noqa: BLE001 (reported to the parent)
        if isinstance(error, PBTError):
            say("broken", str(error))
        elif device_lost(error):
            say("broken", f"a worker could not be started: {error_text(error)[0]}; check the device with nvidia-smi")
        else:
            say("broken", f"the task could not be opened:\n{traceback.format_exc()}")
        return
    # A broken pipe means that the parent has ended; there is no one to report to.
    with contextlib.suppress(EOFError, OSError):
        say("ready")
        while True:
            outcomes = worker.run(connection.recv())
            for incident in incidents_of_worker(worker):
                say("incident", incident)
            lost = [outcome for outcome in outcomes if isinstance(outcome, Failure) and outcome.cause == "device"]
            if lost:
                # Only a new process can use the device again, if any can: the round is repeated there.
                say("lost", f"lost its device: {lost[0].message}")
                return
            say("outcomes", outcomes)


def _beat(say: Any, parent: int) -> None:
    """Send a sign of life every second; end the worker when the parent has ended."""
    while True:
        time.sleep(BEAT_SECONDS)
        if os.getppid() != parent:
            # The pipe alone is no evidence: a process forked by the parent can hold its end open.
            os._exit(1)
        try:
            say("beat")
        except (OSError, ValueError):
            os._exit(1)
