"""The remote side of the Ray executor: a worker in an actor, and the states of its current batch."""

import logging
import os
import pickle
import platform
import secrets
import shutil
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pbt.core.population import StateRef, Stored
from pbt.errors import PBTError, WorkerError
from pbt.executors.base import Failure, Outcome, Report, State, TaskBatch
from pbt.executors.cluster_data import hold
from pbt.executors.fingerprint import Fingerprint, code_digests, own_digests, recording
from pbt.executors.machine import version_of
from pbt.executors.ray.sent_data import SentData, receive
from pbt.executors.transport import TaskSource, load_sources
from pbt.executors.worker import incidents_of
from pbt.store.files import INLINE_LIMIT, REFERENCES, StateFiles, ref_of
from pbt.store.manifest import FileContent
from pbt.store.objects import FileObjects, References

if TYPE_CHECKING:
    from pbt.executors.worker import Worker, WorkerSpec

log = logging.getLogger("pbt")

Blob = Any
"""The bytes of an encoded state as an array, which Ray moves between nodes without a further copy."""


_FOLDER = "pbt-actor-"


class ActorStates:
    """The states of one batch: its start states arrive with it, and the new ones return with its outcomes."""

    def __init__(self) -> None:
        self.came: dict[StateRef, Blob] = {}
        self.made: dict[StateRef, bytes] = {}
        self.folders: dict[StateRef, dict[str, int]] = {}
        """The files that the new states need, sizes by SHA-256."""
        self._records = StateFiles(None)
        self._swept: References | None = None

    def open(self) -> None:
        """Choose a folder on this node for the files of `Folder`s; those of killed actors are removed."""
        root = Path(tempfile.gettempdir())
        for path in root.glob(f"{_FOLDER}*"):
            pid = path.name.removeprefix(_FOLDER).partition("-")[0]
            if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
                shutil.rmtree(path, ignore_errors=True)
        self._records = StateFiles(None, beside=root / f"{_FOLDER}{os.getpid()}-{secrets.token_hex(8)}")
        self._swept = References(self.objects)

    @property
    def objects(self) -> FileObjects:
        """The files on this node."""
        objects = self._records.objects
        if objects is None:
            raise RuntimeError("expected `open` before the first round")
        return objects

    @property
    def workspaces(self) -> Path | None:
        """The folder for the working folders of rounds."""
        return self._records.workspaces

    @property
    def live(self) -> None:
        """None: this node may share no folder with the readers."""
        return

    def begin(self, came: Mapping[StateRef, Blob], needed: Mapping[StateRef, Mapping[str, int]]) -> None:
        """Take over the start states of a batch, and drop the files that neither they nor the last batch need.

        Args:
            came: The states.
            needed: The files of those with folders, which are here already.
        """
        for ref, files in needed.items():
            self._records.write_references(ref, files)
        for path in self.objects.root.parent.glob(f"*{REFERENCES}"):
            if ref_of(path.name, REFERENCES) not in {*needed, *self.folders}:
                path.unlink(missing_ok=True)
        if self._swept is not None:
            self._swept.sweep(REFERENCES)
        self.came, self.made, self.folders = dict(came), {}, {}

    def put(self, ref: StateRef, state: State) -> Stored:
        """Keep a state until the batch is done; a small one goes into its record.

        Raises:
            StateError: It contains a value that cannot be stored; the message names the key.
        """
        stored = self._records.put(ref, state)
        files = self._records.references(ref)
        if files:
            self.folders[ref] = files
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
    fingerprint: Fingerprint
    """Digests of its code and data."""
    node: str
    """The identifier of its node."""
    place: str
    """The name of its node in messages."""


class ActorProgram(NamedTuple):
    """All that an actor needs to open the task."""

    modules: Sequence[TaskSource]
    payload: bytes
    """The pickled specification of the worker."""
    paths: Sequence[str]
    """The driver's module search path."""
    code: Sequence[str]
    """The modules of which it reports digests."""
    data: SentData | None
    """The data of `Cluster(data=...)`."""


class Actor:
    """A worker on a node."""

    def __init__(self, program: ActorProgram) -> None:
        self._program: ActorProgram | None = program
        # The driver's module search path; entries that are missing on another machine are harmless.
        sys.path += [path for path in program.paths if path not in sys.path]
        self._cargo: Any = None
        self._worker: Worker | None = None

    def open(self) -> Opened:
        """Load the user's program and open the task."""
        node, place = node_here()
        here = partial(Opened, versions=versions(), node=node, place=place)
        program, self._program = self._program, None
        if program is None:
            raise RuntimeError("expected `open` once")
        try:
            load_sources(program.modules)
            if program.data is not None:
                hold(receive(sys.modules["ray"], program.data))
            setup: WorkerSpec = pickle.loads(program.payload)  # noqa: S301 (from our own driver)
            self._cargo = setup.states
            if isinstance(self._cargo, ActorStates):
                self._cargo.open()
            digests: dict[str, str] = {}
            with recording(digests):
                self._worker = setup.open()
            digests.update(own_digests(setup.task) | code_digests(program.code))
        except PBTError as error:
            return here(str(error), fingerprint={})
        except Exception:  # noqa: BLE001 (reported to the driver)
            return here(f"the task could not be opened:\n{traceback.format_exc()}", fingerprint={})
        return here("", fingerprint=digests)

    def run(
        self,
        share: TaskBatch,
        needed: Mapping[StateRef, Mapping[str, int]],
        refs: Sequence[StateRef],
        *parcels: Blob,
    ) -> tuple[tuple[list[Outcome], dict[StateRef, dict[str, int]]], *tuple[Blob, ...]]:
        """Train a batch.

        Args:
            share: The batch.
            needed: The files of its start states with folders, sent before.
            refs: Names of its start states.
            *parcels: Those states.

        Returns:
            The outcomes with the files of the new states, to be fetched; and for each outcome the new state, unless
            its record contains it.
        """
        if self._worker is None:
            raise RuntimeError("expected `open` before `run`")
        if isinstance(self._cargo, ActorStates):
            self._cargo.begin(dict(zip(refs, parcels, strict=True)), needed)
        outcomes = self._worker.run(share)
        for incident in incidents_of(self._worker):
            log.warning("%s", incident.message)
        if broken := [one for one in outcomes if isinstance(one, Failure) and one.cause == "device"]:
            # The driver replaces this actor, and its rounds are trained again.
            raise WorkerError(broken[0].message)
        files = self._cargo.folders if isinstance(self._cargo, ActorStates) else {}
        return (outcomes, files), *(self._parcel(outcome) for outcome in outcomes)

    def missing(self, files: Mapping[str, int]) -> dict[str, int]:
        """The files that have to be sent to this node."""
        return dict(self._cargo.objects.missing(files))

    def append(self, content: FileContent, offset: int, piece: bytes) -> None:
        """Take a piece of a file."""
        self._cargo.objects.append(content, offset, piece)

    def read(self, sha256: str, offset: int, count: int) -> bytes:
        """A piece of a file of the last batch, even during the next one."""
        return bytes(self._cargo.objects.read(sha256, offset, count))

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


def node_here() -> tuple[str, str]:
    """The identifier of this actor's node, and its name in messages."""
    ray = sys.modules["ray"]
    node = str(ray.get_runtime_context().get_node_id())
    return node, f"{platform.node()} ({ray.util.get_node_ip_address()}, {node[:8]})"


def versions() -> dict[str, str]:
    """The versions that results depend on, which must be equal on all nodes."""
    names = ("population-based-training", "numpy", "torch")
    return {"python": platform.python_version(), **{name: version_of(name) or "none" for name in names}}
