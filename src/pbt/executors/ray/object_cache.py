"""References to states in the cluster's memory, so that a hand-over can bypass the driver."""

from collections import OrderedDict
from typing import Any

from pbt.core.population import StateRef


class ObjectCache:
    """References to states, evicted least recently used first when they exceed their part of the object store.

    All of these states are durable elsewhere: an eviction costs one read of a file and loses nothing.

    Args:
        most: Maximal size in bytes.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._held: OrderedDict[StateRef, tuple[Any, int]] = OrderedDict()
        self._bytes = 0

    def add(self, ref: StateRef, parcel: Any, size: int) -> None:
        """Hold a state, and drop the one of two rounds before, which is no longer needed."""
        self.drop(ref)
        self.drop(StateRef(ref.member, ref.round - 2))
        self._held[ref] = parcel, size
        self._bytes += size
        while self._bytes > self._most and len(self._held) > 1:
            self.drop(next(iter(self._held)))

    def get(self, ref: StateRef) -> Any:
        """The reference; None: not held."""
        if ref not in self._held:
            return None
        self._held.move_to_end(ref)
        return self._held[ref][0]

    def drop(self, ref: StateRef) -> None:
        """Drop a reference, if held."""
        _, size = self._held.pop(ref, (None, 0))
        self._bytes -= size
