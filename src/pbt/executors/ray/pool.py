"""The actors of a run: their start where there is work and room, and their end on nodes that are about to go."""

import contextlib
import logging
import time
from collections.abc import Collection
from typing import Any

from pbt.executors.base import TaskBatch
from pbt.executors.ray.autoscaling import GROWTH_SECONDS, PENDING
from pbt.executors.ray.nodes import Nodes
from pbt.executors.ray.session import ClusterSession
from pbt.executors.ray.slots import ActorSlot
from pbt.executors.retry import BEAT_SECONDS, START_SECONDS

log = logging.getLogger("pbt")

OPENING_SECONDS = 20.0
"""Time after the first ready worker for the other ones of the start, with which the first round waits."""


class ActorPool:
    """The actors of a run.

    Args:
        session: The cluster.
        nodes: The nodes that are left out.
        slots: The actors, empty at the start; shared with the executor.
        most: Maximal number of actors; None: as many as there is work and room for.
    """

    def __init__(self, session: ClusterSession, nodes: Nodes, slots: list[ActorSlot], most: int | None) -> None:
        self._session, self._nodes, self._slots, self._most = session, nodes, slots, most or 2**31
        self._room = 0
        """The number of workers that the nodes could hold when actors were last started."""
        self._announced = False
        """Whether a line says that workers wait for nodes."""
        self._noticed: set[str] = set()
        self._first_ready: float | None = None
        self._growing = 0.0
        """When the autoscaler was last starting nodes."""
        self._started = 0.0
        self.begun = False
        """Whether the first round may begin: the nodes of the start are compared with the driver."""

    def grow(self, queue: Collection[TaskBatch]) -> None:
        """Start as many actors as there is work and room for, also on nodes added later."""
        with contextlib.suppress(TimeoutError):
            self._start_actors(len(queue))

    def _start_actors(self, queued: int) -> None:
        going = self._session.going
        slots = [slot for slot in self._slots if slot.node not in going]
        wanted = min(self._most, queued + sum(slot.share is not None for slot in slots))
        if wanted <= len(slots):
            return
        self._room = most = self._session.room(self._nodes.left_out)
        if self._session.scaler is not None:
            # Actors that wait for room make the cluster grow, and their demand ends with this run.
            most += PENDING
            self._announce(wanted - self._room)
        for _ in range(min(wanted, most) - len(slots)):
            self._slots.append(self._session.start_actor(self._nodes.selector(going)))
            self._started = time.monotonic()

    def _announce(self, waiting: int) -> None:
        if waiting > 0 and not self._announced:
            log.info("ray: the autoscaler of the cluster starts nodes for %d workers (%s)", waiting, self._session.need)
        self._announced = waiting > 0

    def opened(self, now: float) -> None:
        """Take note that a worker is ready."""
        self._first_ready = self._first_ready or now

    def may_begin(self) -> bool:
        """Whether the nodes of the start are compared: all workers that had room are open, or late."""
        if not self.begun and self._first_ready is not None:
            late = time.monotonic() - self._first_ready > OPENING_SECONDS
            there = sum(slot.opening is None for slot in self._slots)
            self.begun = late or there >= min(len(self._slots), self._room)
        return self.begun

    def opening(self) -> bool:
        """Whether actors are starting that may still become ready soon."""
        late = time.monotonic() - self._started > START_SECONDS
        return not late and any(slot.opening is not None for slot in self._slots)

    def ready(self) -> set[Any]:
        """The references that are ready, after at most one beat."""
        waiting = [slot.opening for slot in self._slots if slot.opening is not None]
        waiting += [slot.answer for slot in self._slots if slot.share is not None]
        if not waiting:
            time.sleep(BEAT_SECONDS / 10)  # until a node is added or the time-out ends the run
            return set()
        ray = self._session.ray
        ray.wait(waiting, timeout=BEAT_SECONDS, fetch_local=False)
        return set(ray.wait(waiting, num_returns=len(waiting), timeout=0, fetch_local=False)[0])

    def heed_notices(self) -> set[str]:
        """Take idle workers off the nodes that are about to go; a round that is being trained there may end.

        Returns:
            The nodes with new notices.
        """
        self._session.look()
        for slot in [slot for slot in self._slots if slot.node in self._session.going]:
            if slot.opening is None and slot.share is None:
                self._session.kill(slot)
                self._slots.remove(slot)
        new = self._session.going - self._noticed
        self._noticed |= new
        return new

    def gave_up(self, progress: float, now: float) -> bool:
        """Whether no worker is to be expected any more; nodes that are being started take longer than workers.

        Args:
            progress: Time of the last progress of the run.
            now: Time.
        """
        scaler = self._session.scaler
        if scaler is not None and scaler.pending:
            self._growing = now
        return now - max(progress, self._growing) > START_SECONDS or now - progress > GROWTH_SECONDS
