"""The Ray executor: one actor per slot, on nodes chosen by Ray.

Tasks and states travel through Ray's object store: a member starts from the copy that its donor's worker left there,
node to node. A copy of each state goes to the driver, which makes it durable before it reports the outcome. A lost
actor, node or object is not the member's fault: the round is repeated from the durable copy, with the same seed.
"""

import contextlib
import logging
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pbt.closing import Closing
from pbt.core.population import StateRef, Stored
from pbt.errors import InfrastructureError, PBTError, TaskError, WorkerError
from pbt.executors.base import Failure, Incident, Outcome, Report, RoundTask, TaskBatch
from pbt.executors.fingerprint import Fingerprint, code_digests, modules_of, own_digests
from pbt.executors.ray.actor import Actor, ActorProgram, ActorStates, Opened
from pbt.executors.ray.cluster import (
    Cluster,
    Head,
    amounts,
    bounded,
    check_room,
    connected,
    connection_is_ours,
    disconnect,
    head_of,
    nodes,
    room,
)
from pbt.executors.ray.faults import REMEDY, Fault, brief, fault_of
from pbt.executors.ray.nodes import Nodes, unfit
from pbt.executors.ray.object_cache import ObjectCache
from pbt.executors.ray.sent_data import send
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
OPENING_SECONDS = 20.0
"""Time after the first ready worker for the other ones of the start, with which the first round waits."""
ELSEWHERE, LEFT_OUT = "tried elsewhere", "node left out"
"""Kinds of journal entries."""
_PULSES = 6
"""Unanswered signs of life after which a worker counts as silent."""


@dataclass(slots=True, kw_only=True, eq=False)
class _ActorSlot:
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


class _Made(NamedTuple):
    """A new state."""

    parcel: Any
    """Reference to its bytes."""
    actor: Any
    node: str
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
        self._program = ActorProgram((), b"", (), (), None)
        self._mine: Fingerprint = {}
        self._held = ObjectCache(0)
        self._slots: list[_ActorSlot] = []
        self._queue: deque[TaskBatch] = deque()
        self._outcomes: list[Outcome] = []
        self._incidents: list[Incident] = []
        self._deaths_at_start = 0
        self._nodes = Nodes()
        self._interrupted: Counter[tuple[int, int]] = Counter()
        """How often the infrastructure has interrupted each round."""
        self._head: Head | None = None
        self._head_is_there = True
        self._begun = False
        """Whether the first round may begin: the nodes of the start are compared with the driver."""
        self._first_ready: float | None = None
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
            head = self._head_answers()
            opened = [slot for slot in self._slots if slot.opening in ready]
            for slot in opened:
                self._opened(slot)
            answered = [slot for slot in self._slots if slot.share and slot.answer in ready]
            arrived = [found for slot in answered for found in self._answered(slot)]
            self._watch()
            if self._queue and not answered and head:
                self._grow()
                self._give_up_elsewhere()
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
                self._kill(slot)
        self._ray = self._head = None
        self._held = ObjectCache(0)
        disconnect()

    def _connect(self) -> None:
        ray = connected(self._cluster)
        try:
            count = check_room(ray, self._cluster)
        except TimeoutError as error:
            raise InfrastructureError(f"ray: the head of the cluster does not answer ({error}); {REMEDY}") from error
        if self._most is not None and self._most > count:
            log.info("ray: room for %d of the %d requested workers", count, self._most)
        self._ray, self._head = ray, head_of(ray)
        need = self._cluster.need
        self._actors = ray.remote(
            num_cpus=need.pop("CPU"),
            num_gpus=need.pop("GPU"),
            resources=need,
            runtime_env=None if connection_is_ours() else dict(self._cluster.runtime_env) or None,
            max_restarts=0,
            concurrency_groups={"pulse": 1, "files": 1},
            scheduling_strategy="SPREAD",
        )(Actor)
        folder = self._cluster.folder
        states = ActorStates() if folder is None else StateFiles(Path(folder))
        # Definitions of the main program are pickled by value: nodes have no copy of its file.
        payload = ray.cloudpickle.dumps(replace(self._setup, states=states, fingerprint={}))
        code = modules_of(pickled(self._setup.task))
        sent = None if self._cluster.held is None else send(ray, self._cluster.held)
        self._program = ActorProgram(sources(), payload, sys.path, code, sent)
        self._mine = {**self._setup.fingerprint, **own_digests(self._setup.task), **code_digests(code)}
        self._held = ObjectCache(_HELD * sum(node.get("object_store_memory", 0.0) for node in nodes(ray)))

    def _grow(self) -> None:
        """Start as many actors as there is work and room for, also on nodes added later."""
        with contextlib.suppress(TimeoutError):
            self._start_actors()

    def _start_actors(self) -> None:
        wanted = min(self._most or 2**31, len(self._queue) + sum(slot.share is not None for slot in self._slots))
        if wanted > len(self._slots):
            count = room(nodes(self._ray, self._nodes.left_out), self._cluster.need)
            actors = self._actors.options(label_selector=self._nodes.selector() or None)
            for _ in range(min(wanted, count) - len(self._slots)):
                actor = actors.remote(self._program)
                self._slots.append(_ActorSlot(actor=actor, opening=actor.open.remote()))

    def _deal(self) -> None:
        if not self._may_begin():
            return
        for slot in list(self._slots):
            while slot.opening is None and slot.share is None and (share := self._next_for(slot)):
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
                    how = f"was lost while it was sent its start ({brief(error)})"
                    self._lost(slot, how, fault_of(self._ray, error))
                    break
                call = slot.actor.run.options(num_returns=1 + len(share))
                slot.answer, *slot.parcels = call.remote(share, needed, refs, *parcels)
                slot.share, slot.started = share, time.monotonic()
                slot.heard, slot.pulse = slot.started, None

    def _may_begin(self) -> bool:
        """Whether the nodes of the start are compared: all their workers are open, or late."""
        if not self._begun and self._first_ready is not None:
            late = time.monotonic() - self._first_ready > OPENING_SECONDS
            self._begun = late or all(slot.opening is None for slot in self._slots)
        return self._begun

    def _next_for(self, slot: _ActorSlot) -> TaskBatch:
        """The next batch that the worker's node may train, taken from the queue; empty: none."""
        for i, share in enumerate(self._queue):
            if self._nodes.takes(slot.node, share):
                del self._queue[i]
                return share
        return ()

    def _give_up_elsewhere(self) -> None:
        """End the trials of rounds that no other node can train any more."""
        if any(slot.opening is not None for slot in self._slots):
            return
        ready = {slot.node for slot in self._slots}
        for share in [share for share in self._queue if self._nodes.failed_on(share)]:
            if ready <= self._nodes.failed_on(share):
                self._queue.remove(share)
                self._outcomes += [self._nodes.final(task) for task in share]

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
                    f"a worker died during its start, {START_ATTEMPTS} times in a row: {brief(error)}"
                ) from error
            self._lost(slot, f"died during its start ({brief(error)})")
            return
        slot.node = opened.node
        name = self._nodes.name(opened.node, opened.place)
        if reason := unfit(opened, name, self._mine):
            if not self._begun:
                raise reason
            self._leave_out(opened.node, str(reason))
            return
        slot.opening, self._deaths_at_start = None, 0
        self._progress = time.monotonic()
        self._first_ready = self._first_ready or self._progress

    def _leave_out(self, node: str, reason: str) -> None:
        """Train on the other nodes from now on; the rounds of its workers are trained there.

        Raises:
            InfrastructureError: No other node is left.
        """
        self._nodes.left_out[node] = reason
        if self._head_is_there and not nodes(self._ray, self._nodes.left_out):
            raise InfrastructureError(f"no node is left that can train: {reason}; repair it, then resume")
        self._incidents.append(Incident(kind=LEFT_OUT, message=f"left out of the run: {reason}"))
        for slot in [slot for slot in self._slots if slot.node == node]:
            self._kill(slot)
            self._slots.remove(slot)
            self._queue.extendleft([slot.share] if slot.share else [])

    def _answered(self, slot: _ActorSlot) -> Iterator[tuple[Outcome, "_Made", RoundTask]]:
        """The outcomes of a batch, each with its state."""
        if slot not in self._slots:
            return  # its node was left out
        try:
            outcomes, files = self._ray.get(slot.answer)
        except self._ray.exceptions.ObjectLostError as error:
            # A start state was lost with another node, while this worker is intact. The retry starts from the durable
            # copy.
            share = slot.released()
            for task in share:
                if task.start is not None:
                    self._held.drop(task.start)
            self._interrupt(share, f"could not get the state to start from ({brief(error)})", "")
            return
        except self._ray.exceptions.RayError as error:
            died = isinstance(error, self._ray.exceptions.RayActorError)
            self._lost(slot, f"{'died' if died else 'could not train'} ({brief(error)})", fault_of(self._ray, error))
            return
        parcels = slot.parcels
        for outcome, parcel, task in zip(outcomes, parcels, slot.released(), strict=True):
            judged = self._judged(outcome, task, slot.node)
            if judged is not None:
                made = files.get(StateRef(task.member, task.round), {})
                yield judged, _Made(parcel, slot.actor, slot.node, made), task
        self._progress = time.monotonic()

    def _judged(self, outcome: Outcome, task: RoundTask, node: str) -> Outcome | None:
        """The outcome of a round; None: it is tried on another node first."""
        if isinstance(outcome, Failure):
            others = [slot.node for slot in self._slots if slot.opening is None]
            if not self._nodes.failed(task, outcome, node, others):
                return self._nodes.final(task, outcome)
            how = f"failed on node {self._nodes.name(node)}, and is tried on another one: {outcome.message}"
            self._incidents.append(
                Incident(kind=ELSEWHERE, message=how, member=task.member, round=task.round, attempt=task.attempt)
            )
            self._queue.appendleft((task,))
            return None
        for broken, failed in self._nodes.succeeded(task, node):
            name = self._nodes.name(broken)
            self._leave_out(broken, f"node {name} failed rounds that others trained: {failed.message}")
        return outcome

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
                self._interrupt((task,), f"was lost with the state it had made ({brief(error)})", made.node)
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
        elif now - self._progress > START_SECONDS and self._head_is_there:
            free, every = bounded(self._ray.available_resources), bounded(self._ray.cluster_resources)
            raise WorkerError(
                f"ray: no worker started in {START_SECONDS:g} s; each needs {amounts(self._cluster.need)}, and free "
                f"are {amounts(free)} of {amounts(every)}; wait for other jobs, request less or add a node, then resume"
            )

    def _feel(self, slot: _ActorSlot, now: float) -> None:
        """Request a sign of life at regular intervals."""
        if slot.pulse is None:
            if now - slot.heard > self._limits.silence / _PULSES:
                slot.pulse = slot.actor.pulse.options(concurrency_group="pulse").remote()
        elif self._ray.wait([slot.pulse], timeout=0)[0]:
            slot.pulse, slot.heard = None, now

    def _lost(self, slot: _ActorSlot, how: str, fault: Fault = "worker") -> None:
        """Give up an actor; another one retries its batch."""
        self._kill(slot)
        self._slots.remove(slot)
        if fault == "cluster":
            self._interrupt(slot.share or (), how, slot.node)
        elif fault == "node":
            self._incidents += incidents_of(slot.share or (), f"{how}; its node went")
            self._queue.extendleft([slot.share] if slot.share else [])
        else:
            self._again(slot.share or (), how)

    def _kill(self, slot: _ActorSlot) -> None:
        """End an actor; without a control store it ends with this process."""
        if self._head_is_there:
            with contextlib.suppress(TimeoutError):
                bounded(partial(self._ray.kill, slot.actor))

    def _head_answers(self) -> bool:
        """Whether the control store answers.

        Raises:
            InfrastructureError: It has not answered for long.
        """
        self._head_is_there = False  # also if this raises
        self._head_is_there = self._head is None or self._head.answers
        return self._head_is_there

    def _interrupt(self, share: TaskBatch, how: str, node: str) -> None:
        """Retry a batch that the infrastructure interrupted, on another node if there is one; it costs no attempt.

        Raises:
            InfrastructureError: It was interrupted as often as a round has attempts.
        """
        if not share:
            return
        where = f"the worker on node {self._nodes.name(node)}" if node else "the worker"
        self._incidents += incidents_of(share, how)
        others = [slot.node for slot in self._slots if slot.opening is None and slot.node != node]
        for task in share:
            times = self._interrupted[task.member, task.round] = self._interrupted[task.member, task.round] + 1
            if times >= self._limits.attempts:
                where = f"member {task.member}, round {task.round}: {where}"
                raise InfrastructureError(f"ray: {where} {how}, {times} times; {REMEDY}")
            if node and others:
                self._nodes.failed(task, failure(task, "disk", f"{where} {how}"), node, others)
        self._queue.appendleft(share)

    def _again(self, share: TaskBatch, how: str) -> None:
        self._incidents += incidents_of(share, how)
        shares, failures = tried_again(share, how, self._limits)
        self._queue.extendleft(reversed(shares))
        self._outcomes += failures
