"""The Ray executor: one actor per slot, on nodes chosen by Ray.

Tasks and states travel through Ray's object store: a member starts from the copy that its donor's worker left there,
node to node. A copy of each state goes to the driver, which makes it durable before it reports the outcome. A lost
actor, node or object is not the member's fault: the round is repeated from the durable copy, with the same seed.
"""

import logging
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pbt.closing import Closing
from pbt.core.population import StateRef, Stored
from pbt.errors import PBTError, TaskError, WorkerError
from pbt.executors.base import Incident, Outcome, Report, RoundTask, TaskBatch
from pbt.executors.ray.actor import Actor, ActorStates, Opened, versions
from pbt.executors.ray.cluster import Cluster, amounts, check_room, connected, disconnect, nodes, room
from pbt.executors.ray.object_cache import ObjectCache
from pbt.executors.ray.transfer import fetch_files, send_files
from pbt.executors.retry import (
    BEAT_SECONDS,
    PAUSE_SECONDS,
    START_ATTEMPTS,
    START_SECONDS,
    Limits,
    incidents_of,
    tried_again,
)
from pbt.executors.transport import pickled, sources
from pbt.executors.worker import WorkerSpec, failure, fatal_cause
from pbt.store.codec import digest_of
from pbt.store.files import StateFiles, file_name

log = logging.getLogger("pbt")

_HELD = 0.3
"""Fraction of the object store for states that wait to be handed over."""
_PULSES = 6
"""Unanswered signs of life after which a worker counts as silent."""


@dataclass(slots=True, kw_only=True, eq=False)
class _ActorSlot:
    """An actor and its pending calls."""

    actor: Any
    opening: Any
    """Reference to the result of its start; None: it is ready."""
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


class _Made(NamedTuple):
    """A new state."""

    parcel: Any
    """Reference to its bytes."""
    actor: Any
    files: Mapping[str, int]
    """The files that it needs, on the node of this actor."""


class RayExecutor(Closing):
    """Trains on as many actors as the Ray cluster can hold.

    Args:
        setup: The specification of a worker, which also groups the tasks into batches.
        cluster: The address of Ray and the resources per worker.
        workers: Maximal number of actors. Default: as many as the cluster can hold.
        limits: When a worker counts as lost, and a round as failed.

    Raises:
        TaskError: The task cannot be sent to another process.
    """

    def __init__(
        self,
        setup: WorkerSpec,
        cluster: Cluster | None = None,
        workers: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._setup, self._cluster, self._most = setup, cluster or Cluster(), workers
        self._limits = limits or Limits()
        pickled(setup.task)
        self._ray: Any = None
        self._actors: Any = None
        self._payload = b""
        self._held = ObjectCache(0)
        self._slots: list[_ActorSlot] = []
        self._queue: deque[TaskBatch] = deque()
        self._outcomes: list[Outcome] = []
        self._incidents: list[Incident] = []
        self._deaths_at_start = 0
        self._looked = self._progress = time.monotonic()

    @property
    def slots(self) -> int:
        """The number of actors, or, before the start, the requested number."""
        return max(1, len(self._slots), self._most or 0)

    def submit(self, tasks: Sequence[RoundTask]) -> None:
        """Queue the tasks; start actors if there is work and room for them."""
        self._queue.extend(self._setup.shares(tasks))
        if self._ray is None:
            self._connect()
        self._looked = self._progress = time.monotonic()
        self._grow()
        self._deal()

    def wait(self) -> list[Outcome]:
        """Block until there is an outcome whose state is durable; every wait inside is bounded."""
        while not self._outcomes and (self._queue or any(slot.share for slot in self._slots)):
            ready = self._ready()
            opened = [slot for slot in self._slots if slot.opening in ready]
            for slot in opened:
                self._opened(slot)
            answered = [slot for slot in self._slots if slot.share and slot.answer in ready]
            arrived = [found for slot in answered for found in self._answered(slot)]
            self._watch()
            if self._queue and not answered:
                self._grow()
            # Workers get their next batch before the driver fetches and writes the states of the last one.
            self._deal()
            for outcome, parcel, task in arrived:
                self._keep(outcome, parcel, task)
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def incidents(self) -> list[Incident]:
        """Lost workers and repeated rounds since the last call."""
        incidents, self._incidents = self._incidents, []
        return incidents

    def close(self) -> None:
        """End the actors, and the connection if this executor made it."""
        self._queue.clear()
        slots, self._slots = self._slots, []
        if self._ray is not None and self._ray.is_initialized():
            for slot in slots:
                self._ray.kill(slot.actor)
        self._ray = None
        self._held = ObjectCache(0)
        disconnect()

    def _connect(self) -> None:
        ray = connected(self._cluster)
        count = check_room(ray, self._cluster)
        if self._most is not None and self._most > count:
            log.info("ray: room for %d of the %d requested workers", count, self._most)
        self._ray = ray
        need = self._cluster.need
        self._actors = ray.remote(
            num_cpus=need.pop("CPU"),
            num_gpus=need.pop("GPU"),
            resources=need,
            runtime_env=dict(self._cluster.runtime_env) or None,
            max_restarts=0,
            concurrency_groups={"pulse": 1, "files": 1},
            scheduling_strategy="SPREAD",
        )(Actor)
        folder = self._cluster.folder
        states = ActorStates() if folder is None else StateFiles(Path(folder))
        # Definitions of the main program are pickled by value: nodes have no copy of its file.
        self._payload = ray.cloudpickle.dumps(replace(self._setup, states=states))
        self._held = ObjectCache(_HELD * sum(node.get("object_store_memory", 0.0) for node in nodes(ray)))

    def _grow(self) -> None:
        """Start as many actors as there is work and room for, also on nodes added later."""
        wanted = min(self._most or 2**31, len(self._queue) + sum(slot.share is not None for slot in self._slots))
        if wanted > len(self._slots):
            count = room(nodes(self._ray), self._cluster.need)
            for _ in range(min(wanted, count) - len(self._slots)):
                actor = self._actors.remote(sources(), self._payload, sys.path)
                self._slots.append(_ActorSlot(actor=actor, opening=actor.open.remote()))

    def _deal(self) -> None:
        for slot in list(self._slots):
            while self._queue and slot.opening is None and slot.share is None:
                share = self._queue.popleft()
                refs = sorted({t.start for t in share if t.start is not None and t.blob is None})
                try:
                    parcels = [self._parcel(ref) for ref in refs]
                    needed = self._needed(share)
                    send_files(self._ray, slot.actor, self._states, needed)
                except PBTError as error:
                    self._outcomes += [failure(task, fatal_cause(error), str(error)) for task in share]
                    continue
                except self._ray.exceptions.RayError as error:
                    slot.share = share
                    self._lost(slot, f"died while it was sent the files to start from ({_brief(error)})")
                    break
                call = slot.actor.run.options(num_returns=1 + len(share))
                slot.answer, *slot.parcels = call.remote(share, needed, refs, *parcels)
                slot.share, slot.started = share, time.monotonic()
                slot.heard, slot.pulse = slot.started, None

    def _needed(self, share: TaskBatch) -> dict[StateRef, dict[str, int]]:
        """The files of the start states with folders, unless the workers read them from a shared folder."""
        if self._cluster.folder is not None:
            return {}
        files = {task.start: self._states.references(task.start) for task in share if task.start is not None}
        return {ref: needed for ref, needed in files.items() if needed}

    def _parcel(self, ref: StateRef) -> Any:
        """A reference to a state: the copy that its worker left in the cluster, else one of the durable copy."""
        if self._cluster.folder is not None:
            return None
        held = self._held.get(ref)
        if held is None:
            blob = self._states.read(ref)
            held = self._ray.put(np.frombuffer(blob, dtype=np.uint8))
            self._held.add(ref, held, len(blob))
        return held

    def _ready(self) -> set[Any]:
        """The references that are ready, after at most one beat."""
        waiting = [slot.opening for slot in self._slots if slot.opening is not None]
        waiting += [slot.answer for slot in self._slots if slot.share is not None]
        if not waiting:
            time.sleep(BEAT_SECONDS / 10)  # until a node is added or the time-out ends the run
            return set()
        self._ray.wait(waiting, timeout=BEAT_SECONDS, fetch_local=False)
        return set(self._ray.wait(waiting, num_returns=len(waiting), timeout=0, fetch_local=False)[0])

    def _opened(self, slot: _ActorSlot) -> None:
        """Handle the result of an actor's start."""
        try:
            opened: Opened = self._ray.get(slot.opening)
        except self._ray.exceptions.RuntimeEnvSetupError as error:
            raise TaskError(f"ray: the runtime environment cannot be set up: {error}") from error
        except self._ray.exceptions.RayError as error:
            self._deaths_at_start += 1
            if self._deaths_at_start >= START_ATTEMPTS:
                raise WorkerError(
                    f"a worker died during its start, {START_ATTEMPTS} times in a row: {_brief(error)}"
                ) from error
            self._lost(slot, f"died during its start ({_brief(error)})")
            return
        if opened.trouble:
            raise TaskError(opened.trouble)
        here = versions()
        other = [
            f"{name} {version}, here {here[name]}" for name, version in opened.versions.items() if version != here[name]
        ]
        if other:
            raise WorkerError(
                f"ray: expected the driver's versions on every node, got {'; '.join(other)}; results depend on them: "
                "install the same versions everywhere, or give the workers a runtime environment"
            )
        slot.opening, self._deaths_at_start = None, 0
        self._progress = time.monotonic()

    def _answered(self, slot: _ActorSlot) -> Iterator[tuple[Outcome, "_Made", RoundTask]]:
        """The outcomes of a batch, each with its state."""
        try:
            outcomes, files = self._ray.get(slot.answer)
        except self._ray.exceptions.RayActorError as error:
            self._lost(slot, f"died ({_brief(error)})")
            return
        except self._ray.exceptions.ObjectLostError as error:
            # A start state was lost with another node, while this worker is intact. The retry starts from the durable
            # copy.
            share = slot.released()
            for task in share:
                if task.start is not None:
                    self._held.drop(task.start)
            self._again(share, f"could not get the state to start from ({_brief(error)})")
            return
        except self._ray.exceptions.RayError as error:
            self._lost(slot, f"could not train ({_brief(error)})")
            return
        parcels = slot.parcels
        for outcome, parcel, task in zip(outcomes, parcels, slot.released(), strict=True):
            yield outcome, _Made(parcel, slot.actor, files.get(StateRef(task.member, task.round), {})), task
        self._progress = time.monotonic()

    def _keep(self, outcome: Outcome, made: "_Made", task: RoundTask) -> None:
        """Make the state of an outcome durable before the outcome is reported."""
        if isinstance(outcome, Report) and (outcome.stored.blob is None or made.files):
            ref, digest = StateRef(outcome.member, outcome.round), outcome.stored.digest
            try:
                if self._cluster.folder is not None:
                    self._check_shared(ref, outcome.stored)
                else:
                    if made.files:
                        fetch_files(self._ray, made.actor, self._states, ref, made.files)
                    if outcome.stored.blob is None:
                        blob = self._ray.get(made.parcel, timeout=START_SECONDS).data
                        if digest_of(blob) != digest:
                            self._again((task,), "made a state that arrived damaged")
                            return
                        kept = replace(self._states.keep(ref, blob, digest), folders=outcome.stored.folders)
                        outcome = replace(outcome, stored=kept)
                        self._held.add(ref, made.parcel, len(blob))
            except self._ray.exceptions.RayError as error:
                self._again((task,), f"was lost with the state it had made ({_brief(error)})")
                return
            except PBTError as error:
                outcome = failure(task, fatal_cause(error), str(error))
        self._outcomes.append(outcome)

    def _check_shared(self, ref: StateRef, stored: Stored) -> None:
        mine = self._states.folder
        file = None if mine is None else mine / file_name(ref)
        if file is None or not file.exists() or file.stat().st_size != stored.size:
            raise TaskError(
                f"states_url: expected the workers' {self._cluster.folder} to be the states folder of the run, "
                f"{mine or 'which is in memory'}; found no {file_name(ref)} there"
            )

    @property
    def _states(self) -> StateFiles:
        states = self._setup.states
        if not isinstance(states, StateFiles):
            raise TaskError(f"the executor 'ray' keeps states as files or in records, got {type(states).__name__}")
        return states

    def _watch(self) -> None:
        """Give up actors that are silent or too long at one round, and a cluster without room."""
        now = time.monotonic()
        away, self._looked = now - self._looked, now
        for slot in [slot for slot in self._slots if slot.share is not None]:
            if away > PAUSE_SECONDS:
                slot.heard, slot.started = now, slot.started + away
            self._feel(slot, now)
            limit = None if slot.share is None else self._limits.seconds(slot.share)
            if now - slot.heard > self._limits.silence:
                self._lost(slot, f"was silent for {self._limits.silence:g} s")
            elif limit is not None and now - slot.started > limit:
                self._lost(slot, f"took longer than the time limit of {limit:g} s")
        if any(slot.share is not None for slot in self._slots) or not self._queue:
            self._progress = now
        elif now - self._progress > START_SECONDS:
            raise WorkerError(
                f"ray: no worker started in {START_SECONDS:g} s; each needs {amounts(self._cluster.need)}, and "
                f"free are {amounts(self._ray.available_resources())} of {amounts(self._ray.cluster_resources())}; "
                "wait for other jobs, request less, or add a node; then resume"
            )

    def _feel(self, slot: _ActorSlot, now: float) -> None:
        """Request a sign of life at regular intervals."""
        if slot.pulse is None:
            if now - slot.heard > self._limits.silence / _PULSES:
                slot.pulse = slot.actor.pulse.options(concurrency_group="pulse").remote()
        elif self._ray.wait([slot.pulse], timeout=0)[0]:
            slot.pulse, slot.heard = None, now

    def _lost(self, slot: _ActorSlot, how: str) -> None:
        """Give up an actor; another one retries its batch."""
        self._ray.kill(slot.actor)
        self._slots.remove(slot)
        self._again(slot.share or (), how)

    def _again(self, share: TaskBatch, how: str) -> None:
        self._incidents += incidents_of(share, how)
        shares, failures = tried_again(share, how, self._limits)
        self._queue.extendleft(reversed(shares))
        self._outcomes += failures


def _brief(error: BaseException) -> str:
    """The first lines of an error of Ray, which can be pages long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300].rstrip(".") or type(error).__name__
