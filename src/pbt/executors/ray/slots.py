"""Records of the driver: an actor with its pending calls, and a new state on its way to the driver."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pbt.executors.base import TaskBatch

_PULSES = 6
"""Unanswered signs of life after which a worker counts as silent."""


@dataclass(slots=True, kw_only=True, eq=False)
class ActorSlot:
    """An actor and its pending calls."""

    actor: Any
    opening: Any
    """Reference to the result of its start; None: it is ready."""
    node: str = ""
    """The node; known when it is ready."""
    share: TaskBatch | None = None
    answer: Any = None
    """Reference to the outcomes of its batch."""
    parcels: list[Any] = field(default_factory=list)
    """References to the states of these outcomes."""
    started: float = 0.0
    pulse: Any = None
    heard: float = 0.0

    def released(self) -> TaskBatch:
        """Return its batch and mark it as idle."""
        share = self.share or ()
        self.share, self.answer, self.parcels = None, None, []
        return share

    def feel(self, ray: Any, now: float, silence: float) -> None:
        """Request a sign of life at regular intervals, several in `silence` seconds."""
        if self.pulse is None:
            if now - self.heard > silence / _PULSES:
                self.pulse = self.actor.pulse.options(concurrency_group="pulse").remote()
        elif ray.wait([self.pulse], timeout=0)[0]:
            self.pulse, self.heard = None, now


class MadeState(NamedTuple):
    """A new state, still where it was made."""

    parcel: Any
    """Reference to its bytes."""
    actor: Any
    node: str
    files: Mapping[str, int]
    """The files that it needs, on the node of this actor."""
