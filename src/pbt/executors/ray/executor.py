"""The Ray executor: one actor per slot, on nodes chosen by Ray.

Tasks and states travel through Ray's object store: a member starts from the copy that its donor's worker left there,
node to node. A copy of each state goes to the driver, which makes it durable before it reports the outcome. A lost
actor, node or object is not the member's fault: the round is repeated from the durable copy, with the same seed.
"""

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pbt.closing import Closing
from pbt.core.population import StateRef
from pbt.errors import InfrastructureError, PBTError, TaskError, WorkerError
from pbt.executors.base import Failure, Incident, Outcome, Report, RoundTask, TaskBatch
from pbt.executors.ray.cluster import Cluster
from pbt.executors.ray.connection import disconnect
from pbt.executors.ray.driver_states import DamagedError, DriverStates
from pbt.executors.ray.faults import REMEDY, Fault, brief, fault_of
from pbt.executors.ray.nodes import Nodes, unfit
from pbt.executors.ray.pool import ActorPool
from pbt.executors.ray.session import ClusterSession
from pbt.executors.ray.slots import ActorSlot, MadeState
from pbt.executors.retry import (
    PAUSE_SECONDS,
    START_ATTEMPTS,
    Limits,
    incidents_of,
    tried_again,
)
from pbt.executors.transport import pickled
from pbt.executors.worker import WorkerSpec, failure, fatal_cause

if TYPE_CHECKING:
    from pbt.executors.ray.actor import Opened

ELSEWHERE, LEFT_OUT, GOING = "tried elsewhere", "node left out", "node about to go"
"""Kinds of journal entries."""


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
        self._opened_session: ClusterSession | None = None
        self._opened_states: DriverStates | None = None
        self._made_pool: ActorPool | None = None
        self._slots: list[ActorSlot] = []
        self._queue: deque[TaskBatch] = deque()
        self._outcomes: list[Outcome] = []
        self._incidents: list[Incident] = []
        self._deaths_at_start = 0
        self._nodes = Nodes()
        self._interrupted: Counter[tuple[int, int]] = Counter()
        """How often the infrastructure has interrupted each round."""
        self._looked = self._progress = time.monotonic()

    @property
    def slots(self) -> int:
        """The number of actors, or, before the start, the requested number."""
        return max(1, len(self._slots), self._most or 0)

    def submit(self, tasks: Sequence[RoundTask]) -> None:
        """Queue the tasks; start actors if there is work and room for them."""
        self._queue.extend(self._setup.shares(tasks))
        if self._opened_session is None:
            session = self._opened_session = ClusterSession(self._setup, self._cluster, self._most)
            self._opened_states = DriverStates(session.ray, self._setup.states, self._cluster.folder, session.memory)
            self._made_pool = ActorPool(session, self._nodes, self._slots, self._most)
        self._looked = self._progress = time.monotonic()
        self._pool.grow(self._queue)
        self._deal()

    def wait(self) -> list[Outcome]:
        """Block until there is an outcome whose state is durable; every wait inside is bounded."""
        while not self._outcomes and (self._queue or any(slot.share for slot in self._slots)):
            ready = self._pool.ready()
            head = self._session.head_answers()
            opened = [slot for slot in self._slots if slot.opening in ready]
            for slot in opened:
                self._opened(slot)
            answered = [slot for slot in self._slots if slot.share and slot.answer in ready]
            arrived = [found for slot in answered for found in self._answered(slot)]
            self._watch()
            if self._queue and not answered and head:
                self._pool.grow(self._queue)
                self._give_up_elsewhere()
            # Workers get their next batch before the driver fetches and writes the states of the last one.
            self._deal()
            for outcome, parcel, task in arrived:
                self._keep(outcome, parcel, task)
            for node in self._pool.heed_notices():
                how = f"node {self._nodes.name(node)} is about to go: it gets no new rounds"
                self._incidents.append(Incident(kind=GOING, message=how))
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
        self._made_pool = None
        session, self._opened_session, self._opened_states = self._opened_session, None, None
        if session is not None and session.ray.is_initialized():
            for slot in slots:
                session.kill(slot)
        disconnect()

    @property
    def _session(self) -> ClusterSession:
        if self._opened_session is None:
            raise RuntimeError("expected `submit` first")
        return self._opened_session

    @property
    def _states(self) -> DriverStates:
        if self._opened_states is None:
            raise RuntimeError("expected `submit` first")
        return self._opened_states

    @property
    def _pool(self) -> ActorPool:
        if self._made_pool is None:
            raise RuntimeError("expected `submit` first")
        return self._made_pool

    @property
    def _ray(self) -> Any:
        return self._session.ray

    def _deal(self) -> None:
        if not self._pool.may_begin():
            return
        for slot in list(self._slots):
            while slot.opening is None and slot.share is None and (share := self._next_for(slot)):
                try:
                    refs, parcels = self._states.parcels(share)
                    needed = self._states.send_files(slot.actor, share)
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

    def _next_for(self, slot: ActorSlot) -> TaskBatch:
        """The next batch that the worker's node may train, taken from the queue; empty: none."""
        for i, share in enumerate(self._queue):
            if slot.node not in self._session.going and self._nodes.takes(slot.node, share):
                del self._queue[i]
                return share
        return ()

    def _give_up_elsewhere(self) -> None:
        """End the trials of rounds that no other node can train any more."""
        if self._pool.opening():
            return
        ready = {slot.node for slot in self._slots if slot.opening is None}
        for share in [share for share in self._queue if self._nodes.failed_on(share)]:
            if ready <= self._nodes.failed_on(share):
                self._queue.remove(share)
                self._outcomes += [self._nodes.final(task) for task in share]

    def _opened(self, slot: ActorSlot) -> None:
        """Handle the result of an actor's start."""
        try:
            opened: Opened = self._ray.get(slot.opening)
        except self._ray.exceptions.RuntimeEnvSetupError as error:
            raise TaskError(f"ray: the runtime environment cannot be set up: {error}") from error
        except self._ray.exceptions.RayError as error:
            if fault_of(self._ray, error) == "node":
                self._lost(slot, f"died during its start ({brief(error)})", "node")
                return
            self._deaths_at_start += 1
            if self._deaths_at_start >= START_ATTEMPTS:
                raise WorkerError(
                    f"a worker died during its start, {START_ATTEMPTS} times in a row: {brief(error)}"
                ) from error
            self._lost(slot, f"died during its start ({brief(error)})")
            return
        slot.node = opened.node
        name = self._nodes.name(opened.node, opened.place)
        if reason := unfit(opened, name, self._session.fingerprint):
            if not self._pool.begun:
                raise reason
            self._leave_out(opened.node, str(reason))
            return
        slot.opening, self._deaths_at_start = None, 0
        self._progress = time.monotonic()
        self._pool.opened(self._progress)

    def _leave_out(self, node: str, reason: str) -> None:
        """Train on the other nodes from now on; the rounds of its workers are trained there.

        Raises:
            InfrastructureError: No other node is left.
        """
        self._nodes.left_out[node] = reason
        if not self._session.has_nodes(self._nodes.left_out):
            raise InfrastructureError(f"no node is left that can train: {reason}; repair it, then resume")
        self._incidents.append(Incident(kind=LEFT_OUT, message=f"left out of the run: {reason}"))
        for slot in [slot for slot in self._slots if slot.node == node]:
            self._session.kill(slot)
            self._slots.remove(slot)
            self._queue.extendleft([slot.share] if slot.share else [])

    def _answered(self, slot: ActorSlot) -> Iterator[tuple[Outcome, MadeState, RoundTask]]:
        """The outcomes of a batch, each with its state."""
        if slot not in self._slots:
            return  # its node was left out
        try:
            outcomes, files = self._ray.get(slot.answer)
        except self._ray.exceptions.ObjectLostError as error:
            # A start state was lost with another node, while this worker is intact. The retry starts from the durable
            # copy.
            share = slot.released()
            self._states.forget(share)
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
                yield judged, MadeState(parcel, slot.actor, slot.node, made), task
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

    def _keep(self, outcome: Outcome, made: MadeState, task: RoundTask) -> None:
        """Make the state of an outcome durable before the outcome is reported."""
        try:
            if isinstance(outcome, Report):
                outcome = self._states.durable(outcome, made)
        except DamagedError:
            self._again((task,), "made a state that arrived damaged")
            return
        except self._ray.exceptions.RayError as error:
            self._interrupt((task,), f"was lost with the state it had made ({brief(error)})", made.node)
            return
        except PBTError as error:
            outcome = failure(task, fatal_cause(error), str(error))
        self._outcomes.append(outcome)

    def _watch(self) -> None:
        """Give up actors that are silent or too long at one round, and a cluster without room."""
        now = time.monotonic()
        away, self._looked = now - self._looked, now
        for slot in [slot for slot in self._slots if slot.share is not None]:
            if away > PAUSE_SECONDS:
                slot.heard, slot.started = now, slot.started + away
            slot.feel(self._ray, now, self._limits.silence)
            limit = None if slot.share is None else self._limits.seconds(slot.share)
            if now - slot.heard > self._limits.silence:
                self._lost(slot, f"was silent for {self._limits.silence:g} s")
            elif limit is not None and now - slot.started > limit:
                self._lost(slot, f"took longer than the time limit of {limit:g} s")
        if any(slot.share is not None for slot in self._slots) or not self._queue:
            self._progress = now
        elif self._session.head_is_there and self._pool.gave_up(self._progress, now):
            raise WorkerError(
                f"ray: no worker started in {now - self._progress:.0f} s; {self._session.free()}; wait for other jobs, "
                "request less or add a node, then resume"
            )

    def _lost(self, slot: ActorSlot, how: str, fault: Fault = "worker") -> None:
        """Give up an actor; another one retries its batch."""
        self._session.kill(slot)
        self._slots.remove(slot)
        if slot.node in self._session.going:
            fault = "node"
        if fault == "cluster":
            self._interrupt(slot.share or (), how, slot.node)
        elif fault == "node":
            self._incidents += incidents_of(slot.share or (), f"{how}; its node went")
            self._queue.extendleft([slot.share] if slot.share else [])
        else:
            self._again(slot.share or (), how)

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
