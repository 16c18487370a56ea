"""The remote side of the Ray executor: a worker in an actor, and the states of its current batch."""

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
"""The bytes of an encoded state as an array, which Ray moves between nodes without a further copy."""


class ActorStates:
    """The states of one batch: its start states arrive with it, and the new ones return with its outcomes."""

    def __init__(self) -> None:
        self.came: dict[StateRef, Blob] = {}
        self.made: dict[StateRef, bytes] = {}
        self._records = StateFiles(None)

    @property
    def workspaces(self) -> None:
        """None: working folders are in the node's temporary folder."""

    def put(self, ref: StateRef, state: State) -> Stored:
        """Keep a state until the batch is done; a small one goes into its record.

        Raises:
            StateError: It contains a value that cannot be stored; the message names the key.
        """
        stored = self._records.put(ref, state)
        if stored.blob is None or stored.size <= INLINE_LIMIT:
            return stored
        self.made[ref] = stored.blob
        return replace(stored, blob=None)

    def get(self, ref: StateRef, digest: str, blob: bytes | None = None) -> State:
        """A fresh copy of a start state.

        Raises:
            CorruptError: It did not arrive, or has another digest.
        """
        if blob is None and ref in self.came:
            blob = self.came[ref].data
        return self._records.get(ref, digest, blob)


class Opened(NamedTuple):
    """The result of a worker's start."""

    trouble: str
    """The reason why it cannot train; empty if it can."""
    versions: dict[str, str]


class Actor:
    """A worker on a node."""

    def __init__(self, modules: Sequence[TaskSource], payload: bytes, paths: Sequence[str]) -> None:
        self._modules, self._payload = modules, payload
        # The driver's module search path; entries that are missing on another machine are harmless.
        sys.path += [path for path in paths if path not in sys.path]
        self._cargo: Any = None
        self._worker: Worker | None = None

    def open(self) -> Opened:
        """Load the user's program and open the task."""
        installed = versions()
        try:
            load_sources(self._modules)
            setup: WorkerSpec = pickle.loads(self._payload)  # noqa: S301 (from our own driver)
            self._cargo = setup.states
            self._worker = setup.open()
        except PBTError as error:
            return Opened(str(error), installed)
        except Exception:  # noqa: BLE001 (reported to the driver)
            return Opened(f"the task could not be opened:\n{traceback.format_exc()}", installed)
        return Opened("", installed)

    def run(
        self, share: TaskBatch, refs: Sequence[StateRef], *parcels: Blob
    ) -> tuple[list[Outcome], *tuple[Blob, ...]]:
        """Train a batch.

        Args:
            share: The batch.
            refs: Names of its start states.
            *parcels: Those states.

        Returns:
            The outcomes, and for each of them the new state, unless its record contains it.
        """
        if self._worker is None:
            raise RuntimeError("expected `open` before `run`")
        if isinstance(self._cargo, ActorStates):
            self._cargo.came, self._cargo.made = dict(zip(refs, parcels, strict=True)), {}
        outcomes = self._worker.run(share)
        return outcomes, *(self._parcel(outcome) for outcome in outcomes)

    def pulse(self) -> None:
        """A sign of life, even during a round."""

    def _parcel(self, outcome: Outcome) -> Blob:
        if (
            not isinstance(outcome, Report)
            or outcome.stored.blob is not None
            or not isinstance(self._cargo, ActorStates)
        ):
            return None
        return np.frombuffer(self._cargo.made.pop(StateRef(outcome.member, outcome.round)), dtype=np.uint8)


def versions() -> dict[str, str]:
    """The versions that results depend on, which must be equal on all nodes."""
    names = ("population-based-training", "numpy", "torch")
    return {"python": platform.python_version(), **{name: version_of(name) or "none" for name in names}}
