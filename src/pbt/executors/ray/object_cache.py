"""Which states are still in the cluster's own memory, so that a hand-over need not go through the driver's."""

from collections import OrderedDict
from typing import Any

from pbt.core.population import StateRef


class ObjectCache:
    """References to states, the least used let go first when they take more than a share of the object store.

    Every one of them is durable elsewhere: to let go costs one read of a file, and loses nothing.

    Args:
        most: Bytes to hold at most.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._held: OrderedDict[StateRef, tuple[Any, int]] = OrderedDict()
        self._bytes = 0

    def add(self, ref: StateRef, parcel: Any, size: int) -> None:
        """Hold this state too; the one two rounds before it is needed by nobody any more."""
        self.drop(ref)
        self.drop(StateRef(ref.member, ref.round - 2))
        self._held[ref] = parcel, size
        self._bytes += size
        while self._bytes > self._most and len(self._held) > 1:
            self.drop(next(iter(self._held)))

    def get(self, ref: StateRef) -> Any:
        """The reference; None: it is not held."""
        if ref not in self._held:
            return None
        self._held.move_to_end(ref)
        return self._held[ref][0]

    def drop(self, ref: StateRef) -> None:
        """Let go of it, if it is held."""
        _, size = self._held.pop(ref, (None, 0))
        self._bytes -= size
