"""What lives on the nodes: the same worker as everywhere, and the states that come and go with its rounds."""

import pickle
import platform
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pbt.core.population import StateRef, Stored
from pbt.errors import PBTError
from pbt.executors.base import Outcome, Report, State, TaskBatch
from pbt.executors.machine import version_of
from pbt.executors.transport import TaskSource, load_sources
from pbt.store.files import INLINE_LIMIT, StateFiles

if TYPE_CHECKING:
    from pbt.executors.worker import Worker, WorkerSpec

Blob = Any
"""The bytes of an encoded state, as an array: Ray moves those between nodes without copying them once more."""


class ActorStates:
    """The states of one share: those it starts from came along, those it makes go back with its outcomes."""

    def __init__(self) -> None:
        self.came: dict[StateRef, Blob] = {}
        self.made: dict[StateRef, bytes] = {}
        self._records = StateFiles(None)

    def put(self, ref: StateRef, state: State) -> Stored:
        """Keep it until the share is done; a small one goes in its record.

        Raises:
            StateError: The state holds something that cannot be stored; the message names the key.
        """
        stored = self._records.put(ref, state)
        if stored.blob is None or stored.size <= INLINE_LIMIT:
            return stored
        self.made[ref] = stored.blob
        return replace(stored, blob=None)

    def get(self, ref: StateRef, digest: str, blob: bytes | None = None) -> State:
        """A fresh copy of a state that came along.

        Raises:
            CorruptError: It did not, or it is not the one that was meant.
        """
        if blob is None and ref in self.came:
            blob = self.came[ref].data
        return self._records.get(ref, digest, blob)


class Opened(NamedTuple):
    """How the start of a worker went."""

    trouble: str
    """Why it cannot train; empty: it can."""
    versions: dict[str, str]


class Actor:
    """A worker on some node."""

    def __init__(self, modules: Sequence[TaskSource], payload: bytes, paths: Sequence[str]) -> None:
        self._modules, self._payload = modules, payload
        # Where the driver finds modules; on another machine most of these are not there, and harmless.
        sys.path += [path for path in paths if path not in sys.path]
        self._cargo: Any = None
        self._worker: Worker | None = None

    def open(self) -> Opened:
        """Find the user's program, open the task."""
        there = versions()
        try:
            load_sources(self._modules)
            setup: WorkerSpec = pickle.loads(self._payload)  # noqa: S301 (from our own driver)
            self._cargo = setup.states
            self._worker = setup.open()
        except PBTError as error:
            return Opened(str(error), there)
        except Exception:  # noqa: BLE001 (told to the driver)
            return Opened(f"the task could not be opened:\n{traceback.format_exc()}", there)
        return Opened("", there)

    def run(
        self, share: TaskBatch, refs: Sequence[StateRef], *parcels: Blob
    ) -> tuple[list[Outcome], *tuple[Blob, ...]]:
        """Train a share.

        Args:
            share: What to train.
            refs: The states that it starts from.
            *parcels: Those states.

        Returns:
            The outcomes, and for each of them the state that was made, where it is not in its record.
        """
        if self._worker is None:
            raise RuntimeError("a worker trains after it was opened")
        if isinstance(self._cargo, ActorStates):
            self._cargo.came, self._cargo.made = dict(zip(refs, parcels, strict=True)), {}
        outcomes = self._worker.run(share)
        return outcomes, *(self._parcel(outcome) for outcome in outcomes)

    def pulse(self) -> None:
        """A sign of life, also in the middle of a round."""

    def _parcel(self, outcome: Outcome) -> Blob:
        if (
            not isinstance(outcome, Report)
            or outcome.stored.blob is not None
            or not isinstance(self._cargo, ActorStates)
        ):
            return None
        return np.frombuffer(self._cargo.made.pop(StateRef(outcome.member, outcome.round)), dtype=np.uint8)


def versions() -> dict[str, str]:
    """What results depend on, and what must be alike on all nodes."""
    names = ("population-based-training", "numpy", "torch")
    return {"python": platform.python_version(), **{name: version_of(name) or "none" for name in names}}
